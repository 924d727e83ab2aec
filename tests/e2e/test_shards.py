"""`retinue batch` from and to a bucket, as a user types it: killed and resumed, redriven, refused in time."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.doubles.s3 import S3Server
from tests.e2e.conftest import BOUND, Project, environment

from retinue.store.objects import split_url
from retinue.store.places import open_objects

pytestmark = [pytest.mark.promise("B5"), pytest.mark.promise("K2")]
AGENTS = """
import asyncio
from pathlib import Path

from retinue import workflow
from retinue.runs.errors import PermanentError

HERE = Path(__file__).parent


async def work(text: str) -> str:
    with (HERE / "made.log").open("a") as log:
        log.write(text[:20] + "\\\\n")
    while text.endswith("waits") and not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    if text.endswith("fails") and not (HERE / "mended").exists():
        raise PermanentError("not yet")
    return text.upper()


@workflow
async def shout(ctx, given: dict) -> str:
    return await ctx.step(work, given["text"])
""".replace("\\\\", "\\")


@pytest.fixture
def mine(bucket: str, s3_server: S3Server, tmp_path: Path) -> Project:
    """A project whose blobs are in the bucket, and three files of rows beside them."""
    kept = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
    project = Project(tmp_path / "mine", kept | s3_server.environment())
    settings = {"modules": ["agents"], "principal": "ana", "blobs": f"{bucket}/blobs"}
    project.write("agents.py", AGENTS)
    project.write("policy/rules.cedar", '@id("all") permit (principal, action, resource);')
    project.write("retinue.yaml", json.dumps(settings))
    put(f"{bucket}/in/a.jsonl", [{"id": f"a{n}", "text": f"a{n}{' waits' if n > 5 else ''}"} for n in range(10)])
    put(f"{bucket}/in/b.parquet", [{"id": f"b{n}", "text": f"b{n}"} for n in range(20)])
    put(f"{bucket}/in/c.jsonl", [{"id": "c0", "text": "c" * 100_000}, {"id": "c1", "text": "c1 waits"}], b"{half\n")
    put(f"{bucket}/in/_SUCCESS", [])
    return project


def put(url: str, rows: list[dict[str, Any]], *more: bytes) -> None:
    place, path = split_url(url)
    content = io.BytesIO()
    if url.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), content, row_group_size=6)
    else:
        content.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"".join(more))
    open_objects(place).put(path, content.getvalue())


def parts(folder: str) -> dict[str, list[Any]]:
    """The rows of every part, by name, without what differs between two jobs."""
    place, path = split_url(folder)
    objects = open_objects(place)
    rows = {found.path[len(path) :]: (objects.get(found.path) or b"").splitlines() for found in objects.list(path)}
    return {name: [json.loads(line) | {"run_id": ""} for line in lines] for name, lines in sorted(rows.items())}


def made(project: Project) -> list[str]:
    log = project.folder / "made.log"
    return log.read_text().split() if log.exists() else []


def test_a_job_that_is_killed_goes_on_and_leaves_what_an_undisturbed_one_does(mine: Project, bucket: str) -> None:
    given = ("batch", "shout", "--input", f"{bucket}/in/", "--local", "--concurrency", "24", "--json", "--output")
    disturbed = mine.start(*given, f"{bucket}/killed/")
    until = time.monotonic() + BOUND
    while len([name for name in made(mine) if name.startswith("b")]) < 20 or "a7" not in made(mine):
        assert disturbed.poll() is None and time.monotonic() < until, disturbed.communicate()
        time.sleep(0.05)
    disturbed.kill()
    disturbed.communicate()
    before = made(mine)
    refused = mine.run(*given, f"{bucket}/killed/", code=2)
    assert "unfinished job" in refused.line and "--resume" in refused.line
    mine.write("go", "")
    resumed = mine.run(*given, f"{bucket}/killed/", "--resume", code=1)
    counts = {name: resumed.json[name] for name in ("ok", "failed", "rejected", "written", "rows")}
    assert counts == {"ok": 32, "failed": 0, "rejected": 1, "written": 32, "rows": 33}
    again = made(mine)[len(before) :]
    assert len([name for name in again if name in before]) <= 24, "only what was in flight runs again"
    undisturbed = mine.run(*given, f"{bucket}/whole/", code=1)
    assert undisturbed.json["ok"] == 32
    killed = parts(f"{bucket}/killed/")
    assert list(killed) == [
        "part-00000.jsonl",
        "part-00001.jsonl",
        "part-00002.jsonl",
        "part-00002.jsonl.dead.jsonl",
    ]
    assert [row["id"] for row in killed["part-00001.jsonl"]] == [f"b{n}" for n in range(20)]
    assert killed["part-00002.jsonl"][0]["answer"] == "C" * 100_000
    assert [(row["line"], row["reason"]) for row in killed["part-00002.jsonl.dead.jsonl"]] == [(3, "not_json")]
    assert parts(f"{bucket}/whole/") == killed
    assert not (mine.folder / ".retinue/blobs").exists()
    secret = mine.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert [
        path for path in (mine.folder / ".retinue").rglob("*") if path.is_file() and secret in path.read_bytes()
    ] == []


def test_redriven_rows_of_a_job_over_files_reach_its_parts(mine: Project, bucket: str) -> None:
    put(f"{bucket}/more/x.jsonl", [{"id": "x0", "text": "x0"}, {"id": "x1", "text": "x1 fails"}], b"{half\n")
    put(f"{bucket}/more/y.jsonl", [{"id": "y0", "text": "y0 fails"}])
    given = ("batch", "shout", "--input", f"{bucket}/more/*.jsonl", "--output", f"{bucket}/out", "--local", "--json")
    job = mine.run(*given, code=1).json
    assert (job["ok"], job["failed"], job["rejected"]) == (1, 2, 1)
    listed = mine.run("dlq", "list", "--job", job["job_id"], "--json").json
    assert sorted((one["kind"], one["input_id"] or one["line"], one["job"]) for one in listed["letters"]) == [
        ("input", 3, job["job_id"]),
        ("run", "x1", job["job_id"]),
        ("run", "y0", job["job_id"]),
    ]
    mine.write("mended", "")
    assert "2 runs queued again" in mine.run("dlq", "redrive", job["job_id"], code=0).line
    told = mine.run(*given, "--resume", code=1).json
    assert (told["ok"], told["failed"], told["rejected"]) == (3, 0, 1)
    rows = parts(f"{bucket}/out/")
    assert [row["answer"] for name in rows for row in rows[name] if "answer" in row] == ["X0", "X1 FAILS", "Y0 FAILS"]


def test_force_replaces_the_parts_of_a_larger_job(mine: Project, bucket: str) -> None:
    mine.write("go", "")
    given = ("batch", "shout", "--output", f"{bucket}/out/", "--local", "--format", "parquet")
    mine.run(*given, "--input", f"{bucket}/in/", code=1)
    assert "exists: name another folder" in mine.run(*given, "--input", f"{bucket}/in/b.parquet", code=2).line
    mine.run(*given, "--input", f"{bucket}/in/b.parquet", "--force", "--limit", "7", code=0)
    place, path = split_url(f"{bucket}/out/")
    [part] = list(open_objects(place).list(path))
    table = pq.read_table(io.BytesIO(open_objects(place).get(part.path) or b""))
    assert table.column("answer").to_pylist() == [f"B{n}" for n in range(7)]


def test_one_file_of_a_bucket_may_go_to_a_local_file(mine: Project, bucket: str) -> None:
    said = mine.run("batch", "shout", "--input", f"{bucket}/in/b.parquet", "--output", "b.jsonl", "--local", code=0)
    assert "20 ok" in said.line
    assert [row["answer"] for row in mine.rows("b.jsonl")] == [f"B{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--input", "BUCKET/in/*", "--output", "a.jsonl"), 2, "is many files: --output must name a folder"),
        (("--input", "BUCKET/none/", "--output", "BUCKET/o/"), 2, "there is no such file"),
        (("--input", "BUCKET/in/zz.jsonl", "--output", "BUCKET/o/"), 2, "there is no such file"),
        (("--input", "BUCKET/in/", "--output", "BUCKET/o.jsonl"), 2, "names a file: each shard writes one of its own"),
        (("--input", "BUCKET/in/", "--output", "BUCKET/o/", "--limit", "3"), 2, "--limit counts the rows of one file"),
        (("--input", "BUCKET/in/", "--output", "s3://nobody-has-this/o/"), 2, "cannot be written"),
        (("--input", "s3://nobody-has-this/in/", "--output", "BUCKET/o/"), 6, "check that the bucket exists"),
        (("--input", "gs://x/in/", "--output", "BUCKET/o/"), 2, "names no place for files"),
        (("--input", "BUCKET/in/b.parquet", "--output", "b.jsonl", "--format", "parquet"), 2, "leave it out"),
    ],
)
def test_what_cannot_be_is_refused_before_any_run(
    mine: Project, bucket: str, words: tuple[str, ...], code: int, said: str
) -> None:
    told = mine.run("batch", "shout", "--local", *(word.replace("BUCKET", bucket) for word in words), code=code)
    assert said in told.line and mine.environ["AWS_SECRET_ACCESS_KEY"] not in told.line
    assert made(mine) == [] and parts(f"{bucket}/o/") == {}
