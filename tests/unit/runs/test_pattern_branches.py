"""Patterns that fan out: what a failed branch looks like, and when enough have been heard."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import World
from tests.unit.runs import desks
from tests.unit.runs.conftest import Make
from tests.unit.runs.desks import did, hold, worked

from retinue.runs.arrivals import Group
from retinue.runs.context import Context
from retinue.runs.contracts import Branch, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import workflow
from retinue.runs.joins import Join, best_effort, first_success, quorum
from retinue.runs.patterns.orchestrate import orchestrate
from retinue.runs.patterns.parallel import parallel
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
    by_target = parallel("by_target", THREE, select=PICK, combine=desks.whole)
    world = await make(by_function, by_target)
    given = {"a": "bad a", "b": "b1", "c": "bad c"}
    assert (await world.run(by_function, given)).value == "a, c"
    seen = (await world.run(by_target, given)).value
    assert (seen["input"], seen["sections"], list(seen["failures"])) == (given, {"b": "b1 done"}, ["a", "c"])


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


async def test_the_join_state_of_sections_counts_while_they_run(make_on_each: Make) -> None:
    world = await make_on_each(parallel("counted", THREE, select=PICK))
    hold("c1")
    run_id = await world.submit("counted", {"a": "a1", "b": "bad b", "c": "c1"})
    await world.until(lambda: len(worked) == 3)
    await ended_below(world, run_id, 2)
    group: Group = (await world.store.look(run_id)).groups["0/counted#0"]
    assert (group.total, group.ok, group.failed, group.pending) == (3, 1, 1, 1)
