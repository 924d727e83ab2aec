"""A held run begins nothing more, gives its place back, and goes on where it was."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery
from retinue.runs.definitions import workflow

pytestmark = [pytest.mark.promise("A9")]

done: list[str] = []
gates: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()
    gates[:] = [asyncio.Event()]


async def work(name: str) -> str:
    done.append(name)
    if name == "slow":
        await gates[0].wait()
    return name


@workflow
async def steps(ctx: Context, names: list[str]) -> list[str]:
    return [await ctx.step(work, name) for name in names]


@workflow
async def spread(ctx: Context, names: list[str]) -> list[str]:
    return [branch.value[0] for branch in await ctx.map(steps, [[name] for name in names], window=1)]


async def test_what_is_in_flight_ends_and_nothing_more_begins(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    run_id = await world.submit(steps, ["a", "slow", "b"])
    await world.until(lambda: done == ["a", "slow"])
    assert await world.store.hold(run_id, True) == 1
    await world.pass_news()
    gates[0].set()
    await world.settle()
    record = await world.store.get(run_id)
    assert (record.status, record.held, done) == (Status.queued, True, ["a", "slow"])
    assert await world.store.hold(run_id, True) == 0
    assert await world.store.hold(run_id, False) == 1
    assert (await world.finish(run_id)).value == ["a", "slow", "b"]
    assert done == ["a", "slow", "b"]


async def test_children_that_are_born_while_their_parent_is_held_are_held_too(make_on_each: Make) -> None:
    world = await make_on_each(steps, spread)
    run_id = await world.submit(spread, ["slow", "b"])
    await world.until(lambda: done == ["slow"])
    held = await world.store.hold(run_id, True)
    assert held == 2
    gates[0].set()
    await world.pass_news()
    await world.settle()
    assert done == ["slow"]
    assert all(run.held for run in await world.store.list_runs(RunQuery()) if not run.status.terminal)
    await world.store.hold(run_id, False)
    assert (await world.finish(run_id)).value == ["slow", "b"]


async def test_a_held_run_can_be_canceled(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    run_id = await world.submit(steps, ["a"])
    await world.store.hold(run_id, True)
    await world.settle()
    await world.store.cancel(run_id, "ana", world.clock())
    assert (await world.finish(run_id)).status is Status.canceled and done == []
