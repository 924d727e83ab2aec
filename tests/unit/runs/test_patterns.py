"""Patterns: what each gives, what a failed branch looks like, and what is refused when one is composed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.doubles.worlds import World
from tests.unit.runs import desks
from tests.unit.runs.conftest import Make
from tests.unit.runs.desks import did, hold, worked

from retinue.runs.arrivals import Group
from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Budget, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import Workflow, agent, workflow
from retinue.runs.errors import InvalidInput, ReplayMismatch
from retinue.runs.joins import Join, best_effort, first_success, quorum
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


# -- parallel ------------------------------------------------------------------------------------------------


async def test_sections_are_one_group_of_different_targets(make_on_each: Make) -> None:
    mixed = parallel("mixed", {"a": desks.tech, "b": desks.report, "c": desks.billing})
    world = await make_on_each(mixed)
    result = await world.run(mixed, "x")
    assert result.value["sections"]["b"] == "draft from outline of x, polished"
    children = await world.store.list_runs(RunQuery(parent_run_id=result.run_id))
    assert sorted(child.target for child in children) == ["billing", "report", "tech"]
    [group] = [e.facts for e in await world.outcomes(result.run_id) if e.effect == "children"]
    assert (group["total"], group["ok"]) == (3, 3)


async def test_a_failed_section_is_a_value_beside_the_others(make: Make) -> None:
    world = await make(desks.review)
    result = await world.run(desks.review, {"security": "s", "style": "bad style", "tests": "t"})
    assert result.value == {
        "sections": {"security": "s done", "tests": "t done"},
        "failures": {"style": {"reason": "tool_failure", "message": "step work raised ValueError: no bad style"}},
    }


async def test_when_every_section_failed_the_run_fails_with_the_first_reason(make: Make) -> None:
    world = await make(desks.review)
    result = await world.run(desks.review, {"security": "bad s", "style": "bad style", "tests": "bad t"})
    assert result.reason is StopReason.tool_failure
    assert result.error is not None
    assert "0 of 3 completed, 1 needed (security: step work raised ValueError: no bad s; style:" in result.error.message


PICK = {name: (lambda given, name=name: given[name]) for name in ("a", "b", "c")}
THREE = dict.fromkeys(PICK, desks.clerk)


@pytest.mark.promise("B2")
@pytest.mark.parametrize(("join", "let_go", "ended"), [(first_success(), "b", ["b"]), (quorum(2), "bc", ["b", "c"])])
async def test_a_join_of_sections_goes_on_early_and_cancels_the_rest(
    make_on_each: Make, join: Join, let_go: str, ended: list[str]
) -> None:
    joined = parallel("joined", THREE, join=join, select=PICK)
    world = await make_on_each(joined)
    hold("a1", "b1", "c1")
    run_id = await world.submit(joined, {"a": "a1", "b": "b1", "c": "c1"})
    await world.until(lambda: len(worked) == 3)
    for name in let_go:
        desks.held[f"{name}1"].set()
    await world.until_journaled(run_id, lambda es: es[-1].kind == "finished")
    result = await world.finish(run_id)
    assert list(result.value["sections"]) == ended
    missing = {"reason": "canceled", "message": "had not ended when the join went on"}
    assert result.value["failures"] == {name: missing for name in "abc" if name not in ended}
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    assert sorted(child.status for child in children) == ["canceled"] * (3 - len(ended)) + ["completed"] * len(ended)


@pytest.mark.promise("B2")
async def test_a_quorum_that_failures_put_out_of_reach_fails_and_lists_them(make: Make) -> None:
    joined = parallel("joined", THREE, join=quorum(2), select=PICK)
    result = await (await make(joined)).run(joined, {"a": "bad a", "b": "b1", "c": "bad c"})
    assert result.reason is StopReason.tool_failure
    assert result.error is not None and "completed, 2 needed (" in result.error.message


@pytest.mark.promise("B2")
async def test_first_success_passes_over_a_failure(make: Make) -> None:
    joined = parallel("joined", THREE, join=first_success(), select=PICK)
    world = await make(joined)
    hold("b1", "c1")
    run_id = await world.submit(joined, {"a": "bad a", "b": "b1", "c": "c1"})
    await world.until(lambda: len(worked) == 3)
    await world.until_journaled(run_id, lambda es: es[-1].kind == "parked")
    desks.held["c1"].set()
    assert (await world.finish(run_id)).value["sections"] == {"c": "c1 done"}


@pytest.mark.promise("B2")
async def test_best_effort_goes_on_at_its_deadline_with_partial_results(make_on_each: Make) -> None:
    joined = parallel("joined", THREE, join=best_effort("90s"), select=PICK)
    world = await make_on_each(joined)
    hold("c1")
    run_id = await world.submit(joined, {"a": "a1", "b": "bad b", "c": "c1"})
    await world.until_journaled(run_id, lambda es: es[-1].kind == "parked")
    await world.until(lambda: len(worked) == 3)
    await ended_below(world, run_id, 2)
    world.clock.advance(91)
    await world.store.tend(world.host, world.clock.now, 3_600.0)
    result = await world.finish(run_id)
    assert result.value["sections"] == {"a": "a1 done"}
    assert {name: one["reason"] for name, one in result.value["failures"].items()} == {
        "b": "tool_failure",
        "c": "canceled",
    }


async def ended_below(world: World, run_id: str, count: int) -> None:
    """Drive until that many children have ended."""
    children = [child.run_id for child in await world.store.list_runs(RunQuery(parent_run_id=run_id))]
    ended = 0
    while ended < count:
        turns = iter((False, True))
        await world.until(lambda turns=turns: next(turns))  # type: ignore[misc]
        journals = [await world.entries(child) for child in children]
        ended = sum(journal[-1].kind == "finished" for journal in journals)


async def test_combine_may_be_a_function_of_the_branches_or_a_target(make: Make) -> None:
    def worst(branches: dict[str, Branch]) -> str:
        return ", ".join(name for name, branch in branches.items() if not branch.ok)

    by_function = parallel("by_function", THREE, select=PICK, combine=worst)
    by_target = parallel("by_target", THREE, select=PICK, combine=whole)
    world = await make(by_function, by_target)
    given = {"a": "bad a", "b": "b1", "c": "bad c"}
    assert (await world.run(by_function, given)).value == "a, c"
    seen = (await world.run(by_target, given)).value
    assert (seen["input"], seen["sections"], list(seen["failures"])) == (given, {"b": "b1 done"}, ["a", "c"])


@workflow
async def whole(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    return given


# -- vote ----------------------------------------------------------------------------------------------------


@pytest.mark.promise("B2")
async def test_a_vote_stops_as_soon_as_enough_agree_and_cancels_the_rest(make_on_each: Make) -> None:
    world = await make_on_each(desks.moderate)
    hold("d no", "e yes")
    run_id = await world.submit(desks.moderate, ["a yes", "b yes", "c yes", "d no", "e yes"])
    await world.until(lambda: len(worked) == 5)
    result = await world.finish(run_id)
    assert result.value == {
        "winner": "yes",
        "value": {"vote": "yes", "why": "a yes"},
        "votes": {"yes": 3},
        "dissent": [],
        "failed": {},
        "unheard": 2,
    }
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    assert sorted(child.status for child in children) == ["canceled"] * 2 + ["completed"] * 3


@pytest.mark.promise("B2")
async def test_a_vote_stops_when_no_agreement_is_possible_any_more(make_on_each: Make) -> None:
    world = await make_on_each(desks.moderate)
    hold("e yes")
    run_id = await world.submit(desks.moderate, ["a yes", "b no", "c maybe", "bad d", "e yes"])
    await world.until(lambda: len(worked) == 5)
    result = await world.finish(run_id)
    assert (result.value["winner"], result.value["unheard"]) == (None, 1)
    assert result.value["votes"] == {"yes": 1, "no": 1, "maybe": 1}
    assert result.value["failed"] == {"3": "step work raised ValueError: no bad d"}
    assert await said(world, run_id, "vote") == [{"decided": False, "heard": 4, "count": 5}]


async def test_dissent_names_who_voted_for_what(make: Make) -> None:
    strict = vote("strict", desks.judge, count=3, need=3, by=lambda value: value["vote"] == "yes", vary=nth)
    lax = vote("lax", desks.judge, count=3, need=2, by="vote", vary=nth)
    world = await make(strict, lax)
    hold("c yes")
    run_id = await world.submit(lax, ["a yes", "b no", "c yes"])
    await world.until_journaled(run_id, lambda es: es[-1].kind == "parked")
    await ended_below(world, run_id, 2)
    desks.held["c yes"].set()
    result = await world.finish(run_id)
    assert result.value["dissent"] == [{"index": 1, "vote": "no", "value": {"vote": "no", "why": "b no"}}]
    assert (await world.run(strict, ["a yes", "b yes", "c yes"])).value["winner"] == "true"


def nth(given: list[str], index: int) -> str:
    return given[index]


async def test_a_vote_without_a_single_vote_fails(make: Make) -> None:
    result = await (await make(desks.moderate)).run(desks.moderate, ["bad a", "bad b", "bad c", "bad d", "bad e"])
    assert result.reason is StopReason.tool_failure
    assert result.error is not None and "vote 'moderate': 0 of" in result.error.message


async def test_a_plain_vote_gives_every_judge_the_same_input(make: Make) -> None:
    same = vote("same", desks.judge, count=3)
    result = await (await make(same)).run(same, "all yes")
    assert result.value["winner"] == '{"vote":"yes","why":"all yes"}'
    assert {what for _, what in worked} == {"all yes"}


# -- orchestrate ---------------------------------------------------------------------------------------------


async def test_the_synthesizer_gets_question_findings_and_failures(make: Make) -> None:
    world = await make(desks.research)
    result = await world.run(desks.research, "one, bad two")
    assert result.value == {
        "question": "one, bad two",
        "findings": [{"part": "one", "output": "one done"}],
        "failures": [
            {"part": "bad two", "reason": "tool_failure", "message": "step work raised ValueError: no bad two"}
        ],
    }
    assert await checkpoints(world, result.run_id) == ["planned", "joined"]


@pytest.mark.promise("B2")
async def test_workers_that_miss_the_deadline_are_failures_and_width_holds(make_on_each: Make) -> None:
    timed = orchestrate("timed", desks.planner, desks.clerk, desks.synthesizer, join=best_effort("90s"), width=2)
    world = await make_on_each(timed)
    hold("slow", "slower")
    run_id = await world.submit(timed, "quick, slow, slower, never")
    await world.until(lambda: {what for _, what in worked} >= {"quick", "slow", "slower"})
    await world.until_journaled(run_id, lambda es: es[-1].kind == "parked")
    world.clock.advance(91)
    await world.store.tend(world.host, world.clock.now, 3_600.0)
    result = await world.finish(run_id)
    assert [one["part"] for one in result.value["findings"]] == ["quick"]
    assert [one["part"] for one in result.value["failures"]] == ["slow", "slower", "never"]
    assert "never" not in {what for _, what in worked}


async def test_an_orchestration_without_a_finding_fails_and_one_without_parts_does_not(make: Make) -> None:
    empty = orchestrate("empty", nothing, desks.clerk, desks.synthesizer)
    world = await make(desks.research, empty)
    failed = await world.run(desks.research, "bad one, bad two")
    assert (failed.reason, did("synthesizer")) == (StopReason.tool_failure, [])
    assert (await world.run(empty, "why")).value == {"question": "why", "findings": [], "failures": []}


@workflow
async def nothing(ctx: Context, question: str) -> list[str]:
    return []


async def test_a_plan_that_is_no_list_is_refused(make: Make) -> None:
    wrong = orchestrate("wrong", desks.outline, desks.clerk, desks.synthesizer)
    result = await (await make(wrong)).run(wrong, "why")
    assert result.reason is StopReason.output_rejected
    assert result.error is not None and "let its output be a list, or have one in 'parts'" in result.error.message


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
    assert given["from"] == "refunds" and given["artifact"] == {"order": 7, "sum": 30}


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
    last = agent("last", "Answer.", follow_ups=[whole])
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


async def test_the_join_state_of_sections_counts_while_they_run(make_on_each: Make) -> None:
    world = await make_on_each(parallel("counted", THREE, select=PICK))
    hold("c1")
    run_id = await world.submit("counted", {"a": "a1", "b": "bad b", "c": "c1"})
    await world.until(lambda: len(worked) == 3)
    await ended_below(world, run_id, 2)
    group: Group = (await world.store.look(run_id)).groups["0/counted#0"]
    assert (group.total, group.ok, group.failed, group.pending) == (3, 1, 1, 1)


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
