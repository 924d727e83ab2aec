"""A retry goes on with the same run: what ended well is not done again, what failed is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.worlds import ALLOW_ALL, calls, costs
from tests.unit.runs.conftest import Make
from tests.unit.runs.failing import (
    begin_anew,
    both,
    broken,
    buys,
    done,
    failed,
    lost,
    payer,
    piece,
    steps,
    strict,
    work,
)

from retinue.policy.load import load_gate
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput
from retinue.runs.joins import first_success
from retinue.runs.journal import Retried
from retinue.runs.machine import IllegalTransition
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("A9")]


@pytest.fixture(autouse=True)
def fresh() -> None:
    begin_anew()


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


@pytest.mark.promise("C4")
async def test_a_retry_asks_anew_about_a_write_of_which_nobody_could_tell(make_on_each: Make) -> None:
    rule = '@id("all") permit (principal, action, resource) unless { action == Action::"doubt" };'
    world = await make_on_each(buys(1, "1"), payer, policy=rule)
    lost.append(1)
    run_id = await world.submit("buys")
    await world.answer(run_id, "fail")
    assert (await world.finish(run_id)).reason is StopReason.side_effect_unknown
    await world.retry(run_id)
    await world.answer(run_id, {"happened": "paid"})
    assert (await world.finish(run_id)).value == "paid" and done == ["pay 1"]


@pytest.mark.rule("R14")
async def test_a_step_that_must_not_be_repeated_is_in_doubt_when_it_was_stopped_in_flight(make_on_each: Make) -> None:
    @workflow
    async def careful(ctx: Context, _: Any) -> Any:
        return await ctx.step(hang, "a", repeatable=False)

    async def hang(name: str) -> str:
        done.append(name)
        await asyncio.Event().wait()
        return name

    world = await make_on_each(careful)
    run_id = await world.submit(careful, budget=Budget(seconds=50))
    await world.until(lambda: done == ["a"])
    world.clock.advance(60)
    await world.store.signal(run_id, "look", None, world.clock())
    assert (await world.finish(run_id)).reason is StopReason.deadline_exceeded
    await world.retry(run_id)
    await world.answer(run_id, {"happened": "b"})
    assert (await world.finish(run_id)).value == "b" and done == ["a"]


@pytest.mark.promise("F1")
async def test_the_policy_in_force_decides_what_a_retried_run_asks_for_anew(make_on_each: Make) -> None:
    clerk = agent("clerk", "Answers.")
    world = await make_on_each(clerk)
    world.decide({"fault": {"kind": "permanent"}})
    run_id = await failed(world, clerk, "go")
    rule = '@id("none") forbid (principal, action == Action::"context", resource);'
    (world.folder / "policy" / "rules.cedar").write_text(f"{ALLOW_ALL}\n{rule}")
    world.use(gate=load_gate(world.folder / "policy"))
    world.decide({"answer": "told"})
    await world.retry(run_id, migrate=True)
    assert (await world.finish(run_id)).reason is StopReason.policy_denied


@pytest.mark.rule("R4")
async def test_a_try_that_failed_for_sure_before_a_retry_is_not_paid_as_lost(make_on_each: Make) -> None:
    thinker = agent("thinker", "Thinks.")
    world = await make_on_each(thinker)
    fault = {"kind": "transient", "retry_after": 90, "times": 1}
    world.decide(costs({"answer": "ok", "fault": fault}, "0.05"))
    run_id = await failed(world, thinker, "go", budget=Budget(seconds=50))
    await world.retry(run_id)
    result = await world.finish(run_id)
    assert (result.value, result.usage.micros, result.usage.steps) == ("ok", 50_000, 2)


async def test_a_child_of_a_failed_parent_is_retried_with_it_only(make_on_each: Make) -> None:
    @workflow
    async def tolerant(ctx: Context, names: list[str]) -> Any:
        branches = await ctx.map(piece, names)
        await ctx.step(work, "z")
        return [branch.ok for branch in branches]

    world = await make_on_each(tolerant, piece)
    broken.update("yz")
    run_id = await failed(world, tolerant, ["x", "y"])
    [child] = [r for r in await world.store.list_runs(RunQuery(parent_run_id=run_id)) if r.status is Status.failed]
    with pytest.raises(InvalidInput, match=f"is a child of {run_id}, which is failed"):
        await world.retry(child.run_id)
    broken.clear()
    await world.retry(run_id)
    assert (await world.finish(run_id)).value == [True, False]


async def test_a_join_that_failed_by_its_own_rule_is_to_be_forked(make_on_each: Make) -> None:
    def spoiled(ended: Any) -> bool:
        raise ValueError("no such thing")

    @workflow
    async def picky(ctx: Context, names: list[str]) -> Any:
        return len(await ctx.map(piece, names, window=1, enough=spoiled))

    world = await make_on_each(picky, piece)
    run_id = await failed(world, picky, ["x", "y"])
    with pytest.raises(InvalidInput, match="failed by a rule of its own and let go of its children"):
        await world.retry(run_id)
