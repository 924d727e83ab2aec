"""The agent loop: its stages in order, decisions typed before anything sees them, state enough to explain."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from tests.doubles.shapes import START
from tests.doubles.worlds import calls, ended
from tests.unit.runs.conftest import Make

from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import Artifact
from retinue.runs.contracts import StopReason
from retinue.runs.decisions import Answer, AskHuman, Handoff, Invalid, Stop, ToolCalls, decide
from retinue.runs.definitions import agent
from retinue.runs.journal import AnyEntry
from retinue.runs.messages import ModelReply, ToolCall, ToolSpec
from retinue.sessions.native import tool

used: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    used.clear()


@tool(side_effect="read")
def search(query: str) -> list[str]:
    """Search."""
    used.append(query)
    return [f"about {query}"]


class Finding(BaseModel):
    answer: str
    quote: str


finder = agent("finder", "Find.", tools=[search], output=Finding, corrections=2)
plain = agent("plain", "Talk.", tools=[search], asks=True, handoffs=["finder"])


def stage(entry: AnyEntry) -> str | None:
    """The word for a stage, from what the journal says of it."""
    if entry.kind == "record":
        policy = entry.facts["stage"] if entry.topic == "policy" else ""
        return f"policy:{policy}" if policy else str(entry.facts["stage"] if entry.topic == "stage" else entry.topic)
    if entry.kind in ("intent", "outcome") and entry.effect in ("model", "call"):
        return f"{entry.effect}:{entry.kind}"
    return entry.kind if entry.kind in ("checkpoint", "finished") else None


@pytest.mark.promise("A1")
async def test_the_stages_of_a_run_stand_in_its_journal_in_order(make_on_each: Make) -> None:
    world = await make_on_each(finder)
    world.decide(calls("search", query="fire"), {"answer": {"answer": "hot", "quote": "about fire"}})
    result = await world.run(finder, "is fire hot?")
    stages = [name for entry in await world.entries(result.run_id) if (name := stage(entry))]
    turn = ["policy:context", "context", "policy:model", "model:intent", "model:outcome", "decision"]
    assert stages == [
        "accept",
        "policy:request",
        *turn,
        "call:intent",
        "call:outcome",
        "observation",
        "checkpoint",
        *turn,
        "validation",
        "policy:output",
        "finished",
    ]
    assert result.facts["confidence"] == 1.0


@pytest.mark.promise("A6")
async def test_the_recorded_state_explains_the_run(make: Make) -> None:
    world = await make(finder)
    world.decide(calls("search", query="fire"), {"answer": {"answer": "hot", "quote": "made up"}})
    result = await world.run(finder, {"question": "is fire hot?"})
    entries = await world.entries(result.run_id)
    [mark] = [entry for entry in entries if entry.kind == "checkpoint"]
    state = AgentState.model_validate(mark.content)
    assert (state.goal, state.turn, state.next_id()) == ("is fire hot?", 1, "o2")
    [seen] = state.observed
    assert (seen.id, seen.kind, seen.result, seen.name, seen.turn) == ("o1", "tool", "ok", "search", 0)
    [noted] = [entry for entry in entries if entry.kind == "record" and entry.topic == "observation"]
    assert noted.content == {"data": ["about fire"]}
    decisions = [entry.content["type"] for entry in entries if entry.kind == "record" and entry.topic == "decision"]
    assert decisions == ["tool_calls", "answer"]
    assert result.facts["confidence"] == 0.0 and entries[-1].kind == "finished"
    assert entries[-1].reason is StopReason.success


SPECS = (ToolSpec(name="search", description="", input_schema={}),)


def reply(*named: tuple[str, Any], text: str = "", finish: str = "tool_calls") -> ModelReply:
    made = tuple(
        ToolCall(id=f"c{n}", name=name, arguments=given if isinstance(given, dict) else None, raw=str(given))
        for n, (name, given) in enumerate(named)
    )
    return ModelReply(text=text, tool_calls=made, finish_reason=finish if made or finish != "tool_calls" else "stop")


@pytest.mark.promise("A3")
def test_every_reply_is_one_of_five_decisions_or_invalid() -> None:
    control = agent("x", "y", asks=True, handoffs=["other"])
    from retinue.runs.decisions import ASK_HUMAN, STOP, hand_off_spec  # noqa: PLC0415

    specs = (*SPECS, ASK_HUMAN, STOP, hand_off_spec(control.handoffs))
    assert isinstance(decide(reply(text="42"), specs), Answer)
    assert isinstance(decide(reply(("search", {"query": "a"}), ("search", {"query": "b"})), specs), ToolCalls)
    assert isinstance(decide(reply(("ask_human", {"question": "?"})), specs), AskHuman)
    assert isinstance(decide(reply(("hand_off", {"agent": "other"})), specs), Handoff)
    assert isinstance(decide(reply(("stop", {"reason": "no"})), specs), Stop)


@pytest.mark.promise("A3")
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (reply(("serch", {})), "no tool 'serch'"),
        (reply(("search", "not json")), "not a JSON object"),
        (reply(*[("search", {})] * 17), "at most 16"),
        (reply(("stop", {"reason": "x"}), ("search", {})), "only call"),
        (reply(("stop", {})), "needs 'reason'"),
        (reply(("ask_human", {"question": "?"})), "no tool 'ask_human'"),
        (reply(text="   "), "empty"),
        (reply(text="cut", finish="length"), "cut off"),
    ],
)
def test_a_reply_that_is_no_decision_says_why(bad: ModelReply, said: str) -> None:
    from retinue.runs.decisions import STOP  # noqa: PLC0415

    found = decide(bad, (*SPECS, STOP))
    assert isinstance(found, Invalid) and said in found.problem


@pytest.mark.promise("A3")
async def test_an_invalid_decision_reaches_no_tool_and_goes_back_with_its_reason(make_on_each: Make) -> None:
    world = await make_on_each(plain, finder)
    bad = {"tool_calls": [{"name": "search", "raw": "{oops"}]}
    world.decide({"tool_calls": [{"name": "delete_all"}]}, bad, {"answer": "fine"})
    result = await world.run(plain, "go")
    assert (result.value, used) == ("fine", [])
    models = [entry for entry in await world.intents(result.run_id) if entry.effect == "model"]
    told = [message["content"] for message in models[-1].content["messages"] if message["role"] == "user"]
    assert any("no tool 'delete_all'" in text for text in told) and any("not a JSON object" in text for text in told)


@pytest.mark.promise("A3", "A4")
async def test_corrections_are_bounded(make: Make) -> None:
    world = await make(plain, finder)
    world.decide(*[{"tool_calls": [{"name": f"tool_{n}"}]} for n in range(9)])
    result = await world.run(plain, "go")
    assert result.reason is StopReason.invalid_decision and result.usage.steps == 3
    assert result.error is not None and "after 3 tries" in result.error.message


@pytest.mark.promise("A3")
async def test_arguments_that_do_not_fit_are_an_observation_and_never_a_call(make: Make) -> None:
    world = await make(plain, finder)
    world.decide(calls("search", query=7), calls("search", query="x"), {"answer": "fine"})
    result = await world.run(plain, "go")
    assert (result.value, used) == ("fine", ["x"])
    seen = [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "observation"]
    assert [entry.facts["result"] for entry in seen] == ["error", "ok"]
    assert "query" in seen[0].content["data"]["error"]


@pytest.mark.promise("F5")
async def test_an_answer_that_does_not_fit_goes_back_a_bounded_number_of_times(make: Make) -> None:
    world = await make(finder)
    wrong = {"answer": {"answer": "hot"}}
    world.decide(wrong, {"answer": "no json"}, {"answer": {"answer": "hot", "quote": "x"}})
    result = await world.run(finder, "go")
    assert result.value == {"answer": "hot", "quote": "x"} and result.usage.steps == 3
    world.decide(wrong, wrong, wrong, wrong)
    result = await world.run(finder, "go")
    assert ended(result) == ("failed", "output_rejected") and result.usage.steps == 3


@pytest.mark.promise("A7")
async def test_a_question_waits_for_a_person_over_a_crash_and_its_answer_is_seen(make_on_each: Make) -> None:
    world = await make_on_each(plain, finder)
    world.decide({"ask_human": "Which one?"}, {"answer": "that one"})
    run_id = await world.submit(plain, "go")
    await world.settle()
    record = await world.store.get(run_id)
    assert (record.status, record.reason) == ("waiting_for_input", "input_required")
    assert world.active == {}
    await world.crash()
    [request] = await world.store.requests()
    assert (request.prompt, request.kind) == ("Which one?", "input")
    await world.store.resolve(request.request_id, "answered", "bob", START, "the blue one")
    assert (await world.finish(run_id)).value == "that one"
    models = [entry for entry in await world.intents(run_id) if entry.effect == "model"]
    assert "the blue one" in str(models[-1].content["messages"])


@pytest.mark.promise("A10")
async def test_a_handoff_passes_a_written_artifact_and_names_its_reason(make: Make) -> None:
    world = await make(plain, finder)
    world.script(
        {"match": {"agent": "plain"}, "decisions": [{"handoff": "finder", "artifact": {"next": "look"}}]},
        {"match": {"agent": "finder"}, "decisions": [{"answer": {"answer": "a", "quote": "q"}}]},
    )
    result = await world.run(plain, "the goal")
    assert ended(result) == ("completed", "handoff") and result.facts["to"] == "finder"
    assert result.value == {"answer": "a", "quote": "q"}
    [noted] = [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "handoff"]
    written = Artifact.model_validate(noted.content)
    assert (written.kind, written.goal, written.artifact) == ("handoff", "the goal", {"next": "look"})
    assert (written.origin.agent, written.origin.version) == ("plain", plain.version)
    assert noted.facts == {"to": "finder", "from": "plain", "version": plain.version, "turn": 0, "obligations": 0}


async def test_tools_called_together_are_delivered_by_their_place_not_their_id(make: Make) -> None:
    world = await make(plain, finder)
    same = [{"name": "search", "arguments": {"query": q}, "id": "same"} for q in ("a", "b")]
    world.decide({"tool_calls": same}, {"answer": "ok"})
    result = await world.run(plain, "go")
    assert sorted(used) == ["a", "b"]
    keys = [intent.key for intent in await world.intents(result.run_id) if intent.effect == "call"]
    assert len(set(keys)) == 2
