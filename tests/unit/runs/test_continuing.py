"""Obligations, compaction, reset and handoff: each on record, each its own thing, none of them in anybody's way."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from tests.doubles.worlds import World, calls, costs, ended
from tests.unit.runs.conftest import Make

from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import Artifact
from retinue.runs.contracts import Budget, StopReason
from retinue.runs.definitions import AgentSpec, agent
from retinue.runs.errors import InvalidInput, TransientError
from retinue.runs.journal import AnyEntry, Checkpoint, Record
from retinue.runs.options import Compaction, Reset
from retinue.sessions.native import tool

LONG = Budget(steps=100, hops=200)


@tool(side_effect="read")
def look(number: int) -> dict[str, str]:
    """Look something up."""
    return {"document": f"d{number}", "text": f"word {number} " * 60}


@tool(side_effect="write", idempotency="at_most_once")
def launch(target: str) -> str:
    """Something that goes wrong on the way and cannot be asked."""
    raise TransientError(f"the line to {target} broke", code="broken")


class Finding(BaseModel):
    answer: str
    quote: str


def planner(name: str = "planner", **options: Any) -> AgentSpec:
    return agent(name, "Plan.", tools=[look, launch], plans=True, budget=LONG, **options)


def plan(**arguments: Any) -> dict[str, Any]:
    return {"name": "plan", "arguments": arguments}


def records(entries: list[AnyEntry], topic: str) -> list[Record]:
    return [entry for entry in entries if isinstance(entry, Record) and entry.topic == topic]


def states(entries: list[AnyEntry]) -> list[AgentState]:
    return [AgentState.model_validate(entry.content) for entry in entries if isinstance(entry, Checkpoint)]


async def prompts(world: World, run_id: str) -> list[list[dict[str, Any]]]:
    """The messages of each model call."""
    return [intent.content["messages"] for intent in await world.intents(run_id) if intent.effect == "model"]


# -- obligations ---------------------------------------------------------------------------------------------


@pytest.mark.promise("A10", "A6")
async def test_a_plan_may_come_with_other_calls_and_is_shown_until_it_is_settled(make_on_each: Make) -> None:
    spec = planner()
    world = await make_on_each(spec)
    both = {"tool_calls": [{"name": "look", "arguments": {"number": 1}}, plan(add=["tell  Ana"], next=["look"])]}
    world.decide(both, {"tool_calls": [plan(done=["b1"])]}, {"answer": "told"})
    result = await world.run(spec, "go")
    assert (result.value, result.facts) == ("told", {"confidence": None, "turns": 3, "open_obligations": []})
    entries = await world.entries(result.run_id)
    [first, second] = states(entries)
    [owed] = first.obligations
    assert (owed.id, owed.text, owed.since, owed.by, owed.settled_by) == ("b1", "tell Ana", 0, "model", None)
    assert second.obligations[0].settled_by == "turn:1" and second.left_open == ()
    assert [(o.id, o.kind, o.name) for o in first.observed] == [("o1", "tool", "look"), ("o2", "system", "plan")]
    shown = await prompts(world, result.run_id)
    assert shown[1][2]["content"] == "Still owed:\n- b1 (since turn 0): tell Ana\nNext steps:\n- look"
    assert shown[2][2]["content"] == "Next steps:\n- look"
    [added, settled] = records(entries, "obligation")
    assert (added.facts["event"], added.content) == ("added", {"text": "tell Ana"})
    assert (settled.facts["event"], settled.facts["settled_by"], settled.facts["turn"]) == ("settled", "turn:1", 1)


@pytest.mark.promise("A10")
async def test_an_answer_with_open_obligations_comes_back_once_and_may_then_leave_them(make: Make) -> None:
    spec = planner()
    world = await make(spec)
    world.decide({"tool_calls": [plan(add=["a", "b"])]}, {"answer": "done"}, {"answer": "still done"})
    result = await world.run(spec, "go")
    assert (result.value, result.usage.steps) == ("still done", 3)
    assert result.facts["open_obligations"] == ["b1", "b2"]
    told = (await prompts(world, result.run_id))[2][-1]
    assert told["role"] == "user" and "Still open:\n- b1: a\n- b2: b\n" in told["content"]
    entries = await world.entries(result.run_id)
    assert [note.facts["event"] for note in records(entries, "obligation")][2:] == ["left_open", "left_open"]
    assert [(n.facts["what"], n.facts["ok"]) for n in records(entries, "validation")] == [
        ("output", True),
        ("obligations", False),
        ("output", True),
    ]


@pytest.mark.promise("A10")
async def test_an_answer_that_settles_everything_in_the_same_turn_is_taken_at_once(make: Make) -> None:
    spec = planner(output=Finding)
    world = await make(spec)
    answer = {"answer": "hot", "quote": "word 1"}
    world.decide(
        calls("look", number=1), {"tool_calls": [plan(add=["a"])]}, {"tool_calls": [plan(done=["b1"], answer=answer)]}
    )
    result = await world.run(spec, "go")
    assert result.value == answer and result.facts == {"confidence": 1.0, "turns": 3, "open_obligations": []}


@pytest.mark.promise("A10", "A3")
async def test_a_plan_that_cannot_be_taken_up_changes_nothing_and_says_why(make: Make) -> None:
    spec = planner()
    world = await make(spec)
    world.decide(
        {"tool_calls": [plan(add=["a"])]},
        {"tool_calls": [plan(done=["b7"], add=["lost?"])]},
        {"tool_calls": [plan(add=[f"n{n}" for n in range(40)])]},
        {"tool_calls": [plan(add="no list")]},
        {"tool_calls": [plan(done=["b9"], answer="over")]},
        {"tool_calls": [plan(done=["b1"], answer="over")]},
    )
    result = await world.run(spec, "go")
    assert (result.value, result.facts["open_obligations"]) == ("over", [])
    shown = [prompt[-1]["content"] for prompt in await prompts(world, result.run_id)]
    assert "no open obligation 'b7'; open are: b1" in shown[2]
    assert "more than 32 open obligations" in shown[3]
    assert "plan needs a list of texts as 'add'" in shown[4]
    assert "no open obligation 'b9'" in shown[5]
    assert [item.id for item in states(await world.entries(result.run_id))[-1].obligations] == ["b1"]


@pytest.mark.promise("C4", "A10")
async def test_a_write_nobody_saw_end_is_an_observation_and_owed_before_it_ends_the_run(make_on_each: Make) -> None:
    spec = planner()
    world = await make_on_each(spec)
    both = [{"name": "launch", "arguments": {"target": "moon"}}, {"name": "look", "arguments": {"number": 1}}]
    world.decide({"tool_calls": both})
    result = await world.run(spec, "go")
    assert ended(result) == ("failed", "side_effect_unknown") and result.facts["open_obligations"] == ["b1"]
    entries = await world.entries(result.run_id)
    seen = records(entries, "observation")
    assert [(note.facts["id"], note.facts["kind"], note.facts["result"]) for note in seen] == [
        ("o1", "tool", "unknown"),
        ("o2", "tool", "ok"),
    ]
    assert "must not be repeated" in seen[0].content["data"]["unknown"]
    [added, left] = records(entries, "obligation")
    assert (added.facts["by"], added.facts["event"], left.facts["event"]) == ("runtime", "added", "left_open")
    assert added.content == {"text": "Find out whether launch took effect (o1)."}
    assert entries.index(left) < len(entries) - 1 and entries[-1].kind == "finished"


@pytest.mark.promise("A10")
async def test_agents_that_cannot_plan_are_never_held_up(make: Make) -> None:
    spec = agent("plain", "Talk.", tools=[look, launch])
    policy = '@id("all") permit (principal, action, resource);\n@id("ask") @outcome("approval") @reason("a yes") '
    world = await make(spec, policy=policy + 'forbid (principal, action, resource == Capability::"launch");')
    world.decide(calls("launch", target="moon"), {"answer": "then not"})
    run_id = await world.submit(spec, "go")
    await world.settle()
    [request] = await world.store.requests()
    await world.store.resolve(request.request_id, "denied", "bob", world.clock())
    result = await world.finish(run_id)
    assert (result.value, result.usage.steps) == ("then not", 2)
    assert result.facts["open_obligations"] == ["b1"]
    assert all(
        "plan" not in intent.facts["tools"] for intent in await world.intents(run_id) if intent.effect == "model"
    )


# -- compaction ----------------------------------------------------------------------------------------------


@pytest.mark.promise("A10", "G1")
@pytest.mark.parametrize(("given", "at", "keep"), [({}, 0.8, 4), ({"compaction": Compaction(0.5, 2)}, 0.5, 2)])
async def test_a_history_is_shortened_at_its_share_of_the_limit(
    make: Make, given: dict[str, Any], at: float, keep: int
) -> None:
    spec = agent("reader", "Read.", tools=[look], output=Finding, budget=LONG, **given)
    world = await make(spec)
    world.use(context_tokens=2_000)
    world.decide(*(calls("look", number=n) for n in range(20)), {"answer": {"answer": "x", "quote": "word 0 word 0"}})
    result = await world.run(spec, "go")
    assert result.facts["confidence"] == 1.0, "what was shortened away still counts as evidence"
    entries = await world.entries(result.run_id)
    notes = records(entries, "compaction")
    assert [note.facts["number"] for note in notes] == list(range(1, len(notes) + 1)) and notes
    for note in notes:
        assert note.facts["tokens_before"] > at * 2_000 >= note.facts["tokens_after"]
        assert note.facts["last_turn"] == note.facts["turn"] - keep - 1
    assert not records(entries, "reset")
    after = (await prompts(world, result.run_id))[notes[0].facts["turn"]]
    assert sum(message["role"] == "tool" for message in after) == keep
    told = after[2]["content"].split("\n")
    last = notes[0].facts["last_turn"]
    assert told[0] == f"Turns 0 to {last} in short:" and " x look (ok), the last in turn " in told[1]
    assert any(line.startswith(f"- turn {last} look(number={last}) -> o{last + 1}: ") for line in told)
    [context] = [n for n in records(entries, "context") if n.facts["turn"] == notes[0].facts["turn"]]
    [item] = [item for item in context.facts["items"] if item["kind"] == "state"]
    assert (item["source"], item["included"]) == ("recap:1", True)


@pytest.mark.promise("G1")
async def test_without_compaction_the_packet_leaves_out_what_is_old(make: Make) -> None:
    spec = agent("reader", "Read.", tools=[look], budget=LONG, compaction=None)
    world = await make(spec)
    world.use(context_tokens=2_000)
    world.decide(*(calls("look", number=n) for n in range(20)), {"answer": "x"})
    result = await world.run(spec, "go")
    entries = await world.entries(result.run_id)
    assert result.ok and not records(entries, "compaction")
    assert len(states(entries)[-1].conversation) == 40
    assert max(note.facts["tokens"] for note in records(entries, "context")) <= 2_000


# -- reset ---------------------------------------------------------------------------------------------------


@pytest.mark.promise("A10")
async def test_a_model_may_begin_afresh_with_notes_where_it_is_allowed_to(make_on_each: Make) -> None:
    spec = planner(reset=Reset(by_model=True))
    world = await make_on_each(spec)
    afresh = {"tool_calls": [{"name": "reset", "arguments": {"notes": "d1 is dull", "next": ["try d2"]}}]}
    world.decide(
        calls("look", number=1),
        {"tool_calls": [plan(add=["a"])]},
        afresh,
        {"tool_calls": [plan(done=["b1"], answer="ok")]},
    )
    result = await world.run(spec, "go")
    assert result.value == "ok" and result.usage.steps == 4
    entries = await world.entries(result.run_id)
    [note] = records(entries, "reset")
    assert (note.facts["by"], note.facts["turn"], note.facts["obligations"]) == ("model", 2, 1)
    written = Artifact.model_validate(note.content)
    assert (written.kind, written.notes, written.next_steps) == ("reset", "d1 is dull", ("try d2",))
    assert written.recap is not None and [deed.observation for deed in written.recap.deeds] == ["o1", "o2"]
    assert written.recap.evidence[0].document == "d1"
    assert [entry.name for entry in entries if isinstance(entry, Checkpoint)] == ["turn", "turn", "reset"]
    [_, opening, begun] = (await prompts(world, result.run_id))[3]
    assert opening["content"] == "go" and "Notes: d1 is dull" in begun["content"]
    assert "Still owed:\n- b1 (since turn 1): a\nNext steps:\n- try d2" in begun["content"]
    fresh = states(entries)[-1]
    assert (fresh.turn, fresh.resets, fresh.conversation, fresh.next_id()) == (3, 1, (), "o3")
    assert any("word 1" in text for text in fresh.evidence())


@pytest.mark.promise("A10", "A3")
async def test_a_reset_that_is_not_allowed_is_no_decision(make: Make) -> None:
    spec = planner(reset=Reset(turns=90))
    world = await make(spec)
    world.decide({"tool_calls": [{"name": "reset", "arguments": {"notes": "x"}}]}, {"answer": "fine"})
    result = await world.run(spec, "go")
    assert result.value == "fine" and not records(await world.entries(result.run_id), "reset")
    assert "there is no tool 'reset'" in str((await prompts(world, result.run_id))[1])


@pytest.mark.promise("A10")
async def test_a_reset_may_follow_a_number_of_compactions(make: Make) -> None:
    spec = agent("reader", "Read.", tools=[look], budget=LONG, reset=Reset(compactions=2))
    world = await make(spec)
    world.use(context_tokens=2_000)
    world.decide(*(calls("look", number=n) for n in range(40)), {"answer": "x"})
    result = await world.run(spec, "go")
    entries = await world.entries(result.run_id)
    order = [note.topic for note in entries if isinstance(note, Record) and note.topic in ("compaction", "reset")]
    assert result.ok and order[:6] == ["compaction", "compaction", "reset"] * 2
    made = [note.content for note in records(entries, "decision") if note.facts["type"] == "reset"]
    assert made and made[0] == {"type": "reset", "by": "policy"}


# -- handoff -------------------------------------------------------------------------------------------------


@pytest.mark.promise("A10")
async def test_what_was_seen_and_is_owed_goes_along_with_a_handoff(make: Make) -> None:
    first, second = planner("first", handoffs=["second"]), planner("second", output=Finding)
    world = await make(first, second)
    answer = {"answer": "a", "quote": "word 1 word 1"}
    passed = {"handoff": "second", "artifact": {"mood": "good"}}
    world.script(
        {
            "match": {"agent": "first"},
            "decisions": [calls("look", number=1), {"tool_calls": [plan(add=["a"])]}, passed],
        },
        {
            "match": {"agent": "second"},
            "decisions": [{"tool_calls": [plan(add=["c"])]}, {"tool_calls": [plan(done=["b1", "b2"], answer=answer)]}],
        },
    )
    result = await world.run(first, {"question": "why?", "for": "Ana"})
    assert ended(result) == ("completed", "handoff") and result.value == answer
    assert result.facts == {"to": "second", "handed_over": ["b1"]}
    [note] = records(await world.entries(result.run_id), "handoff")
    written = Artifact.model_validate(note.content)
    assert (written.kind, written.origin.agent, written.origin.turn) == ("handoff", "first", 2)
    assert written.input == {"question": "why?", "for": "Ana"} and written.artifact == {"mood": "good"}
    assert [item.id for item in written.obligations] == ["b1"] and note.facts["obligations"] == 1

    [child] = [run for run in await world.store.list_runs(query()) if run.target == "second"]
    shown = (await prompts(world, child.run_id))[0]
    assert shown[1]["content"] == "why?"
    assert shown[2]["content"].startswith("first handed this work over to you after turn 2.\nHanded over: ")
    assert "- turn 0 look(number=1) -> o1:" in shown[2]["content"] and "b1 (since turn 1): a" in shown[2]["content"]
    ended_child = (await world.entries(child.run_id))[-1]
    assert ended_child.kind == "finished" and ended_child.facts == {
        "confidence": 1.0,
        "turns": 2,
        "open_obligations": [],
    }


def query() -> Any:
    from retinue.runs.control import RunQuery  # noqa: PLC0415

    return RunQuery(limit=10)


# -- definitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Compaction(at=0.0), "share of the context limit"),
        (lambda: Compaction(at=1.5), "share of the context limit"),
        (lambda: Compaction(keep_turns=0), "keep at least 1 turn"),
        (lambda: Reset(), "never happens"),
        (lambda: Reset(turns=0), "give 1 or more"),
        (lambda: Reset(compactions=-1), "give 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(made: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        made()


def test_what_shapes_the_context_is_part_of_a_version_unless_it_is_the_default() -> None:
    plain = agent("a", "x").version
    assert agent("a", "x", compaction=Compaction()).version == plain
    others = {planner().version, planner(reset=Reset(turns=9)).version, planner(compaction=None).version}
    assert len(others) == 3 and plain not in others


def test_a_state_recorded_before_is_read_as_it_was() -> None:
    old = {
        "goal": "g",
        "turn": 1,
        "corrections": 0,
        "messages": [{"role": "tool", "content": "c", "tool_calls": [], "tool_call_id": "1", "name": "look"}],
        "observed": [{"id": "o1", "kind": "tool", "result": "ok", "name": "look", "call_id": "1", "data": None}],
    }
    state = AgentState.model_validate(old)
    assert (state.next_id(), state.conversation, state.recap) == ("o2", state.messages, None)
    assert AgentState.model_validate(state.model_dump(mode="json")) == state


async def test_a_run_stops_with_what_it_owes_in_its_facts(make: Make) -> None:
    spec = planner()
    world = await make(spec)
    world.decide({"tool_calls": [plan(add=["a"])]}, {"stop": "no way"})
    result = await world.run(spec, "go")
    assert result.reason is StopReason.blocked and result.facts["open_obligations"] == ["b1"]
    noted = records(await world.entries(result.run_id), "obligation")
    assert [note.facts["event"] for note in noted] == ["added", "left_open"]


async def test_what_the_last_turn_settled_is_not_called_open_when_the_run_fails(make: Make) -> None:
    spec = planner(output=Finding, corrections=0)
    world = await make(spec)
    world.decide({"tool_calls": [plan(add=["a"])]}, {"tool_calls": [plan(done=["b1"], answer="no finding")]})
    result = await world.run(spec, "go")
    assert result.reason is StopReason.output_rejected and result.facts == {"open_obligations": []}


@pytest.mark.promise("A10", "C6")
async def test_a_crash_right_after_a_compaction_or_a_reset_repeats_neither(make_on_each: Make) -> None:
    spec = agent("reader", "Read.", tools=[look], budget=LONG, reset=Reset(turns=9))
    world = await make_on_each(spec)
    world.use(context_tokens=1_200)
    turns = [costs(calls("look", number=n), "0.0001") for n in range(20)]
    world.decide(*({**turn, "latency_ms": 20} for turn in turns), {"answer": "x"})
    run_id = await world.submit(spec, "go")
    for topic, number in (("compaction", 1), ("reset", 1), ("compaction", 2), ("reset", 2)):
        await world.until_journaled(run_id, lambda found, t=topic, n=number: len(records(found, t)) >= n)
        await world.crash()
    assert (await world.finish(run_id)).value == "x"
    entries = await world.entries(run_id)
    assert [note.facts["number"] for note in records(entries, "reset")] == [1, 2]
    numbers = [note.facts["number"] for note in records(entries, "compaction")]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 2
    turns_told = [note.facts["turn"] for note in records(entries, "context")]
    assert turns_told == list(range(21)), "no turn was told twice"
