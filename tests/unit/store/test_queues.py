"""What the store says of its queues: which pools wait, how many, since when; read by index and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doubles.shapes import new_run
from tests.unit.store.test_plans import plan

from retinue.runs.control import QueueState
from retinue.runs.journal import HostInfo
from retinue.store.liveness import boot_id, current_owner
from retinue.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    yield store
    await store.close()


def host() -> HostInfo:
    owner = current_owner()
    return HostInfo("h", "test", owner.pid, owner.started, boot_id(), "node")


@pytest.mark.promise("B5", "H4")
async def test_each_pool_says_how_many_wait_and_since_when(store: SqliteStore) -> None:
    assert await store.queues() == []
    runs = [("a", "gpu1", "acme"), ("b", "runs", "zoo"), ("c", "gpu1", "zoo")]
    for place, (run_id, pool, tenant) in enumerate(runs, start=1):
        made = new_run(run_id, pool=pool, tenant_id=tenant)
        await store.submit([type(made)(made.request, made.input, place * 1000)])
    assert await store.queues() == [QueueState("gpu1", 2, 1000), QueueState("runs", 1, 2000)]


@pytest.mark.promise("B5")
async def test_a_run_that_has_begun_counts_and_has_no_age_since_it_waited_elsewhere_meanwhile(
    store: SqliteStore,
) -> None:
    await store.submit([new_run("a", pool="gpu1")])
    await store.register(host())
    [leased] = await store.lease(host(), "gpu1", 1, 5)
    assert await store.queues() == []
    await store.release(leased)
    assert await store.queues() == [QueueState("gpu1", 1, None)]


@pytest.mark.promise("B5")
async def test_a_lease_can_be_given_back_into_another_pool(store: SqliteStore) -> None:
    await store.submit([new_run("a", pool="runs")])
    await store.register(host())
    [leased] = await store.lease(host(), "runs", 1, 5)
    await store.release(leased, pool="gpu1")
    assert [(state.pool, state.queued) for state in await store.queues()] == [("gpu1", 1)]
    [again] = await store.lease(host(), "gpu1", 1, 6)
    assert again.epoch == leased.epoch + 1


async def test_held_runs_are_nobodys_work(store: SqliteStore) -> None:
    await store.submit([new_run("a", pool="gpu1")])
    await store.hold("a", True)
    assert await store.queues() == []


@pytest.mark.promise("B5", "C6")
async def test_the_queues_are_read_by_index(tmp_path: Path) -> None:
    steps = await plan(tmp_path, "queues")
    touched = [step for step in steps if " runs " in step]
    assert touched and all("USING" in step and "INDEX runs_queued" in step for step in touched), steps
    assert not [step for step in steps if "TEMP B-TREE" in step]
