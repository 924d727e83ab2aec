"""Compaction, reset and handoff: each on record, each its own thing, none of them in anybody's way."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import calls, costs, ended
from tests.unit.runs.conftest import Make
from tests.unit.runs.planning import LONG, Finding, look, plan, planner, prompts, records, states

from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import Artifact
from retinue.runs.definitions import agent
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import Checkpoint, Record
from retinue.runs.options import Compaction, Reset

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
