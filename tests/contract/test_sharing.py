"""Who gets the free places: shares between tenants, limits of tenants and queues, holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.shapes import START, host, new_run

from retinue.runs.limits import Limit, Limits
from retinue.runs.ownership import LeasedRun

SECOND = 1_000_000_000


@asynccontextmanager
async def store_with(place: Place, limits: Limits) -> AsyncIterator[Store]:
    store = place.open(limits=limits)
    await store.register(host("h1"))
    try:
        yield store
    finally:
        await store.close()


async def queue(store: Store, count: int, tenant: str, **request: object) -> None:
    runs = [new_run(f"{tenant}-{request.get('queue', '')}-{n:06d}", tenant_id=tenant, **request) for n in range(count)]
    await store.submit(runs)


async def lease(store: Store, limit: int, at: int = START) -> list[LeasedRun]:
    return await store.lease(host("h1"), "runs", limit, at)


def tenants(leased: list[LeasedRun]) -> Counter[str]:
    return Counter(run.request.tenant_id for run in leased)


async def test_a_tenant_with_many_runs_does_not_starve_one_with_few(place: Place) -> None:
    async with store_with(place, Limits()) as store:
        await queue(store, 2_000, "big")
        assert tenants(await lease(store, 40)) == {"big": 40}
        await queue(store, 10, "small")
        assert tenants(await lease(store, 12)) == {"small": 10, "big": 2}


async def test_weights_divide_the_places(place: Place) -> None:
    async with store_with(place, Limits(tenants={"gold": Limit(weight=3)})) as store:
        await queue(store, 100, "gold")
        await queue(store, 100, "plain")
        assert tenants(await lease(store, 40)) == {"gold": 30, "plain": 10}


async def test_within_a_tenant_priority_counts_over_all_its_queues(place: Place) -> None:
    async with store_with(place, Limits()) as store:
        await queue(store, 3, "acme", queue="mail")
        await queue(store, 3, "acme", queue="web", priority=5)
        leased = await lease(store, 4)
        assert [run.request.queue for run in leased] == ["web", "web", "web", "mail"]


async def test_concurrency_limits_hold_for_tenants_and_queues(place: Place) -> None:
    limits = Limits(tenants={"*": Limit(concurrency=5)}, queues={"mail": Limit(concurrency=2)})
    async with store_with(place, limits) as store:
        await queue(store, 10, "acme", queue="mail")
        assert len(await lease(store, 10)) == 2
        await queue(store, 10, "acme")
        assert [run.request.queue for run in await lease(store, 10)] == ["", "", ""]
        assert await lease(store, 10) == []
        await store.retire("h1")
        await store.register(host("h2"))
        assert len(await store.lease(host("h2"), "runs", 10, START)) == 5


async def test_a_rate_limits_starts_and_not_those_that_go_on(place: Place) -> None:
    async with store_with(place, Limits(queues={"mail": Limit.model_validate({"rate": "120/m"})})) as store:
        await queue(store, 10, "acme", queue="mail")
        first = await lease(store, 10)
        assert len(first) == 2
        assert await lease(store, 10) == []
        await store.release(first[0])
        assert [run.request.run_id for run in await lease(store, 10)] == [first[0].request.run_id]
        assert len(await lease(store, 10, START + SECOND // 2)) == 1
        assert len(await lease(store, 10, START + 100 * SECOND)) == 2


async def test_a_clock_that_was_set_back_stops_no_rate(place: Place) -> None:
    async with store_with(place, Limits(tenants={"*": Limit(rate=2.0)})) as store:
        await queue(store, 10, "acme")
        assert len(await lease(store, 10, START + 3_600 * SECOND)) == 2
        assert len(await lease(store, 10, START + 3_599 * SECOND)) == 0
        assert len(await lease(store, 10, START)) == 2
        assert len(await lease(store, 10, START)) == 0
        assert len(await lease(store, 10, START + SECOND)) == 2


async def test_of_more_lines_than_are_looked_at_each_has_its_turn(place: Place) -> None:
    async with store_with(place, Limits(tenants={"t1200": Limit(), "*": Limit(concurrency=0)})) as store:
        await store.submit([new_run(f"run-{n}", tenant_id=f"t{n}") for n in range(1_000, 2_100)])
        found = [await lease(store, 5) for _ in range(2)]
        assert [run.request.tenant_id for run in found[0]] == ["t1200"] and found[1] == []


async def test_a_line_beyond_those_that_are_looked_at_has_its_turn_next(place: Place) -> None:
    limits = Limits(tenants={"t2050": Limit(), "*": Limit(concurrency=0)})
    async with store_with(place, limits) as store:
        await store.submit([new_run(f"run-{n}", tenant_id=f"t{n}") for n in range(1_000, 2_100)])
        assert [len(await lease(store, 5)) for _ in range(2)] == [0, 1]


async def test_more_tenants_than_are_looked_at_get_equal_shares(place: Place) -> None:
    async with store_with(place, Limits()) as store:
        await store.submit([new_run(f"run-{n}-{m}", tenant_id=f"t{n}") for n in range(1_000, 2_050) for m in range(3)])
        leased = [run for page in [await lease(store, 700) for _ in range(3)] for run in page]
        shares = tenants(leased)
        assert len(shares) == 1_050 and max(shares.values()) <= 3


async def test_held_runs_stay_in_their_queue(place: Place) -> None:
    async with store_with(place, Limits()) as store:
        await queue(store, 3, "acme")
        assert await store.hold("acme--000001", True) == 1
        assert [run.request.run_id for run in await lease(store, 10)] == ["acme--000000", "acme--000002"]
        assert (await store.get("acme--000001")).held
        assert await store.hold("acme--000001", False) == 1
        assert [run.request.run_id for run in await lease(store, 10)] == ["acme--000001"]


@pytest.mark.parametrize("text", ["fast", "10", "10/w", "-1/s", "/s"])
def test_a_rate_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="a rate is a number per second, or text such as"):
        Limit.model_validate({"rate": text})
