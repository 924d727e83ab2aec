"""A retry with new code: what it asks for as before is kept, what it asks for otherwise is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.runs.conftest import Make
from tests.unit.runs.failing import ASK, begin_anew, broken, buys, done, failed, flow, payer, piece, steps, work

from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status, StopReason
from retinue.runs.definitions import workflow

pytestmark = [pytest.mark.promise("A9")]


@pytest.fixture(autouse=True)
def fresh() -> None:
    begin_anew()


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


async def test_what_was_kept_twice_is_still_that_of_its_arguments(make_on_each: Make) -> None:
    world = await make_on_each(flow("1", ["a", "b"]))
    broken.add("b")
    run_id = await failed(world, "flow", None)
    await world.retry(run_id, migrate=True)
    assert (await world.finish(run_id)).status is Status.failed
    world.redefine(flow("2", ["z", "c"]))
    await world.retry(run_id, migrate=True, version="2")
    assert (await world.finish(run_id)).value == ["z 4", "c 5"]


async def test_new_code_does_not_take_old_children_for_those_of_other_inputs(make_on_each: Make) -> None:
    world = await make_on_each(flow("1", ["a", "b"], spread=True), piece)
    broken.add("b")
    run_id = await failed(world, "flow", None)
    world.redefine(flow("2", ["z", "c"], spread=True), piece)
    await world.retry(run_id, migrate=True, version="2")
    result = await world.finish(run_id)
    assert result.error is not None and "asks for other arguments of children 0/piece#0" in result.error.message
    assert result.reason is StopReason.replay_mismatch


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
