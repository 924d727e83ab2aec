"""What the gate was asked can be rebuilt from the journal: the same requests, field by field, and what was said."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.memory_store import MemoryStore
from tests.doubles.worlds import World, calls
from tests.journals.fixtures import FOLDER, load, recording
from tests.unit.runs.conftest import Make

from retinue.runs.asked import Question, questions
from retinue.runs.context import Context
from retinue.runs.contracts import Budget
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PolicyDenied, TransientError
from retinue.runs.gate import GateDecision, GateRequest, in_full
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool, tool

pytestmark = [pytest.mark.promise("F2")]

RULES = """
@id("all") permit (principal, action, resource) unless { action == Action::"doubt" };
@id("ask") @outcome("approval") @reason("a yes, please")
forbid (principal, action == Action::"capability", resource == Capability::"pay");
@id("no") @reason("not that shelf") forbid (principal, action == Action::"capability", resource == Capability::"look")
when { context.arguments.texts.hasTag("at") && context.arguments.texts.getTag("at") == "cellar" };
@id("small") forbid (principal, action == Action::"model", resource)
when { context.budget has steps && context.budget.steps < 1 };
"""
failing: list[str] = []


@tool(side_effect="read", version="3")
async def look(at: str) -> str:
    """Looks."""
    return at


@tool(side_effect="write", idempotency="at_most_once", sensitivity="secret")
async def pay(amount: int, *, key: str) -> str:
    """Pays; nobody hears of it while it is failing."""
    if failing:
        raise TransientError(failing.pop())
    return f"paid {amount}"


clerk = agent("clerk", "Works.", tools=[look, pay])


@workflow
async def shops(ctx: Context, _: Any) -> Any:
    seen = await ctx.call("look", at="shelf")
    try:
        await ctx.call("look", at="cellar")
    except PolicyDenied:
        seen += ", not there"
    return [seen, await ctx.call("pay", amount=3)]


class Recorder:
    """A gate that keeps what it was asked, and hands it on."""

    def __init__(self, world: World) -> None:
        self._gate = world.services.gate
        self.asked: list[tuple[GateRequest, GateDecision]] = []
        tools = [each for each in world.registry.tools.values() if isinstance(each, NativeTool)]
        world.use(gate=self, gateway=CapabilityGateway(Catalog(tools), self, clock=world.clock))

    @property
    def digest(self) -> str:
        return self._gate.digest

    def decide(self, request: GateRequest) -> GateDecision:
        said = self._gate.decide(request)
        self.asked.append((request, said))
        return said


def plain(request: GateRequest) -> dict[str, Any]:
    """What rules can see of a request; the digest and the approval are bound to it elsewhere."""
    return request.model_dump(mode="json", exclude={"digest", "approval", "now"})


async def rebuilt(world: World, run_id: str) -> list[Question]:
    return list(questions([frame async for frame in world.store.read(run_id)]))


async def told(world: World, run_id: str, recorder: Recorder) -> list[Question]:
    """The questions in a run's journal: each was really asked, as it is rebuilt, with the answer it says."""
    found = await rebuilt(world, run_id)
    pairs = [(plain(request), in_full(said.facts)["outcome"], said.digest) for request, said in recorder.asked]
    for one in found:
        assert one.lacks == ()
        assert (plain(one.request), one.said["outcome"], one.said["digest"]) in pairs
    return found


async def test_every_question_of_a_workflow_is_rebuilt_as_it_was_asked(make_on_each: Make) -> None:
    world = await make_on_each(shops, clerk, policy=RULES)
    recorder = Recorder(world)
    run_id = await world.submit(shops, None, budget=Budget(hops=5, steps=9, tokens=1_000))
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock(), {"arguments": {"amount": 2}})
    assert (await world.finish(run_id)).value == ["shelf, not there", "paid 2"]
    found = await told(world, run_id, recorder)
    assert [(one.request.stage, one.request.resource, one.outcome) for one in found] == [
        ("request", "shops", "allow"),
        ("capability", "look", "allow"),
        ("capability", "look", "deny"),
        ("capability", "pay", "approval_required"),
        ("capability", "pay", "allow"),
    ]
    last = found[-1]
    assert last.request.sensitivity == "secret" and last.request.arguments == {"amount": 2}
    assert last.approval is not None and last.approval.by == "bob" and last.edited is not None
    assert found[1].request.version == "3" and found[1].request.budget["hops"] == 5
    assert found[3].request.arguments == {"amount": 3} and found[3].approval is None


async def test_every_question_of_an_agent_is_rebuilt_as_it_was_asked(make_on_each: Make) -> None:
    world = await make_on_each(clerk, policy=RULES)
    recorder = Recorder(world)
    world.decide(calls("look", at="cellar"), calls("look", at="attic"), {"answer": "seen"})
    run_id = await world.submit("clerk", "look around")
    assert (await world.finish(run_id)).value == "seen"
    found = await told(world, run_id, recorder)
    assert [one.request.stage for one in found].count("model") == 3
    assert {"request", "context", "model", "capability", "output"} == {one.request.stage for one in found}
    assert len(found) == len(recorder.asked)
    keys = [one.key for one in found if one.request.stage == "model"]
    assert len(set(keys)) == 3 and None not in keys


async def test_a_denied_model_call_keeps_its_facts(make_on_each: Make) -> None:
    world = await make_on_each(clerk, policy=RULES.replace("steps < 1", "steps < 100"))
    recorder = Recorder(world)
    world.decide({"answer": "never said"})
    run_id = await world.submit("clerk", "look around", budget=Budget(steps=9))
    await world.finish(run_id)
    [denied] = [one for one in await told(world, run_id, recorder) if one.outcome == "deny"]
    assert denied.request.stage == "model" and denied.request.facts["turn"] == 0


async def test_a_doubt_and_a_refused_yes_are_rebuilt(make_on_each: Make) -> None:
    world = await make_on_each(shops, clerk, policy=RULES)
    recorder = Recorder(world)
    failing.append("the line is dead")
    run_id = await world.submit(shops, None)
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock())
    await world.answer(run_id, "happened")
    await world.finish(run_id)
    found = await told(world, run_id, recorder)
    [doubt] = [one for one in found if one.request.stage == "doubt"]
    assert doubt.request.facts == {"cause": "failure"} and doubt.request.idempotency == "at_most_once"
    other = await world.submit(shops, None)
    await world.store.resolve((await world.asked(other)).request_id, "approved", "ana", world.clock())
    await world.finish(other)
    refused = (await told(world, other, recorder))[-1]
    assert refused.outcome == "approval_required" and refused.approval is not None and refused.approval.by == "ana"


async def test_an_answer_to_a_doubt_is_an_input(make_on_each: Make) -> None:
    world = await make_on_each(shops, clerk, policy=RULES)
    failing.append("the line is dead")
    run_id = await world.submit(shops, None)
    asked = await world.asked(run_id)
    await world.store.resolve(asked.request_id, "approved", "bob", world.clock())
    await world.answer(run_id, "happened")
    await world.finish(run_id)
    kinds = {each.key.rpartition("!")[2]: each.effect for each in await world.outcomes(run_id) if "!" in each.key}
    assert kinds == {"approval": "approval", "doubt": "input"}


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("name", ["mail", "researcher"])
async def test_a_journal_from_before_says_what_it_lacks(version: str, name: str) -> None:
    store = MemoryStore()
    await load(store, recording(FOLDER / version / f"{name}.jsonl"))
    found = [
        one
        for record in await store.list_runs(RunQuery(limit=100))
        for one in questions([frame async for frame in store.read(record.run_id)])
    ]
    assert {one.request.stage for one in found} >= {"request", "capability"}
    for one in found:
        assert "budget" in one.lacks and one.outcome in ("allow", "deny", "approval_required")
        if one.request.stage == "model":
            assert one.request.facts and "facts" not in one.lacks
