"""A capability that fails too often is left alone, tried by one, and used again when it is well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.places import Place
from tests.doubles.shapes import START
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make

from retinue.runs.breakers import BreakerPolicy
from retinue.runs.context import Context
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, TransientError
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("C5")]

SECOND = 1_000_000_000
called: list[str] = []
sick: list[Exception] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    called.clear()
    sick.clear()


@tool(side_effect="read")
async def look(at: str) -> str:
    """Looks."""
    called.append(at)
    if sick:
        raise sick[0]
    return at


looker = agent("looker", "Looks.", tools=[look])


@workflow
async def see(ctx: Context, at: str) -> Any:
    return await ctx.call("look", at=at)


async def opened(world: World) -> None:
    """Two runs of three tries each: the fifth failure in a row opens the breaker, the sixth is not made."""
    sick.append(TransientError("away"))
    first = await world.run(see, "a")
    assert first.error is not None and first.error.code == "transient" and called == ["a"] * 3
    late = await world.submit(see, "b")
    await world.settle()
    assert await world.wait_out()
    await world.settle()
    assert called == ["a"] * 3 + ["b"] * 2
    [breaker] = await world.store.breakers.listed()
    assert (breaker.name, breaker.state, breaker.failures) == ("capability:look", "open", 5)
    assert (await world.store.get(late)).reason == "retry_later"


async def test_an_open_breaker_is_waited_for_without_a_try(make_on_each: Make) -> None:
    world = await make_on_each(see, looker)
    await opened(world)
    runs = [await world.submit(see, f"c{n}") for n in range(5)]
    await world.settle()
    assert len(called) == 5
    assert {(await world.store.get(run_id)).reason for run_id in runs} == {"retry_later"}
    sick.clear()
    for run_id in runs:
        assert (await world.finish(run_id)).value.startswith("c")
    assert await world.store.breakers.listed() == []


async def test_openings_and_closings_are_on_record(make: Make) -> None:
    world = await make(see, looker)
    await opened(world)
    sick.clear()
    result = await world.run(see, "c")
    entries = [e for run in ("run-0001", "run-0002", result.run_id) for e in await world.entries(run)]
    told = [e.facts["state"] for e in entries if e.kind == "record" and e.topic == "breaker"]
    assert "open" in told


async def test_an_answer_that_is_an_error_shows_that_somebody_answers(make: Make) -> None:
    world = await make(see, looker)
    sick.append(TransientError("away"))
    await world.run(see, "a")
    sick[:] = [PermanentError("no such thing")]
    await world.run(see, "b")
    assert await world.store.breakers.listed() == []


async def test_who_comes_at_the_moment_of_a_probe_looks_again_soon(place: Place) -> None:
    """The others are not told to wait for as long as a probe may take."""
    store = place.open(breakers=BreakerPolicy(failures=1, cooldown=10, probe=60))
    try:
        await store.breakers.failed("model:x", "down", START)
        probing = START + 11 * SECOND
        told = await asyncio.gather(*(store.breakers.admit("model:x", probing) for _ in range(5)))
        assert sorted(each or 0 for each in told) == [0, *[probing + 2 * SECOND] * 4]
    finally:
        await store.close()


async def test_one_probe_at_a_time_and_a_longer_pause_after_each_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts of one store: whoever comes first after the pause probes, the other waits."""
    policy = BreakerPolicy(failures=2, cooldown=10, longest=30, probe=60)
    one, two = (place.open(breakers=policy) for _ in range(2))
    for store in (one, two):
        monkeypatch.setattr(store.breakers._rows, "_moment", 0.0)
    try:
        await one.breakers.failed("model:x", "down", START)
        assert await two.breakers.admit("model:x", START) is None
        assert (await two.breakers.failed("model:x", "down", START)).state == "open"
        assert await one.breakers.admit("model:x", START + SECOND) == START + 10 * SECOND
        probing = START + 11 * SECOND
        assert await two.breakers.admit("model:x", probing) is None
        assert await one.breakers.admit("model:x", probing) == probing + 2 * SECOND
        again = await two.breakers.failed("model:x", "still down", probing)
        assert (again.state, again.until) == ("open", probing + 20 * SECOND)
        given_up = probing + 21 * SECOND
        assert await one.breakers.admit("model:x", given_up) is None
        assert await two.breakers.admit("model:x", given_up + 61 * SECOND) is None
        assert await two.breakers.succeeded("model:x")
        assert await one.breakers.admit("model:x", given_up) is None and await one.breakers.listed() == []
    finally:
        await one.close()
        await two.close()
