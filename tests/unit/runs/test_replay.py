"""Replay: the same deliveries bring a workflow to the same place, and a changed one is told so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Status, StopReason
from retinue.runs.definitions import workflow
from retinue.sessions.native import tool

pytestmark = pytest.mark.rule("R1")


class Gates:
    """Tools that end when a test says so, and how often each was called."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.open: dict[str, asyncio.Event] = {}

    def gate(self, name: str) -> asyncio.Event:
        return self.open.setdefault(name, asyncio.Event())

    async def call(self, name: str) -> str:
        self.made.append(name)
        await self.gate(name).wait()
        return name


gates = Gates()


@pytest.fixture(autouse=True)
def fresh_gates() -> None:
    gates.made.clear()
    gates.open.clear()


@tool(side_effect="write", idempotency="idempotent")
async def hold(name: str) -> str:
    """Ends when the test opens the gate of that name."""
    return await gates.call(name)


def register(*definitions: Any) -> tuple[Any, ...]:
    """The definitions, and an agent that brings the tool into the catalog."""
    from retinue.runs.definitions import agent  # noqa: PLC0415

    return (*definitions, agent("holder", "Holds.", tools=[hold]))


@workflow
async def first_wins(ctx: Context, names: list[str]) -> list[str]:
    pending = [asyncio.ensure_future(ctx.call(hold, name=name)) for name in names]
    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    seen = sorted(task.result() for task in done)
    await ctx.call(hold, name="after-" + "-".join(seen))
    return seen


async def until_made(world: World, *names: str) -> None:
    await world.until(lambda: set(names) <= set(gates.made))


async def test_first_completed_takes_the_same_branch_after_a_crash(make_on_each: Make) -> None:
    world = await make_on_each(*register(first_wins))
    run_id = await world.submit(first_wins, ["a", "b"])
    await until_made(world, "a", "b")
    gates.gate("a").set()
    await until_made(world, "after-a")
    await world.crash()
    gates.gate("b").set()
    gates.gate("after-a").set()
    result = await world.finish(run_id)
    assert result.value == ["a"], result
    assert "after-a-b" not in gates.made and "after-b" not in gates.made


async def test_completions_delivered_together_are_delivered_together_again(make_on_each: Make) -> None:
    world = await make_on_each(*register(first_wins))
    run_id = await world.submit(first_wins, ["a", "b"])
    await until_made(world, "a", "b")
    gates.gate("a").set()
    gates.gate("b").set()
    await until_made(world, "after-a-b")
    await world.crash()
    gates.gate("after-a-b").set()
    assert (await world.finish(run_id)).value == ["a", "b"]
    outcomes = [o for o in await world.outcomes(run_id) if o.effect == "call"]
    assert [outcome.activation for outcome in outcomes] == [1, 1, 2]


@workflow
async def two_branches(ctx: Context, _: None) -> list[str]:
    async def branch(name: str) -> str:
        first = await ctx.call(hold, name=name)
        second = await ctx.call(hold, name=name + "2")
        return first + second

    return list(await asyncio.gather(branch("x"), branch("y")))


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
async def test_branches_that_share_a_step_name_never_swap(make_on_each: Make, order: tuple[str, str]) -> None:
    world = await make_on_each(*register(two_branches))
    run_id = await world.submit(two_branches, None)
    await until_made(world, "x", "y")
    gates.gate(order[0]).set()
    await until_made(world, order[0] + "2")
    await world.crash()
    for name in ("x", "y", "x2", "y2"):
        gates.gate(name).set()
    assert (await world.finish(run_id)).value == ["xx2", "yy2"]
    assert gates.made.count(order[0]) == 1


@pytest.mark.promise("C1")
async def test_a_finished_step_is_replayed_and_not_repeated(make_on_each: Make) -> None:
    world = await make_on_each(*register(first_wins))
    run_id = await world.submit(first_wins, ["a"])
    gates.gate("a").set()
    await until_made(world, "after-a")
    for _ in range(3):
        await world.crash()
        await world.until(lambda: bool(world.active))
    gates.gate("after-a").set()
    await world.finish(run_id)
    assert gates.made.count("a") == 1
    kinds = [entry.kind for entry in await world.entries(run_id) if getattr(entry, "name", "") == "hold"]
    assert kinds[:2] == ["intent", "outcome"]


async def change_code(world: World, run_id: str, *now: Any) -> Branch:
    """The run stands at its second step when the code under it changes."""
    gates.gate("a").set()
    await until_made(world, "after-a")
    await world.crash()
    world.redefine(*register(*now))
    return await world.finish(run_id)


async def test_other_steps_than_the_recorded_ones_are_named(make: Make) -> None:
    @workflow(name="first_wins")
    async def changed(ctx: Context, names: list[str]) -> str:
        return str(await ctx.ask("what now?"))

    world = await make(*register(first_wins))
    run_id = await world.submit(first_wins, ["a"])
    result = await change_code(world, run_id, changed)
    assert (result.status, result.reason) == (Status.failed, StopReason.replay_mismatch)
    assert result.error is not None
    assert "0/1/hold#0" in result.error.message and "0/ask#0" in result.error.message
    assert "retinue retry RUN --migrate" in result.error.message


async def test_other_arguments_than_the_recorded_ones_are_named(make: Make) -> None:
    @workflow(name="first_wins")
    async def changed(ctx: Context, names: list[str]) -> list[str]:
        pending = [asyncio.ensure_future(ctx.call(hold, name="not-" + name)) for name in names]
        await asyncio.wait(pending)
        return []

    world = await make(*register(first_wins))
    run_id = await world.submit(first_wins, ["a"])
    result = await change_code(world, run_id, changed)
    assert result.reason is StopReason.replay_mismatch
    assert result.error is not None
    assert "0/1/hold#0" in result.error.message and "other arguments" in result.error.message
    assert gates.made == ["a", "after-a"]


async def test_a_step_that_vanished_is_named(make: Make) -> None:
    @workflow(name="first_wins")
    async def changed(ctx: Context, names: list[str]) -> list[str]:
        return names

    world = await make(*register(first_wins))
    run_id = await world.submit(first_wins, ["a"])
    result = await change_code(world, run_id, changed)
    assert result.reason is StopReason.replay_mismatch
    assert result.error is not None and "0/1/hold#0" in result.error.message


@workflow
async def race(ctx: Context, names: list[str]) -> str:
    """Takes the first and cancels the rest."""
    pending = [asyncio.ensure_future(ctx.call(hold, name=name)) for name in names]
    done, rest = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await ctx.call(hold, name="next")
    return str(min(task.result() for task in done))


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_canceled_branch_may_end_later_without_harm(make_on_each: Make, crashes: bool) -> None:
    world = await make_on_each(*register(race))
    run_id = await world.submit(race, ["a", "b"])
    await until_made(world, "a", "b")
    gates.gate("a").set()
    await until_made(world, "next")
    gates.gate("b").set()
    if crashes:
        await world.until(lambda: True)
        await world.crash()
    gates.gate("next").set()
    result = await world.finish(run_id)
    assert (result.status, result.value) == (Status.completed, "a"), result.error
    ends = {outcome.key: outcome.result for outcome in await world.outcomes(run_id)}
    assert set(ends) >= {intent.key for intent in await world.intents(run_id)}


@workflow
async def leave_behind(ctx: Context, _: None) -> str:
    """Ends while a call of it is in flight."""
    asyncio.ensure_future(ctx.call(hold, name="left"))  # noqa: RUF006 - that is the point
    await ctx.call(hold, name="main")
    return "done"


@pytest.mark.promise("C1")
async def test_a_call_in_flight_when_the_function_ends_has_an_outcome(make_on_each: Make) -> None:
    world = await make_on_each(*register(leave_behind))
    run_id = await world.submit(leave_behind, None)
    await until_made(world, "left", "main")
    gates.gate("main").set()
    await world.until(lambda: all(e._body.ended is not None for e in world.active.values()))
    gates.gate("left").set()
    result = await world.finish(run_id)
    assert (result.status, result.value) == (Status.completed, "done")
    assert len(await world.outcomes(run_id)) == len(await world.intents(run_id)) == 2
