"""Rows of a job are queued again by the page, in one transaction each; the counters of the job follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.worlds import World, world

from retinue.runs.batch import JOB, rows_key
from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.control import Rows, RunQuery
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError
from retinue.runs.retries import Retry

pytestmark = [pytest.mark.promise("B5")]
broken: set[int] = set()
made: list[int] = []


async def work(number: int) -> int:
    made.append(number)
    if number in broken:
        raise PermanentError(f"{number} is broken")
    return number


@workflow
async def row(ctx: Context, number: int) -> Any:
    return await ctx.step(work, number)


async def job_of(world: World, folder: Path, count: int) -> str:
    """A job that has ended; its id."""
    (folder / "rows.jsonl").write_text("".join(f"{number}\n" for number in range(count)))
    source = {"path": str(folder / "rows.jsonl"), "format": "jsonl"}
    branch = await world.run(JOB, {"target": "row", "source": source, "window": 50})
    assert branch.status is Status.completed, branch.error
    return branch.run_id


async def counters(world: World, job: str) -> tuple[int, int, int]:
    state = await world.store.job(job, rows_key("row"))
    return state.pending, state.ok, state.failed


async def test_pages_queue_all_failed_rows_once_and_the_counters_follow(place: Place) -> None:
    broken.clear()
    made.clear()
    broken.update(range(0, 30, 2))
    async with world(place.kind, place.folder, row, url=place.url) as here:
        store = here.store
        assert isinstance(store, Store)
        job = await job_of(here, place.folder, 30)
        assert await counters(here, job) == (0, 15, 15)
        broken.clear()
        first = await store.redrive(job, Rows(limit=10), Retry(by="ben", at=here.clock()))
        assert (len(first.queued), first.refused) == (10, ())
        assert await counters(here, job) == (10, 15, 5)
        assert first.last is not None
        rest = await store.redrive(job, Rows(after=first.last), Retry(by="ben", at=here.clock()))
        assert (len(rest.queued), len({*first.queued, *rest.queued})) == (5, 15)
        assert (await store.redrive(job, Rows(after=rest.last or 0), Retry(by="ben", at=1))).last is None
        await here.settle()
        assert await counters(here, job) == (0, 30, 0)
        assert sorted(made) == sorted([*range(30), *range(0, 30, 2)])
        runs = await store.list_runs(RunQuery(parent_run_id=job, limit=100))
        assert {run.status for run in runs} == {Status.completed}


async def test_only_rows_of_the_reason_are_taken(place: Place) -> None:
    broken.clear()
    broken.update({1, 2})
    async with world(place.kind, place.folder, row, url=place.url) as here:
        store = here.store
        assert isinstance(store, Store)
        job = await job_of(here, place.folder, 4)
        [reason] = {run.reason for run in (await store.dead_runs(job, 10))[0]}
        assert reason is not None
        nothing = await store.redrive(job, Rows(reason="model_failure"), Retry(by="ben", at=1))
        assert nothing.queued == () and nothing.last is None
        assert len((await store.redrive(job, Rows(reason=reason.value), Retry(by="ben", at=1))).queued) == 2


async def test_dead_runs_are_top_level_runs_and_rows_and_are_counted_beyond_the_limit(place: Place) -> None:
    broken.clear()
    broken.update({1, 2, 9})
    async with world(place.kind, place.folder, row, url=place.url) as here:
        store = here.store
        assert isinstance(store, Store)
        job = await job_of(here, place.folder, 4)
        alone = await here.run("row", 9)
        found, total = await store.dead_runs(None, 1)
        assert ([run.run_id for run in found], total) == ([alone.run_id], 3)
        assert {run.parent_run_id for run in (await store.dead_runs(job, 5))[0]} == {job}
