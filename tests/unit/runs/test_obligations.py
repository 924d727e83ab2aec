"""What an agent owes: planned or found owing, shown until it is settled, told when the run ends."""

from __future__ import annotations

import pytest
from tests.doubles.worlds import calls, ended
from tests.unit.runs.conftest import Make
from tests.unit.runs.planning import Finding, launch, look, plan, planner, prompts, records, states

from retinue.runs.contracts import StopReason
from retinue.runs.definitions import agent


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
