"""What a yes is bound to: the call, its version, the rules, a time, one use, and who may say it; checked in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.doubles.worlds import World, calls
from tests.unit.runs.conftest import Make

from retinue.policy.invariants import Invariants
from retinue.policy.load import make_gate
from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Json, PendingRequest, Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PolicyDenied, TransientError
from retinue.runs.journal import Intent, Outcome
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool, tool

paid: list[int] = []
"""What was really paid."""

ALL = '@id("all") permit (principal, action, resource);\n'
ASK = f"""{ALL}@id("ask") @outcome("approval") @reason("payments need a yes")
forbid (principal, action == Action::"capability", resource == Capability::"pay");
"""
LEAD = ASK.replace('@reason("payments', '@approver("role:lead") @reason("payments')
CAPPED = f"""{ASK}@id("cap") @reason("more than 500 is never paid")
forbid (principal, action == Action::"capability", resource == Capability::"pay")
when {{ context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") > 500 }};
"""


def pays(version: str = "1") -> NativeTool[Any, Any]:
    @tool(side_effect="write", idempotency="idempotent", version=version)
    async def pay(amount: int, to: str = "the shop", *, key: str) -> str:
        """Pays."""
        paid.append(amount)
        return f"paid {amount}"

    return pay


@workflow
async def buy(ctx: Context, amount: int) -> Any:
    return await ctx.call("pay", amount=amount)


@workflow
async def settle(ctx: Context, amount: int) -> Any:
    try:
        return await ctx.call("pay", amount=amount)
    except PolicyDenied as error:
        return str(error)


def clerk(version: str = "1") -> Any:
    return agent("clerk", "Pays.", tools=[pays(version)])


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    paid.clear()


@dataclass
class Buying:
    """A run that has asked for its payment."""

    world: World
    run_id: str
    request: PendingRequest

    def rule(self, policy: str, roles: dict[str, list[str]] | None = None) -> None:
        """These rules and roles are in force from now on."""
        gate = make_gate({"rules.cedar": policy}, Invariants(), roles)
        tools = [each for each in self.world.registry.tools.values() if isinstance(each, NativeTool)]
        self.world.use(gate=gate, gateway=CapabilityGateway(Catalog(tools), gate, clock=self.world.clock))

    async def say(self, by: str = "bob", status: str = "approved", value: Json = None) -> None:
        """Answer the question that is open now."""
        asked = await self.world.asked(self.run_id)
        await self.world.store.resolve(asked.request_id, status, by, self.world.clock(), value)

    async def end(self) -> Branch:
        return await self.world.finish(self.run_id)

    async def asked_again(self) -> PendingRequest:
        """The second question, which is another than the first; nothing has been paid."""
        second = await self.world.asked(self.run_id)
        assert second.request_id != self.request.request_id and paid == []
        return second

    async def intent(self) -> Intent:
        [made] = [each for each in await self.world.intents(self.run_id) if each.effect == "call"]
        return made


async def buying(make: Make, policy: str = ASK, roles: dict[str, list[str]] | None = None, target: Any = buy) -> Buying:
    world = await make(buy, settle, clerk())
    made = Buying(world, "", None)  # type: ignore[arg-type]
    made.rule(policy, roles)
    made.run_id = await world.submit(target, 100)
    made.request = await world.asked(made.run_id)
    return made


@pytest.mark.promise("F3")
async def test_a_yes_is_used_once_and_on_record_before_the_call(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say()
    assert (await found.end()).value == "paid 100" and paid == [100]
    kinds = [
        type(each).__name__ + each.key.partition("#0")[2]
        for each in await found.world.entries(found.run_id)
        if isinstance(each, Intent | Outcome) and each.effect in ("call", "approval")
    ]
    assert kinds == ["Intent!approval", "Outcome!approval", "Intent", "Outcome"]


@pytest.mark.promise("F3")
async def test_a_yes_to_another_version_counts_for_nothing(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say()
    found.world.redefine(buy, settle, clerk("2"))
    found.rule(ASK)
    again = await found.asked_again()
    assert (found.request.facts["version"], again.facts["version"]) == ("1", "2")
    assert "another version" in again.prompt
    await found.say()
    assert (await found.end()).value == "paid 100"


@pytest.mark.promise("F3")
async def test_a_yes_under_other_rules_counts_for_nothing(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say()
    found.rule(ASK + '@id("other") forbid (principal == Principal::"eve", action, resource);')
    again = await found.asked_again()
    assert again.facts["policy_digest"] != found.request.facts["policy_digest"] and "under other rules" in again.prompt
    await found.say("carl")
    assert (await found.end()).value == "paid 100" and paid == [100]
    given = [each for each in await found.world.outcomes(found.run_id) if each.effect == "approval"]
    assert [each.facts["by"] for each in given] == ["bob", "carl"]


@pytest.mark.promise("F3")
async def test_a_yes_that_is_not_used_in_time_counts_for_nothing(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    found.world.use(approval_lasts=3_600.0)
    await found.say()
    found.world.clock.advance(3_601)
    assert "not used in time" in (await found.asked_again()).prompt
    await found.say()
    found.world.clock.advance(3_500)
    assert (await found.end()).value == "paid 100"


@pytest.mark.promise("F3")
async def test_a_yes_that_runs_out_between_two_tries_is_on_record_once(make_on_each: Make) -> None:
    broken: list[int] = []

    @tool(side_effect="write", idempotency="idempotent")
    async def pay(amount: int, *, key: str) -> str:
        """Pays the second time."""
        broken.append(amount)
        if len(broken) == 1:
            raise TransientError("away", code="timeout", retry_after=30)
        return f"paid {amount}"

    world = await make_on_each(buy, agent("clerk", "Pays.", tools=[pay]), policy=ASK)
    world.use(approval_lasts=10.0)
    run_id = await world.submit(buy, 100)
    for name in ("bob", "carl"):
        asked = await world.asked(run_id)
        await world.store.resolve(asked.request_id, "approved", name, world.clock())
        await world.settle()
        await world.wait_out()
    assert (await world.finish(run_id)).value == "paid 100" and broken == [100, 100]
    given = [(each.key, each.facts["by"]) for each in await world.outcomes(run_id) if each.effect == "approval"]
    assert [by for _, by in given] == ["bob", "carl"] and len({key for key, _ in given}) == 2


@pytest.mark.promise("F3")
async def test_the_rules_are_asked_again_when_the_call_is_made(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say()
    found.rule(ASK + '@id("stop") @reason("not today") forbid (principal, action, resource == Capability::"pay");')
    ended = await found.end()
    assert ended.reason is StopReason.policy_denied and "not today" in ended.problem and paid == []


@pytest.mark.promise("F3")
async def test_a_yes_of_the_requester_is_no_yes(make: Make) -> None:
    found = await buying(make)
    await found.say("ana")
    ended = await found.end()
    assert ended.reason is StopReason.policy_denied and "cannot approve it alone" in ended.problem and paid == []


@pytest.mark.promise("F3")
@pytest.mark.parametrize(("by", "reason"), [("bob", None), ("carl", "'carl' does not have the role lead")])
async def test_a_yes_needs_the_role_that_the_rule_names(make_on_each: Make, by: str, reason: str | None) -> None:
    found = await buying(make_on_each, LEAD, {"lead": ["bob"], "clerks": ["carl"]})
    assert found.request.facts["approver"] == {"roles": ["lead"]} and "needs the role lead" in found.request.prompt
    await found.say(by)
    ended = await found.end()
    assert (paid == [100]) is (reason is None)
    assert reason is None or reason in ended.problem


@pytest.mark.promise("F3")
async def test_a_role_that_was_taken_away_before_the_call_counts_no_more(make_on_each: Make) -> None:
    found = await buying(make_on_each, LEAD, {"lead": ["bob"]})
    await found.say("bob")
    found.rule(LEAD, {"lead": ["dora"]})
    assert "does not have the role lead" in (await found.end()).problem and paid == []


@pytest.mark.promise("F3")
async def test_a_retried_run_asks_anew(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say(status="denied")
    assert (await found.end()).status is Status.failed
    await found.world.retry(found.run_id)
    again = await found.asked_again()
    await found.world.store.resolve(again.request_id, "approved", "bob", found.world.clock())
    assert (await found.end()).value == "paid 100"


@pytest.mark.promise("F3")
async def test_a_fork_asks_anew(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say()
    await found.end()
    fork_id = await found.world.fork(found.run_id, "pay#0")
    asked = await found.world.asked(fork_id)
    assert asked.request_id != found.request.request_id and paid == [100]
    await found.world.store.resolve(asked.request_id, "approved", "ana", found.world.clock())
    assert (await found.world.finish(fork_id)).status is Status.failed and paid == [100]


# -- approved with other arguments -------------------------------------------------------------------------


@pytest.mark.promise("F3")
async def test_a_call_is_made_as_its_approver_changed_it(make_on_each: Make) -> None:
    found = await buying(make_on_each)
    await found.say(value={"arguments": {"amount": 50}})
    assert (await found.end()).value == "paid 50" and paid == [50]
    made = await found.intent()
    assert made.content == {"amount": 50, "to": "the shop"}
    edited = made.facts["edited"]
    assert edited["by"] == "bob" and edited["asked"] == found.request.facts["digest"] != edited["called"]
    [yes] = [each for each in await found.world.outcomes(found.run_id) if each.effect == "approval"]
    assert yes.content == {"arguments": {"amount": 50}}


@pytest.mark.promise("F3")
async def test_a_changed_call_replays_as_it_was_made(make_on_each: Make) -> None:
    @workflow
    async def twice(ctx: Context, amount: int) -> Any:
        first = await ctx.call("pay", amount=amount)
        await ctx.event("go")
        return first

    world = await make_on_each(twice, clerk(), policy=ASK)
    run_id = await world.submit(twice, 100)
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock(), {"arguments": {"amount": 50}})
    await world.settle()
    await world.crash()
    await world.store.signal(run_id, "go", None, world.clock())
    assert (await world.finish(run_id)).value == "paid 50" and paid == [50]


@pytest.mark.promise("F3")
async def test_the_gate_may_deny_a_call_as_it_was_changed(make_on_each: Make) -> None:
    found = await buying(make_on_each, CAPPED, target=settle)
    await found.say(value={"arguments": {"amount": 1_000}})
    said = (await found.end()).value
    assert "arguments were changed by its approver" in said and "more than 500 is never paid" in said and paid == []


@pytest.mark.promise("F3")
async def test_changed_arguments_must_fit_the_schema(make: Make) -> None:
    found = await buying(make)
    await found.say(value={"arguments": {"amount": "much"}})
    ended = await found.end()
    assert ended.status is Status.failed and "amount" in ended.problem and paid == []


@pytest.mark.promise("F3")
async def test_a_changed_call_in_doubt_is_repeated_as_it_was_changed(make_on_each: Make) -> None:
    hanging: list[int] = []

    @tool(side_effect="write", idempotency="idempotent")
    async def pay(amount: int, to: str = "the shop", *, key: str) -> str:
        """Pays, and is never heard of the first time."""
        paid.append(amount)
        if not hanging:
            hanging.append(amount)
            await asyncio.Event().wait()
        return f"paid {amount}"

    world = await make_on_each(buy, agent("clerk", "Pays.", tools=[pay]), policy=ASK)
    run_id = await world.submit(buy, 100)
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock(), {"arguments": {"amount": 50}})
    await world.until(lambda: bool(hanging))
    await world.crash()
    assert (await world.finish(run_id)).value == "paid 50" and paid == [50, 50]


@pytest.mark.promise("F3")
async def test_the_model_is_told_what_was_really_called(make: Make) -> None:
    world = await make(clerk(), policy=ASK)
    world.decide(calls("pay", amount=100), {"answer": "done"})
    run_id = await world.submit("clerk", "pay 100")
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock(), {"arguments": {"amount": 50}})
    await world.finish(run_id)
    [seen] = [each for each in await world.entries(run_id) if getattr(each, "topic", "") == "observation"]
    assert seen.content["data"] == {
        "called_with": {"amount": 50, "to": "the shop"},
        "because": "bob approved the call with other arguments",
        "result": "paid 50",
    }
    messages = [each.content["messages"] for each in await world.intents(run_id) if each.effect == "model"][-1]
    assert "called_with" in str(messages)
