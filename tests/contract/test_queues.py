"""What a store says of its queues: which pools wait, how many, since when."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.doubles.places import Place
from tests.doubles.shapes import host, new_run

from retinue.runs.control import QueueState
from retinue.store.store import Store


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.open()
    yield store
    await store.close()


@pytest.mark.promise("B5", "H4")
async def test_each_pool_says_how_many_wait_and_since_when(store: Store) -> None:
    assert await store.queues() == []
    runs = [("a", "gpu1", "acme"), ("b", "runs", "zoo"), ("c", "gpu1", "zoo")]
    for place, (run_id, pool, tenant) in enumerate(runs, start=1):
        made = new_run(run_id, pool=pool, tenant_id=tenant)
        await store.submit([type(made)(made.request, made.input, place * 1000)])
    assert await store.queues() == [QueueState("gpu1", 2, 1000), QueueState("runs", 1, 2000)]


@pytest.mark.promise("B5")
async def test_a_run_that_has_begun_counts_and_has_no_age_since_it_waited_elsewhere_meanwhile(
    store: Store,
) -> None:
    await store.submit([new_run("a", pool="gpu1")])
    await store.register(host("h"))
    [leased] = await store.lease(host("h"), "gpu1", 1, 5)
    assert await store.queues() == []
    await store.release(leased)
    assert await store.queues() == [QueueState("gpu1", 1, None)]


@pytest.mark.promise("B5")
async def test_a_lease_can_be_given_back_into_another_pool(store: Store) -> None:
    await store.submit([new_run("a", pool="runs")])
    await store.register(host("h"))
    [leased] = await store.lease(host("h"), "runs", 1, 5)
    await store.release(leased, pool="gpu1")
    assert [(state.pool, state.queued) for state in await store.queues()] == [("gpu1", 1)]
    [again] = await store.lease(host("h"), "gpu1", 1, 6)
    assert again.epoch == leased.epoch + 1


async def test_held_runs_are_nobodys_work(store: Store) -> None:
    await store.submit([new_run("a", pool="gpu1")])
    await store.hold("a", True)
    assert await store.queues() == []
