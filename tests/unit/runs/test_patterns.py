"""Patterns: what each gives, what a failed branch looks like, and what is refused when one is composed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.doubles.worlds import World
from tests.unit.runs import desks
from tests.unit.runs.conftest import Make
from tests.unit.runs.desks import did, hold

from retinue.runs.context import Context
from retinue.runs.contracts import Budget, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import Workflow, agent, workflow
from retinue.runs.errors import InvalidInput, ReplayMismatch
from retinue.runs.patterns.chain import chain
from retinue.runs.patterns.handoff import handoff
from retinue.runs.patterns.orchestrate import orchestrate
from retinue.runs.patterns.parallel import parallel
from retinue.runs.patterns.refine import refine
from retinue.runs.patterns.route import route
from retinue.runs.patterns.vote import vote

pytestmark = pytest.mark.promise("B1")


@pytest.fixture(autouse=True)
def fresh() -> None:
    desks.forget()


async def checkpoints(world: World, run_id: str) -> list[str]:
    return [entry.name for entry in await world.entries(run_id) if entry.kind == "checkpoint"]


async def said(world: World, run_id: str, topic: str) -> list[dict[str, Any]]:
    entries = await world.entries(run_id)
    return [entry.facts for entry in entries if entry.kind == "record" and entry.topic == topic]


@pytest.mark.parametrize("kind", desks.PATTERNS)
async def test_a_pattern_passes_the_boundaries_it_declares_and_no_others(make_on_each: Make, kind: str) -> None:
    pattern, given = desks.PATTERNS[kind]
    world = await make_on_each(pattern)
    desks.script(world)
    result = await world.run(pattern, given)
    assert result.ok, result.error
    assert set(await checkpoints(world, result.run_id)) == {name for name, _ in pattern.boundaries}
    [stage] = [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "stage"]
    assert stage.facts["boundaries"] == [list(boundary) for boundary in pattern.boundaries]


async def test_a_pattern_is_run_nested_and_mapped_over_like_any_workflow(make: Make) -> None:
    both = parallel("both", {"report": desks.report, "tech": desks.tech})
    nested = chain("nested", desks.outline, both)

    @workflow
    async def several(ctx: Context, topics: list[str]) -> list[Any]:
        return [branch.value for branch in await ctx.map(nested, topics)]

    world = await make(several, nested)
    result = await world.run(several, ["tea", "ink"])
    assert [found["sections"]["report"] for found in result.value] == [
        "draft from outline of outline of tea, polished",
        "draft from outline of outline of ink, polished",
    ]


# -- chain ---------------------------------------------------------------------------------------------------


def short(text: str) -> str | None:
    return None if len(text) < 15 else f"{len(text)} characters"


async def test_a_check_stops_a_chain_with_its_reason(make: Make) -> None:
    checked = chain("checked", desks.outline, desks.draft, checks={"outline": short})
    world = await make(checked)
    assert (await world.run(checked, "tea")).value == "draft from outline of tea"
    stopped = await world.run(checked, "a long topic")
    assert stopped.reason is StopReason.output_rejected
    assert stopped.error is not None
    assert stopped.error.message == "chain 'checked' stopped after 'outline': 23 characters"
    assert (did("draft"), await checkpoints(world, stopped.run_id)) == (["outline of tea"], [])


async def test_a_stage_that_fails_ends_the_chain_with_its_reason(make: Make) -> None:
    failing = chain("failing", desks.clerk, desks.polish)
    result = await (await make(failing)).run(failing, "bad text")
    assert (result.reason, did("polish")) == (StopReason.tool_failure, [])
    assert result.error is not None and "clerk: step work raised ValueError: no bad text" in result.error.message


async def test_a_chain_may_have_a_stage_twice(make: Make) -> None:
    twice = chain("twice", desks.polish, desks.polish, desks.polish)
    world = await make(twice)
    result = await world.run(twice, "text")
    assert result.value == "text, polished, polished, polished"
    assert await checkpoints(world, result.run_id) == ["polish", "polish 2"]


async def test_a_chain_that_lost_its_next_stage_says_so(make: Make) -> None:
    world = await make(desks.report)
    hold("draft:outline of tea")
    run_id = await world.submit("report", "tea")
    await world.until(lambda: bool(did("draft")))
    await world.crash()
    desks.forget()
    world.redefine(chain("report", desks.outline, desks.polish), desks.draft)
    result = await world.finish(run_id)
    assert result.reason is StopReason.replay_mismatch
    assert result.error is not None and "the journal continues with step 1/draft#0" in result.error.message
    with pytest.raises(ReplayMismatch, match="goes on with 'gone', which the pattern no longer has"):
        await desks.report(None, "tea", {"next": "gone", "value": "x"})


# -- route ---------------------------------------------------------------------------------------------------


async def test_the_choice_of_a_route_is_recorded_and_passed_on(make: Make) -> None:
    def with_choice(text: str, choice: Any) -> str:
        return f"[{choice}] {text}"

    told = route("told", desks.sort_out, {"billing": desks.billing, "tech": desks.tech}, prepare=with_choice)
    world = await make(told)
    result = await world.run(told, " TECH : no signal")
    assert result.value == "tech read [ TECH ]  TECH : no signal"
    assert await said(world, result.run_id, "route") == [{"choice": "tech", "target": "tech"}]
    assert result.facts["route"] == "tech"


async def test_an_unknown_label_takes_the_default_or_ends_as_an_error(make: Make) -> None:
    lenient = route("lenient", desks.sort_out, {"tech": desks.tech}, default=desks.billing)
    world = await make(lenient, desks.support)
    assert (await world.run(lenient, "legal: help")).value == "billing read legal: help"
    result = await world.run(desks.support, "legal: help")
    assert result.reason is StopReason.output_rejected
    assert result.error is not None
    assert "the classifier said 'legal'; the routes are billing, tech" in result.error.message


async def test_a_classifier_may_be_a_function_or_answer_with_a_field(make: Make) -> None:
    by_length = route("by_length", lambda text: "tech" if len(text) > 5 else "billing", desks_ways())
    typed = agent("typed", "Choose.", output=dict[str, str])
    by_field = route("by_field", typed, desks_ways())
    world = await make(by_length, by_field)
    world.decide({"answer": {"route": "billing", "why": "money"}})
    assert (await world.run(by_length, "long text")).value == "tech read long text"
    assert (await world.run(by_field, "short")).value == "billing read short"


def desks_ways() -> dict[str, Workflow]:
    return {"billing": desks.billing, "tech": desks.tech}


# -- refine --------------------------------------------------------------------------------------------------


async def test_refining_stops_when_the_critic_accepts(make: Make) -> None:
    world = await make(desks.essay)
    result = await world.run(desks.essay, "text")
    assert (result.value["draft"], result.value["stop"], result.value["rounds"]) == ("text++", "accepted", 2)
    assert did("writer") == ["nothing", "text+"]
    assert [facts["accepted"] for facts in await said(world, result.run_id, "refine")] == [False, True]


@workflow
async def moody(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Likes the second draft best; the third breaks it when it is told to."""
    pluses = given["draft"].count("+")
    if given["task"] == "fragile" and pluses == 3:
        await ctx.step(desks.work, ctx.request.run_id, "bad mood")
    return {"score": {1: 0.2, 2: 0.9, 3: 0.5}[pluses]}


async def test_refining_keeps_the_best_when_its_rounds_are_over(make: Make) -> None:
    picky = refine("picky", desks.writer, moody, accept=0.95)
    lax = refine("lax", desks.writer, moody, accept=lambda critique: critique["score"] > 0.1)
    world = await make(picky, lax)
    value = (await world.run(picky, "text")).value
    assert (value["draft"], value["best_round"], value["rounds"], value["stop"]) == ("text++", 2, 3, "rounds")
    assert (await world.run(lax, "text")).value["rounds"] == 1


async def test_a_failure_in_a_later_round_gives_the_best_so_far_and_in_the_first_ends_the_run(make: Make) -> None:
    picky = refine("picky", desks.writer, moody, accept=0.95)
    broken = refine("broken", desks.clerk, moody)
    world = await make(picky, broken)
    value = (await world.run(picky, "fragile")).value
    assert (value["draft"], value["stop"], value["rounds"]) == ("fragile++", "failed", 3)
    assert value["problem"] == "moody: step work raised ValueError: no bad mood"
    assert not (await world.run(broken, "text")).ok


# -- handoff -------------------------------------------------------------------------------------------------


async def test_a_desk_passes_the_run_on_with_the_artifact(make_on_each: Make) -> None:
    world = await make_on_each(desks.desk)
    desks.script(world)
    result = await world.run(desks.desk, "money back")
    assert (result.value, result.facts["way"]) == ("granted", ["triage", "refunds", "boss"])
    children = await world.store.list_runs(RunQuery(root_run_id=result.run_id))
    depths = {child.target: child.depth for child in children}
    assert depths == {"desk": 0, "triage": 1, "refunds": 1, "boss": 1}
    last = next(child.run_id for child in children if child.target == "boss")
    given = (await world.entries(last))[0].content
    assert given["origin"]["agent"] == "refunds" and given["artifact"] == {"order": 7, "sum": 30}


async def test_a_cycle_is_stopped_and_names_the_way_it_took(make: Make) -> None:
    world = await make(desks.desk)
    world.script(
        {"match": {"agent": "triage"}, "decisions": [{"handoff": "refunds", "artifact": {}}]},
        {"match": {"agent": "refunds"}, "decisions": [{"handoff": "triage", "artifact": {}}]},
    )
    result = await world.run(desks.desk, "money back")
    assert result.reason is StopReason.invalid_decision
    assert result.error is not None
    assert "triage → refunds → triage is a cycle: triage has had the run once already" in result.error.message


async def test_hand_overs_are_bounded_also_where_returning_is_allowed(make: Make) -> None:
    patient = handoff("patient", desks.triage, desks.refunds, desks.boss, most=3, visits=9)
    world = await make(patient)
    world.script(
        {"match": {"agent": "triage"}, "decisions": [{"handoff": "refunds", "artifact": {}}]},
        {"match": {"agent": "refunds"}, "decisions": [{"handoff": "triage", "artifact": {}}]},
    )
    result = await world.run(patient, "money back")
    assert result.reason is StopReason.invalid_decision
    assert result.error is not None and "is more than 3 hand-overs" in result.error.message


async def test_an_agent_outside_a_desk_hands_off_as_before(make: Make) -> None:
    world = await make(desks.triage, desks.refunds, desks.boss)
    desks.script(world)
    result = await world.run(desks.triage, "money back")
    assert (result.value, result.reason) == ("granted", StopReason.handoff)


async def test_what_follows_a_member_is_no_member(make: Make) -> None:
    last = agent("last", "Answer.", follow_ups=[desks.whole])
    small = handoff("small", agent("first", "Begin.", handoffs=["last"]), last)
    world = await make(small)
    world.script(
        {"match": {"agent": "first"}, "decisions": [{"handoff": "last", "artifact": {}}]},
        {"match": {"agent": "last"}, "decisions": [{"answer": "done"}]},
    )
    result = await world.run(small, "go")
    await world.settle()
    children = await world.store.list_runs(RunQuery(root_run_id=result.run_id))
    relayed = {child.target: (await world.entries(child.run_id))[0].request.relayed for child in children}
    assert relayed == {"small": False, "first": True, "last": True, "whole": False}


async def test_a_member_that_fails_ends_the_desk_with_its_reason(make: Make) -> None:
    world = await make(desks.desk)
    world.script(
        {"match": {"agent": "triage"}, "decisions": [{"handoff": "refunds", "artifact": {}}]},
        {"match": {"agent": "refunds"}, "decisions": [{"stop": "no"}]},
    )
    result = await world.run(desks.desk, "money back")
    assert result.reason is StopReason.blocked
    assert result.error is not None and "handoff 'desk': refunds: the model stopped: no" in result.error.message


# -- all -----------------------------------------------------------------------------------------------------


async def test_each_section_has_the_budget_of_its_own_target(make: Make) -> None:
    small = agent("small", "S.", budget=Budget(steps=2, tokens=500))
    large = agent("large", "L.", budget=Budget(steps=9, tokens=5000))
    two = parallel("two", {"small": small, "large": large})
    world = await make(two)
    world.decide({"answer": "x"})
    result = await world.run(two, "go", budget=Budget(tokens=100_000))
    budgets = {}
    for child in await world.store.list_runs(RunQuery(parent_run_id=result.run_id)):
        request = (await world.entries(child.run_id))[0].request
        budgets[child.target] = (request.budget.steps, request.budget.tokens)
    assert budgets == {"small": (2, 500), "large": (9, 5000)}


async def nowhere(text: str) -> str:
    return text


REFUSED = {
    "the first argument is the name": lambda: chain("", desks.draft),
    "has no stages": lambda: chain("x"),
    "give an agent, a workflow, or the name": lambda: chain("x", 7),  # type: ignore[arg-type]
    "its stages are draft": lambda: chain("x", desks.draft, checks={"draught": short}),
    "unknown option 'size'": lambda: chain("x", desks.draft, size=3),  # type: ignore[call-arg]
    "is no plain function": lambda: chain("x", desks.draft, checks={"draft": nowhere}),  # type: ignore[dict-item]
    "has no routes": lambda: route("x", desks.sort_out, {}),
    "and a default as well": lambda: route("x", desks.sort_out, {"default": desks.tech}, default=desks.tech),
    "has no sections": lambda: parallel("x", {}),
    "the sections are a": lambda: parallel("x", {"a": desks.tech}, select={"b": short}),
    "count is 0": lambda: vote("x", desks.judge, count=0),
    "only 2 vote": lambda: vote("x", desks.judge, count=2, need=3),
    "width is 0": lambda: orchestrate("x", desks.planner, desks.clerk, desks.synthesizer, width=0),
    "rounds is 1.5": lambda: refine("x", desks.writer, desks.critic, rounds=1.5),  # type: ignore[arg-type]
    "which is no member": lambda: handoff("x", desks.triage),
    "most is 0": lambda: handoff("x", desks.boss, desks.triage, desks.refunds, most=0),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_when_it_is_composed(words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        REFUSED[words]()


def test_a_function_that_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"ctx\.random"):
        vote("x", desks.judge, vary=lambda given, index: random.random())


def test_a_workflow_of_ones_own_may_name_its_boundaries() -> None:
    @workflow(boundaries=[("page", "the page is stored")])
    async def pages(ctx: Context, count: int, state: Any) -> int:
        return count

    assert pages.boundaries == (("page", "the page is stored"),)
