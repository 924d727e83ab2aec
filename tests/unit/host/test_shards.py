"""A job over many files: a run for each, its rows in a file of its own, and one set of counters for all of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.worlds import World, world

from retinue.host.files import shards_of
from retinue.host.parts import StoredParts
from retinue.runs.batch import JOB, BatchJob, Parts, rows_key, shard_id
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status
from retinue.runs.control import JobState, RunQuery
from retinue.runs.control import Rows as FailedRows
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError, StoreFull, StoreUnreachable
from retinue.runs.retries import Retry
from retinue.store.objects import Objects, split_url
from retinue.store.places import open_objects
from retinue.store.store import Store

pytestmark = [pytest.mark.promise("B5"), pytest.mark.promise("K2")]
broken: set[str] = set()
made: list[str] = []


async def work(text: str) -> str:
    made.append(text)
    if text in broken:
        raise PermanentError(f"{text} is broken")
    return text.upper()


@workflow
async def row(ctx: Context, given: dict[str, Any]) -> Any:
    return await ctx.step(work, given["text"])


@pytest.fixture(params=[("sqlite", "file"), ("sqlite", "s3"), ("postgres", "s3")], ids="-".join)
def kinds(request: pytest.FixtureRequest) -> Any:
    """Which store, and which place for files."""
    return request.param


@pytest.fixture
def place(kinds: tuple[str, str], places: Places) -> Iterator[Place]:
    """A new place for a store."""
    with places.new(kinds[0]) as made:
        yield made


@pytest.fixture
def shared(request: pytest.FixtureRequest, kinds: tuple[str, str], tmp_path: Path) -> str:
    """A place that all machines reach, as the URL of a folder."""
    broken.clear()
    made.clear()
    if kinds[1] == "file":
        return f"file://{tmp_path}/shared/"
    return f"{request.getfixturevalue('bucket')}/jobs/"


def at(url: str) -> tuple[Objects, str]:
    place, path = split_url(url)
    return open_objects(place), path


def put(url: str, rows: list[dict[str, Any]], *more: bytes) -> None:
    """Rows as a file, in the format that its ending says."""
    objects, path = at(url)
    content = io.BytesIO()
    if url.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), content, row_group_size=3)
    else:
        content.write(b"".join(json.dumps(one).encode() + b"\n" for one in rows) + b"".join(more))
    objects.put(path, content.getvalue())


def texts(name: str, count: int) -> list[dict[str, Any]]:
    return [{"id": f"{name}-{number}", "text": f"{name}{number}"} for number in range(count)]


def parts(folder: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every JSONL file in a folder, by name."""
    objects, path = at(folder)
    found = sorted(one.path for one in objects.list(path.rstrip("/")))
    return {name.removeprefix(path): list(map(json.loads, (objects.get(name) or b"").splitlines())) for name in found}


def answers(folder: str) -> dict[str, list[Any]]:
    return {name: [one.get("answer", one.get("reason")) for one in rows] for name, rows in parts(folder).items()}


def job_over(shared: str, **changes: Any) -> dict[str, Any]:
    shards = shards_of(f"{shared}in/")
    made = Parts(folder=f"{shared}out/", shards=shards, at_once=2, **changes)
    return BatchJob(target="row", source=shards[0], window=3, parts=made).model_dump(mode="json", exclude_none=True)


def make_world(place: Place) -> Any:
    return world(place.kind, place.folder, row, url=place.url)


def store_of(here: World) -> Store:
    assert isinstance(here.store, Store)
    here.use(parts=StoredParts(here.store))
    return here.store


async def counters(store: Store, job: str) -> tuple[int, int, int, int]:
    state: JobState = await store.job(job, rows_key("row"))
    return state.pending, state.ok, state.failed, state.rejected


async def test_each_file_becomes_a_part_and_the_counters_add_up(shared: str, place: Place) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 5), b"{half\n")
    put(f"{shared}in/b.parquet", texts("b", 7))
    put(f"{shared}in/c.jsonl", texts("c", 1))
    broken.add("a1")
    async with make_world(place) as here:
        store = store_of(here)
        branch = await here.run(JOB, job_over(shared))
        assert branch.value == {"total": 13, "ok": 12, "failed": 1, "rejected": 1}, branch.error
        assert await counters(store, branch.run_id) == (0, 12, 1, 1)
        rows = await store.list_runs(RunQuery(job_id=branch.run_id, limit=100))
        assert len([run for run in rows if run.target == "row"]) == 13
        letters, dead = await store.dead_inputs(branch.run_id, None, 10), await store.dead_runs(branch.run_id, 10)
        assert [(one.job_id, one.letter.line) for one in letters[0]] == [(branch.run_id, 6)]
        assert [run.input_id for run in dead[0]] == ["a-1"]
    assert answers(f"{shared}out/") == {
        "part-00000.jsonl": ["A0", None, "A2", "A3", "A4"],
        "part-00000.jsonl.dead.jsonl": ["not_json"],
        "part-00001.jsonl": [f"B{number}" for number in range(7)],
        "part-00002.jsonl": ["C0"],
    }


async def test_parts_may_be_parquet(shared: str, place: Place) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 4))
    broken.add("a2")
    async with make_world(place) as here:
        store_of(here)
        assert (await here.run(JOB, job_over(shared, format="parquet"))).ok
    objects, path = at(f"{shared}out/part-00000.parquet")
    table = pq.read_table(io.BytesIO(objects.get(path) or b"")).to_pylist()
    assert [(one["id"], one["answer"], one["status"]) for one in table] == [
        ("a-0", "A0", "completed"),
        ("a-1", "A1", "completed"),
        ("a-2", None, "failed"),
        ("a-3", "A3", "completed"),
    ]
    assert json.loads(table[2]["error"])["message"].endswith("a2 is broken") and table[0]["citations"] == "[]"


async def test_a_crash_repeats_no_finished_row_and_the_part_is_the_same(shared: str, place: Place) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 9))
    put(f"{shared}in/b.jsonl", texts("b", 9))
    async with make_world(place) as here:
        store = store_of(here)
        job = await here.submit(JOB, job_over(shared))
        await here.until(lambda: len(made) >= 4)
        await here.crash()
        first = await here.finish(job)
        assert first.value == {"total": 18, "ok": 18, "failed": 0, "rejected": 0}
        finished = [name for name in set(made) if made.count(name) > 1]
        assert len(made) - len(set(made)) <= 6 and len(finished) <= 6, "only what was in flight runs again"
        before = parts(f"{shared}out/")
        key = rows_key("row")
        into = f"{shared}out/part-00001.jsonl"
        assert await StoredParts(store).write(shard_id(job, 1), key, into) == {"written": 9, "rejected": 0}
    assert parts(f"{shared}out/") == before
    assert [one["answer"] for one in before["part-00000.jsonl"]] == [f"A{number}" for number in range(9)]


async def test_a_death_between_the_part_and_its_outcome_writes_it_again(
    shared: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 3))
    written: list[dict[str, int]] = []
    async with make_world(place) as here:
        store_of(here)
        job = await here.submit(JOB, job_over(shared))
        original = StoredParts.write

        async def dies_after(self: StoredParts, *arguments: str) -> dict[str, int]:
            written.append(await original(self, *arguments))
            if len(written) == 1:
                raise StoreUnreachable("the process died here")
            return written[-1]

        monkeypatch.setattr(StoredParts, "write", dies_after)
        await here.until(lambda: bool(written))
        await here.crash()
        assert (await here.finish(job)).ok
    assert written == [{"written": 3, "rejected": 0}] * 2 and len(made) == 3
    assert answers(f"{shared}out/") == {"part-00000.jsonl": ["A0", "A1", "A2"]}


async def test_redriven_rows_of_shards_count_for_the_job_and_parts_are_written_again(shared: str, place: Place) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 3))
    put(f"{shared}in/b.jsonl", texts("b", 3))
    broken.update({"a0", "b2"})
    async with make_world(place) as here:
        store = store_of(here)
        given = job_over(shared)
        job = (await here.run(JOB, given)).run_id
        assert await counters(store, job) == (0, 4, 2, 0)
        broken.clear()
        first = await store.redrive(job, FailedRows(limit=1), Retry(by="ben", at=here.clock()))
        rest = await store.redrive(job, FailedRows(after=first.last or 0), Retry(by="ben", at=here.clock()))
        assert (len(first.queued), len(rest.queued)) == (1, 1)
        assert await counters(store, job) == (2, 4, 0, 0)
        await here.settle()
        assert await counters(store, job) == (0, 6, 0, 0)
        assert answers(f"{shared}out/")["part-00000.jsonl"] == [None, "A1", "A2"]
        again = await here.run(JOB, given | {"of": job})
        assert again.ok and len(made) == 8, "nothing but the parts is made again"
    assert answers(f"{shared}out/") == {"part-00000.jsonl": ["A0", "A1", "A2"], "part-00001.jsonl": ["B0", "B1", "B2"]}


async def test_a_file_that_changed_fails_its_shard_and_the_job_names_it(shared: str, place: Place) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 2))
    put(f"{shared}in/b.jsonl", texts("b", 2))
    given = job_over(shared)
    put(f"{shared}in/b.jsonl", texts("c", 3))
    async with make_world(place) as here:
        store_of(here)
        branch = await here.run(JOB, given)
        assert branch.status is Status.failed
        assert "1 of 2 shards failed" in branch.problem and "b.jsonl changed since the job began" in branch.problem
    assert list(parts(f"{shared}out/")) == ["part-00000.jsonl"]


async def test_an_output_that_cannot_be_fails_the_shard_and_a_retry_goes_on(
    shared: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 3))
    async with make_world(place) as here:
        store = store_of(here)
        with monkeypatch.context() as full:
            for kind in ("folders.FolderObjects", "s3.S3Objects"):
                full.setattr(f"retinue.store.{kind}.upload", _full)
            branch = await here.run(JOB, job_over(shared))
            assert branch.status is Status.failed and "1 of 1 shards failed" in branch.problem
            assert "part-00000.jsonl" in branch.problem and "the disk is full" in branch.problem
        retried = await here.retry(branch.run_id)
        assert len(retried) == 2
        assert (await here.finish(branch.run_id)).ok
        assert await counters(store, branch.run_id) == (0, 3, 0, 0)
    assert len(made) == 3 and answers(f"{shared}out/") == {"part-00000.jsonl": ["A0", "A1", "A2"]}


async def test_a_place_that_is_silent_fails_nothing(shared: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{shared}in/a.jsonl", texts("a", 6))
    given = job_over(shared)
    async with make_world(place) as here:
        store_of(here)
        job = await here.submit(JOB, given)
        with monkeypatch.context() as silent:
            silent.setattr("retinue.host.rows.open_file", _silent)
            silent.setattr("retinue.host.rows.fingerprint", _silent)
            await here.until(lambda: bool(here.failures))
        assert isinstance(here.failures[0], StoreUnreachable)
        await here.crash()
        assert (await here.finish(job)).value == {"total": 6, "ok": 6, "failed": 0, "rejected": 0}


def _full(*_: object) -> None:
    raise StoreFull("the disk is full")


def _silent(*_: object) -> Any:
    raise StoreUnreachable("nobody answers")


async def test_the_money_of_a_job_is_shared_by_all_its_shards(shared: str, place: Place) -> None:
    for name in "abcd":
        put(f"{shared}in/{name}.jsonl", texts(name, 1))
    async with make_world(place) as here:
        store = store_of(here)
        job = await here.submit(JOB, job_over(shared), budget=Budget(usd="0.40"))
        await here.finish(job)
        requests = [await _budget(store, shard_id(job, index)) for index in range(4)]
    assert str(requests[0].usd) == "0.100000" and all(one.steps is None for one in requests)


async def _budget(store: Store, run_id: str) -> Budget:
    async for frame in store.read(run_id):
        budget: Budget = frame.entries[0].request.budget  # type: ignore[union-attr]
        return budget
    raise AssertionError(run_id)
