"""A retry goes on with the same run: what ended well is not done again, what failed is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.doubles.worlds import ALLOW_ALL, World, calls, costs
from tests.unit.runs.conftest import Make

from retinue.policy.load import load_gate
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, PermanentError, TransientError
from retinue.runs.joins import first_success
from retinue.runs.journal import Retried
from retinue.runs.machine import IllegalTransition
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("A9")]

done: list[str] = []
broken: set[str] = set()
lost: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()
    broken.clear()
    lost.clear()


async def work(name: str) -> str:
    done.append(name)
    if name in broken:
        raise PermanentError(f"{name} is broken")
    if lost:
        raise TransientError(f"the reply to {name} was lost")
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


ASK = """
@id("all") permit (principal, action, resource) unless { action == Action::"doubt" };
@id("ask") @outcome("approval") forbid (principal, action == Action::"capability", resource);
"""


@tool(side_effect="write", idempotency="at_most_once")
async def pay(amount: int, *, key: str) -> str:
    """Pays."""
    return await work(f"pay {amount}")


payer = agent("payer", "Pays.", tools=[pay])


def buys(amount: int, version: str) -> Any:
    @workflow(name="buys", version=version)
    async def made(ctx: Context, _: Any) -> Any:
        return await ctx.call("pay", amount=amount)

    return made


@pytest.mark.promise("F3")
async def test_a_yes_from_before_a_retry_is_no_yes_to_other_arguments(make_on_each: Make) -> None:
    world = await make_on_each(buys(1, "1"), payer, policy=ASK)
    broken.add("pay 1")
    run_id = await world.submit("buys")
    first = await world.asked(run_id)
    await world.store.resolve(first.request_id, "approved", "ben", world.clock())
    assert (await world.finish(run_id)).status is Status.failed
    world.redefine(buys(1_000, "2"), payer)
    await world.retry(run_id, migrate=True, version="2")
    second = await world.asked(run_id)
    assert "amount=1000" in second.prompt and second.request_id != first.request_id and done == ["pay 1"]
    await world.store.resolve(second.request_id, "approved", "ben", world.clock())
    assert (await world.finish(run_id)).status is Status.completed and done == ["pay 1", "pay 1000"]


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


def flow(version: str, names: list[str], spread: bool = False) -> Any:
    """The first names are worked on one by one, or each by a child; the last one always by a step."""

    @workflow(name="flow", version=version)
    async def made(ctx: Context, _: Any) -> list[Any]:
        if spread:
            first = [branch.value for branch in await ctx.map(piece, names[:-1])]
        else:
            first = [await ctx.step(work, name) for name in names[:-1]]
        return [*first, await ctx.step(work, names[-1])]

    return made


async def test_what_was_kept_twice_is_still_that_of_its_arguments(make_on_each: Make) -> None:
    world = await make_on_each(flow("1", ["a", "b"]))
    broken.add("b")
    run_id = await failed(world, "flow", None)
    await world.retry(run_id, migrate=True)
    assert (await world.finish(run_id)).status is Status.failed
    world.redefine(flow("2", ["z", "c"]))
    await world.retry(run_id, migrate=True, version="2")
    assert (await world.finish(run_id)).value == ["z 4", "c 5"]


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


async def test_new_code_does_not_take_old_children_for_those_of_other_inputs(make_on_each: Make) -> None:
    world = await make_on_each(flow("1", ["a", "b"], spread=True), piece)
    broken.add("b")
    run_id = await failed(world, "flow", None)
    world.redefine(flow("2", ["z", "c"], spread=True), piece)
    await world.retry(run_id, migrate=True, version="2")
    result = await world.finish(run_id)
    assert result.error is not None and "asks for other arguments of children 0/piece#0" in result.error.message
    assert result.reason is StopReason.replay_mismatch


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


async def test_a_retrys_version_and_budget_are_those_of_the_run_it_is_meant_for(make_on_each: Make) -> None:
    """A child goes on with its own version, and with its share: the sum of shares stays the parent's."""

    @workflow(version="7")
    async def kid(ctx: Context, name: str) -> str:
        return str(await ctx.step(work, name))

    def parent(version: str) -> Any:
        @workflow(name="parent", version=version)
        async def made(ctx: Context, _: Any) -> Any:
            return await ctx.run(kid, "a", budget=Budget(usd="0.10"))

        return made

    world = await make_on_each(parent("1"), kid)
    broken.add("a")
    run_id = await failed(world, "parent", None, budget=Budget(usd="1"))
    broken.clear()
    world.redefine(parent("2"), kid)
    [child_id, _] = await world.retry(run_id, migrate=True, version="2", budget=Budget(usd="10"))
    assert (await world.finish(run_id)).value == "a 2"
    [of_child] = [e for e in await world.entries(child_id) if e.kind == "retried"]
    [own] = [e for e in await world.entries(run_id) if e.kind == "retried"]
    assert (of_child.amendment.budget, of_child.amendment.version) == (None, None)
    assert (own.amendment.budget, own.amendment.version) == (Budget(usd="10"), "2")


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
