"""A write that may have been made and cannot be made again: whatever forbids it, the outcome is that nobody knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import ALLOW_ALL, SECOND, World, calls, world
from tests.unit.runs.conftest import Make
from tests.unit.runs.test_rollouts import Moved

from retinue.policy.load import load_gate
from retinue.runs.asked import questions
from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Budget, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import StoreFull, TransientError
from retinue.runs.rollouts import Table
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool, tool
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("C4"), pytest.mark.promise("A4")]

MADE: list[Any] = []
LOST: list[asyncio.Event] = []
SHUT = ALLOW_ALL + '@id("shut") @reason("we are closed") forbid (principal, action == Action::"capability", resource);'
ASK = ALLOW_ALL + (
    '@id("ask") @outcome("approval") @reason("ask first") forbid (principal, action == Action::"capability", resource);'
)


@tool(side_effect="write", idempotency="idempotent")
async def pay(amount: int, to: str = "the shop", *, key: str) -> str:
    """Pay; what is heard of it the first time is nothing."""
    MADE.append((amount, to))
    if LOST:
        await LOST.pop().wait()
    if len(MADE) == 1:
        raise TransientError("the line broke", code="timeout")
    return "paid"


@workflow
async def buys(ctx: Context, amount: int) -> str:
    return str(await ctx.call("pay", amount=amount))


clerk = agent("clerk", "Pays.", tools=[pay])


@pytest.fixture(autouse=True)
def fresh() -> None:
    MADE.clear()
    LOST.clear()


def rule(world: World, policy: str) -> None:
    """These rules are in force from now on, and the tools are those of the project now."""
    (world.folder / "policy/rules.cedar").write_text(policy)
    gate = load_gate(world.folder / "policy")
    tools = [each for each in world.registry.tools.values() if isinstance(each, NativeTool)]
    world.use(gate=gate, gateway=CapabilityGateway(Catalog(tools), gate, clock=world.clock))


async def tried(make: Make, policy: str = ALLOW_ALL, **fields: Any) -> tuple[World, str]:
    """A run that has paid once and heard that the line broke; it waits for the next try."""
    world = await make(buys, clerk, policy=policy)
    run_id = await world.submit(buys, 100, **fields)
    await world.settle()
    assert MADE == [(100, "the shop")]
    return world, run_id


async def in_doubt(world: World, run_id: str, why: str) -> Branch:
    """The end of a run of which nobody knows whether it paid; it has paid once."""
    result = await world.finish(run_id)
    assert MADE == [(100, "the shop")]
    assert result.reason is StopReason.side_effect_unknown, result
    assert "pay may have happened" in result.problem and why in result.problem
    [outcome] = [each for each in await world.outcomes(run_id) if each.effect == "call"]
    assert outcome.result == "unknown"
    return result


async def decisions(world: World, run_id: str) -> list[str]:
    """What the gate said of the call, by the journal; each question has its arguments."""
    found = list(questions([frame async for frame in world.store.read(run_id)]))
    asked = [each for each in found if each.request.stage == "capability"]
    assert all(each.request.arguments == {"amount": 100, "to": "the shop"} for each in asked)
    return [each.outcome for each in asked]


@pytest.mark.promise("F1")
async def test_a_repeat_that_the_rules_forbid_is_on_record_with_what_they_said(make_on_each: Make) -> None:
    world, run_id = await cut_off(make_on_each)
    rule(world, SHUT)
    await in_doubt(world, run_id, "not made again: we are closed")
    assert await decisions(world, run_id) == ["allow", "deny"]


async def test_a_try_that_the_rules_forbid_meanwhile(make_on_each: Make) -> None:
    world, run_id = await tried(make_on_each)
    rule(world, SHUT)
    result = await in_doubt(world, run_id, "not made again: we are closed")
    assert result.usage.hops == 1
    assert await decisions(world, run_id) == ["allow", "deny"]


async def test_a_try_for_which_a_person_is_asked_meanwhile_and_says_no(make: Make) -> None:
    world, run_id = await tried(make)
    rule(world, ASK)
    await world.wait_out()
    question = await world.asked(run_id)
    await world.store.resolve(question.request_id, "denied", "bob", world.clock())
    await in_doubt(world, run_id, "denied by bob")


async def test_a_try_that_is_outside_a_canary_meanwhile(make: Make) -> None:
    world, run_id = await tried(make)
    moved = Moved()
    moved.set("capability", "pay", "canary", share=0)
    world.use(rollouts=moved)
    await in_doubt(world, run_id, "in canary for 0 %")


async def test_a_try_that_no_budget_is_left_for(make: Make) -> None:
    world, run_id = await tried(make, budget=Budget(hops=1))
    result = await in_doubt(world, run_id, "hops budget 1 would be passed")
    assert result.usage.hops == 1


class Blind(Moved):
    """Rollouts that the store cannot say any more."""

    blind = False

    async def look(self) -> Table:
        if self.blind:
            raise StoreFull("the disk is full")
        return self.table


async def test_a_try_before_which_the_store_cannot_say_what_is_out(make: Make) -> None:
    world = await make(buys, clerk)
    moved = Blind()
    world.use(rollouts=moved, retry=replace(world.services.retry, in_memory=30.0))
    run_id = await world.submit(buys, 100)
    await world.until(lambda: bool(MADE))
    moved.blind = True
    world.clock.advance(30)
    await in_doubt(world, run_id, "the disk is full")


async def test_a_try_that_the_rules_forbid_after_the_run_has_failed_and_is_retried(make_on_each: Make) -> None:
    world, run_id = await tried(make_on_each, deadline=START + SECOND)
    world.clock.advance(2)
    assert (await world.finish(run_id)).reason is StopReason.deadline_exceeded
    rule(world, SHUT)
    await world.retry(run_id)
    await in_doubt(world, run_id, "not made again: we are closed")


async def test_a_try_after_the_run_has_failed_and_is_retried_is_made_again(make_on_each: Make) -> None:
    world, run_id = await tried(make_on_each, deadline=START + SECOND)
    world.clock.advance(2)
    assert (await world.finish(run_id)).reason is StopReason.deadline_exceeded
    await world.retry(run_id)
    assert (await world.finish(run_id)).value == "paid" and len(MADE) == 2


async def test_a_model_is_not_told_that_it_was_refused(make: Make) -> None:
    world = await make(clerk)
    world.decide(calls("pay", amount=100), {"answer": "done"})
    run_id = await world.submit("clerk", "pay")
    await world.settle()
    rule(world, SHUT)
    result = await world.finish(run_id)
    assert result.reason is StopReason.side_effect_unknown and MADE == [(100, "the shop")]


async def test_a_try_of_which_it_is_known_that_it_was_not_made_is_refused(make: Make) -> None:
    @tool(side_effect="write", idempotency="idempotent")
    async def pay(amount: int, *, key: str) -> str:
        """Pay, and know that nothing was."""
        raise TransientError("closed today", code="not_made")

    world = await make(buys, agent("clerk", "Pays.", tools=[pay]))
    run_id = await world.submit(buys, 100)
    await world.settle()
    rule(world, SHUT)
    assert (await world.finish(run_id)).reason is StopReason.policy_denied


# -- the code changed while it was in doubt --------------------------------------------------------------------------


async def cut_off(make: Make, policy: str = ALLOW_ALL) -> tuple[World, str]:
    """A run whose owner died while it paid."""
    LOST.append(asyncio.Event())
    world = await make(buys, clerk, policy=policy)
    run_id = await world.submit(buys, 100)
    await world.until(lambda: MADE == [(100, "the shop")])
    await world.crash()
    return world, run_id


async def test_a_tool_that_takes_other_arguments_meanwhile(make: Make) -> None:
    @tool(side_effect="write", idempotency="idempotent")
    async def pay(cents: int, *, key: str) -> str:
        """Pay by another name."""
        MADE.append(cents)
        return "paid"

    world, run_id = await cut_off(make)
    world.redefine(buys, agent("clerk", "Pays.", tools=[pay]))
    rule(world, ALLOW_ALL)
    await in_doubt(world, run_id, "amount")


async def test_a_tool_that_is_gone_meanwhile(make: Make) -> None:
    world, run_id = await cut_off(make)
    world.redefine(buys)
    rule(world, ALLOW_ALL)
    await in_doubt(world, run_id, "pay")


@pytest.mark.parametrize("crashed", [False, True])
async def test_another_default_meanwhile_changes_nothing_of_what_was_begun(make: Make, crashed: bool) -> None:
    @tool(side_effect="write", idempotency="idempotent")
    async def pay(amount: int, to: str = "the bank", *, key: str) -> str:
        """Pay somebody else."""
        MADE.append((amount, to))
        return "paid"

    world, run_id = await cut_off(make) if crashed else await tried(make)
    world.redefine(buys, agent("clerk", "Pays.", tools=[pay]))
    rule(world, ALLOW_ALL)
    assert (await world.finish(run_id)).value == "paid" and MADE == [(100, "the shop")] * 2


async def test_what_an_approver_changes_after_a_try_is_not_sent_by_the_same_key(make: Make) -> None:
    """The other side would take it for the first, and the journal would say that the second was made."""
    world, run_id = await tried(make)
    rule(world, ASK)
    await world.wait_out()
    question = await world.asked(run_id)
    await world.store.resolve(question.request_id, "approved", "bob", world.clock(), {"arguments": {"amount": 50}})
    await in_doubt(world, run_id, "other arguments")


async def test_a_try_that_is_approved_as_it_was_is_made_again(make: Make) -> None:
    world, run_id = await tried(make)
    rule(world, ASK)
    await world.wait_out()
    question = await world.asked(run_id)
    await world.store.resolve(question.request_id, "approved", "bob", world.clock())
    assert (await world.finish(run_id)).value == "paid" and len(MADE) == 2


async def test_a_try_as_its_approver_changed_it_whose_arguments_were_erased(tmp_path: Path) -> None:
    @workflow
    async def buys_one(ctx: Context, _: None) -> str:
        return str(await ctx.call("pay", amount=7))

    LOST.append(asyncio.Event())
    async with world("sqlite", tmp_path, buys_one, clerk, policy=ASK) as made:
        run_id = await made.submit(buys_one)
        question = await made.asked(run_id)
        changed = {"arguments": {"amount": 100}}
        await made.store.resolve(question.request_id, "approved", "bob", made.clock(), changed)
        await made.until(lambda: bool(MADE))
        await made.crash()
        assert isinstance(made.store, SqliteStore)
        assert await asyncio.to_thread(made.store._codec.vault.destroy, "acme")
        await in_doubt(made, run_id, "the arguments that its approver gave it were erased")
