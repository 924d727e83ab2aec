"""A retry goes on with the same run: what ended well is not done again, what failed is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.doubles.worlds import World, calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.joins import first_success
from retinue.runs.journal import Retried
from retinue.runs.machine import IllegalTransition
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("A9")]

done: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()
    broken.clear()


async def work(name: str) -> str:
    done.append(name)
    if name in broken:
        raise PermanentError(f"{name} is broken")
    return f"{name} {len(done)}"


@workflow
async def steps(ctx: Context, names: list[str]) -> list[str]:
    return [await ctx.step(work, name) for name in names]


@workflow
async def piece(ctx: Context, name: str) -> str:
    before = await ctx.step(work, f"before {name}")
    return before + "; " + str(await ctx.step(work, name))


@workflow
async def strict(ctx: Context, names: list[str]) -> list[Any]:
    branches = await ctx.map(piece, names)
    for branch in branches:
        if not branch.ok:
            raise PermanentError(f"branch {branch.index} failed")
    return [branch.value for branch in branches]


@workflow
async def both(ctx: Context, names: list[str]) -> list[Any]:
    return [await ctx.run(piece, name) for name in names]


async def failed(world: World, target: Any, input: Any, **fields: Any) -> str:
    result = await world.run(target, input, **fields)
    assert result.status is Status.failed
    return result.run_id


@pytest.mark.rule("R13")
async def test_finished_steps_are_kept_and_the_failed_one_is_made_anew(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    broken.add("b")
    run_id = await failed(world, steps, ["a", "b", "c"])
    broken.clear()
    assert await world.retry(run_id) == [run_id]
    result = await world.finish(run_id)
    assert (result.status, result.value) == (Status.completed, ["a 1", "b 3", "c 4"])
    assert done == ["a", "b", "b", "c"]


async def test_a_retry_survives_crashes_and_may_be_repeated(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    broken.update("bc")
    run_id = await failed(world, steps, ["a", "b", "c"])
    broken.discard("b")
    await world.retry(run_id)
    assert (await world.finish(run_id)).status is Status.failed
    broken.clear()
    await world.retry(run_id)
    await world.lease()
    await world.crash()
    assert (await world.finish(run_id)).status is Status.completed
    assert done.count("a") == 1 and done.count("b") == 2


async def test_a_failed_child_is_retried_from_where_it_failed_and_the_others_are_not_touched(
    make_on_each: Make,
) -> None:
    world = await make_on_each(both, piece)
    broken.add("y")
    run_id = await failed(world, both, ["x", "y"])
    broken.clear()
    retried = await world.retry(run_id)
    assert len(retried) == 2 and retried[-1] == run_id
    result = await world.finish(run_id)
    assert result.status is Status.completed
    assert sorted(done) == ["before x", "before y", "x", "y", "y"]


async def test_failed_branches_of_a_fan_out_are_retried_with_it(make_on_each: Make) -> None:
    """The failure was raised by the code that read the branches."""
    world = await make_on_each(strict, piece)
    broken.add("y")
    run_id = await failed(world, strict, ["x", "y", "z"])
    broken.clear()
    await world.retry(run_id)
    result = await world.finish(run_id)
    assert result.status is Status.completed and len(result.value) == 3
    assert done.count("x") == done.count("z") == done.count("before y") == 1 and done.count("y") == 2
    group = (await world.store.look(run_id)).groups["0/piece#0"]
    assert (group.total, group.pending, group.ok, group.failed) == (3, 0, 3, 0)


async def test_more_budget_lets_a_run_go_on(make_on_each: Make) -> None:
    @tool(side_effect="read")
    async def look(at: str) -> str:
        """Looks."""
        return await work(at)

    looker = agent("looker", "Looks.", tools=[look], budget=Budget(hops=1))
    world = await make_on_each(looker)
    world.decide(calls("look", at="a"), calls("look", at="b"), {"answer": "seen"})
    run_id = await failed(world, looker, "go")
    assert (await world.store.get(run_id)).reason is StopReason.budget_exhausted
    await world.retry(run_id, budget=Budget(hops=5))
    result = await world.finish(run_id)
    assert (result.value, done) == ("seen", ["a", "b"])


async def test_a_retry_starts_the_clock_again(make_on_each: Make) -> None:
    @workflow
    async def slow(ctx: Context, pause: int) -> str:
        await ctx.step(work, "a")
        await ctx.sleep(pause)
        return "late"

    world = await make_on_each(slow)
    run_id = await failed(world, slow, 60, budget=Budget(seconds=50))
    assert (await world.store.get(run_id)).reason is StopReason.deadline_exceeded
    await world.retry(run_id)
    assert (await world.finish(run_id)).value == "late" and done == ["a"]


async def test_new_code_goes_on_from_the_checkpoint_and_repeats_no_finished_step(make_on_each: Make) -> None:
    @workflow(name="steps", version="2")
    async def newer(ctx: Context, names: list[str]) -> list[str]:
        await ctx.step(work, "first of all")
        return [await ctx.step(work, name) for name in names]

    world = await make_on_each(steps)
    broken.add("b")
    run_id = await failed(world, steps, ["a", "b"])
    broken.clear()
    world.redefine(newer)
    await world.retry(run_id)
    assert (await world.finish(run_id)).reason is StopReason.replay_mismatch
    await world.retry(run_id, migrate=True, version="2")
    result = await world.finish(run_id)
    assert result.status is Status.completed, result.error
    assert done.count("a") <= 2 and done[-1] == "b"


@pytest.mark.promise("A8")
async def test_only_a_failed_run_is_retried(make_on_each: Make) -> None:
    @workflow
    async def waits(ctx: Context, _: Any) -> Any:
        return await ctx.ask("well?")

    world = await make_on_each(steps, waits)
    completed = (await world.run(steps, ["a"])).run_id
    with pytest.raises(IllegalTransition, match=f"run {completed} is completed and cannot become queued"):
        await world.retry(completed)
    waiting = await world.submit(waits)
    await world.settle()
    with pytest.raises(InvalidInput, match="goes on by itself"):
        await world.retry(waiting)
    await world.store.cancel(waiting, "ana", world.clock())
    with pytest.raises(IllegalTransition, match="is canceled and cannot become queued"):
        await world.retry(waiting)


async def test_a_child_of_a_living_parent_is_not_retried_behind_its_back(make_on_each: Make) -> None:
    @workflow
    async def patient(ctx: Context, names: list[str]) -> str:
        await ctx.map(piece, names, join=first_success())
        return str(await ctx.ask("go on?"))

    world = await make_on_each(patient, piece)
    broken.add("x")
    run_id = await world.submit(patient, ["x"])
    await world.settle()
    [child] = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    with pytest.raises(InvalidInput, match=f"is a child of {run_id}, which is waiting_for_input"):
        await world.retry(child.run_id)


async def test_limits_of_several_retries_add_up(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    broken.add("b")
    run_id = await failed(world, steps, ["a", "b"])
    await world.retry(run_id, budget=Budget(hops=5))
    await world.finish(run_id)
    await world.retry(run_id, budget=Budget(steps=9))
    [*_, last] = [entry for entry in await world.entries(run_id) if isinstance(entry, Retried)]
    assert last.amendment.budget == Budget(hops=5, steps=9)


async def test_what_failed_below_is_migrated_to_the_version_of_its_own_target(make_on_each: Make) -> None:
    @workflow(version="1")
    async def inner(ctx: Context, name: str) -> str:
        return str(await ctx.step(work, name))

    @workflow(version="a")
    async def outer(ctx: Context, name: str) -> str:
        return str(await ctx.run("inner", name))

    world = await make_on_each(inner, outer)
    broken.add("x")
    run_id = await failed(world, outer, "x")
    broken.clear()
    world.redefine(replace(inner, explicit_version="2"), replace(outer, explicit_version="b"))
    versions = {"inner": "2", "outer": "b"}
    assert len(await world.retry(run_id, migrate=True, version="b", versions=versions)) == 2
    result = await world.finish(run_id)
    assert result.status is Status.completed, result.error
