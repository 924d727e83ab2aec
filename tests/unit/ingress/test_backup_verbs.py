"""`retinue backup` and `restore` beside a client that writes: whole, sealed, and held until a person lets it go on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.sync import SyncClient, connect_sync
from retinue.ingress.verbs.init import make_project
from retinue.runs.contracts import Status

SAID = "marzipan"
FLOWS = """
from retinue import Context, workflow


@workflow
async def keeps(ctx: Context, word: str) -> str:
    large = await ctx.step(padded, word)
    return f"{word} {await ctx.event('go')} {len(large)}"


def padded(word: str) -> str:
    return word * 20_000


@workflow
async def shouts(ctx: Context, row: dict) -> str:
    return row["word"].upper()
"""
CUT_THE_LOG = """
import apsw, json, sys
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(5_000)
print(json.dumps(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project whose `keeps` waits for an event; it is the current folder."""
    folder = tmp_path / "mine"
    make_project(folder)
    (folder / "keeping_flows.py").write_text(FLOWS, encoding="utf-8")
    settings = folder / "retinue.yaml"
    settings.write_text(settings.read_text("utf-8").replace("[agents]", "[agents, keeping_flows]"), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def parked(client: SyncClient, flow: str = "keeps") -> str:
    """A run of a flow that waits for its event."""
    run_id = client.submit(flow, SAID)
    deadline = time.monotonic() + 30
    while client.get(run_id).status is not Status.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run_id


def locks_of(file: Path) -> set[tuple[str, ...]]:
    """What this process has locked of a file: kind and range of each lock. One look at the table of a busy machine may
    miss a line or see it twice."""
    lines = [line.split() for _ in range(5) for line in Path("/proc/locks").read_text("utf-8").splitlines()]
    place = f":{file.stat().st_ino}"
    return {(line[3], *line[6:]) for line in lines if line[4] == str(os.getpid()) and line[5].endswith(place)}


@pytest.mark.rule("R16", "R7")
def test_what_was_backed_up_beside_a_live_client_goes_on_where_it_was_restored(
    retinue: Command, project: Path, tmp_path: Path
) -> None:
    """The client that lived through the backup goes on too, with the locks it had: opening and closing the file in its
    process would have dropped them."""
    with connect_sync(local=True) as client:
        run_id = parked(client)
        locked = locks_of(project / ".retinue" / "store.db")
        made = retinue("backup", tmp_path / "copy", "--json")
        assert made.code == Exit.done and made.json["runs"] == 1 and made.json["blobs"] >= 1
        assert locks_of(project / ".retinue" / "store.db") == locked != set()
        client.signal(run_id, "go", "here")
        assert client.wait(run_id, 30).value == f"{SAID} here 160000"
        assert retinue("restore", tmp_path / "copy").code == Exit.usage
    shutil.move(project / ".retinue", tmp_path / "lost")

    back = retinue("restore", tmp_path / "copy", "--json")
    assert back.code == Exit.done and back.json["held"] == 1
    assert retinue("signal", run_id, "go", "--text", "there").code == Exit.done
    assert retinue("wait", run_id, "--local").code == Exit.asks
    assert "queued, held" in retinue("ps").out
    assert retinue("resume", run_id).code == Exit.done
    assert retinue("wait", run_id, "--local", "--json").json["output"] == f"{SAID} there 160000"


@pytest.mark.rule("R6")
def test_a_backup_without_keys_says_nothing_of_what_was_said(retinue: Command, project: Path, tmp_path: Path) -> None:
    with connect_sync(local=True) as client:
        run_id = parked(client)
    assert retinue("backup", tmp_path / "copy", "--without-keys").code == Exit.done
    kept = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert kept and not any(SAID.encode() in path.read_bytes() for path in kept)
    shutil.move(project / ".retinue", tmp_path / "lost")
    assert retinue("restore", tmp_path / "copy").code == Exit.done
    assert retinue("inbox", run_id, "--json").json["waits"][0]["goal"] is None
    shutil.rmtree(project / ".retinue" / "keys", ignore_errors=True)
    shutil.copytree(tmp_path / "lost" / "keys", project / ".retinue" / "keys")
    assert retinue("inbox", run_id, "--json").json["waits"][0]["goal"] == SAID


@pytest.mark.rule("R16")
def test_a_batch_that_was_begun_anew_is_the_one_that_is_resumed_after_a_restore(
    retinue: Command, project: Path, tmp_path: Path
) -> None:
    (project / "rows.jsonl").write_text('{"id": "a", "word": "a"}\n{"id": "b", "word": "b"}\n', encoding="utf-8")
    batch = ("batch", "shouts", "--input", "rows.jsonl", "--output", "out.jsonl", "--local", "--json")
    first = retinue(*batch).json["job_id"]
    anew = retinue(*batch, "--force").json["job_id"]
    assert first != anew
    assert retinue("backup", tmp_path / "copy").code == Exit.done
    shutil.move(project / ".retinue", tmp_path / "lost")
    assert retinue("restore", tmp_path / "copy").code == Exit.done
    assert retinue(*batch, "--resume").json["job_id"] == anew


@pytest.mark.rule("R15")
async def test_who_follows_a_run_holds_no_read_of_the_store_open(project: Path) -> None:
    """Between two events of a run that goes on, another process can cut the log to nothing."""
    async with connect(local=True) as client:
        handle = await client.submit("keeps", SAID)
        events = handle.events()
        async for event in events:
            if event.kind == "parked":
                break
        store = str(project / ".retinue" / "store.db")
        command = (sys.executable, "-c", CUT_THE_LOG, store)
        cut = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=60)
        assert json.loads(cut.stdout) == [0, 0, 0]
        await client.signal(handle.run_id, "go", "on")
        assert [event.kind async for event in events][-1] == "finished"


WORKS = """
from retinue import Context, workflow


@workflow
async def works(ctx: Context, word: str, state: str | None = None) -> str:
    box = await ctx.sandbox("desk", name="desk")
    if state is None:
        await box.shell(f"echo {word} > notes.txt", replayable=False)
        await ctx.checkpoint("noted", "noted")
    await ctx.event("go")
    return str(await box.read("notes.txt"))
"""


@pytest.fixture
def working(project: Path) -> Path:
    """The project with a workflow that writes a note in a sandbox, and then waits for an event."""
    (project / "keeping_flows.py").write_text(WORKS, encoding="utf-8")
    (project / "sandbox").mkdir()
    (project / "sandbox" / "desk.yaml").write_text("profile: unconfined\n", encoding="utf-8")
    [rules] = (project / "policy").glob("*.cedar")
    rules.write_text('@id("all") permit (principal, action, resource);', encoding="utf-8")
    return project


@pytest.mark.promise("E3")
@pytest.mark.rule("R5", "R16")
def test_a_run_finds_its_workspace_where_all_but_the_backup_was_lost(
    retinue: Command, working: Path, tmp_path: Path
) -> None:
    with connect_sync(local=True) as client:
        run_id = parked(client, "works")
    made = retinue("backup", tmp_path / "copy", "--json").json
    assert made["snapshots"]["snapshots"] >= 1 and made["snapshots"]["bytes"] > 0 and made["snapshots_in"] is None
    later = retinue("backup", tmp_path / "later", "--link-dest", tmp_path / "copy")
    assert later.code == Exit.done and "files linked) in" in later.out
    assert retinue("backup", tmp_path / "third", "--link-dest", tmp_path / "mine").code == Exit.usage
    shutil.rmtree(tmp_path / "later")
    again = tmp_path / "again"
    shutil.copytree(working, again, ignore=shutil.ignore_patterns(".retinue"))
    os.chdir(again)
    shutil.rmtree(working)
    back = retinue("restore", tmp_path / "copy")
    assert back.code == Exit.done and "of workspaces" in back.out and "1 run is held" in back.out
    assert retinue("resume", run_id).code == retinue("signal", run_id, "go").code == Exit.done
    assert retinue("wait", run_id, "--local", "--json").json["output"] == f"{SAID}\n"
    boxes = retinue("sandbox", "list", "--all", "--json").json
    assert [box["state"]["status"] for box in boxes] == ["closed"]


@pytest.mark.promise("E3")
def test_without_snapshots_a_run_is_told_that_its_workspace_is_lost(
    retinue: Command, working: Path, tmp_path: Path
) -> None:
    with connect_sync(local=True) as client:
        run_id = parked(client, "works")
    said = retinue("backup", tmp_path / "copy", "--without-snapshots")
    assert said.code == Exit.done and "of workspaces" not in said.out
    shutil.move(working / ".retinue", tmp_path / "lost")
    assert retinue("restore", tmp_path / "copy").code == Exit.done
    assert retinue("resume", run_id).code == retinue("signal", run_id, "go").code == Exit.done
    ended = retinue("wait", run_id, "--local", "--json")
    assert ended.code == Exit.failed and "is not in the store" in ended.out
