"""The judge is judged: a good history passes, and each kind of bad one is found by the rule that is there for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.chaos.checker import RULES, Finding, check
from tests.chaos.history import Effect, GroupStory, History, RunStory, Wave, Written

from retinue.runs.contracts import Budget, ErrorInfo, RunRequest, Status, StopReason, Usage
from retinue.runs.identity import effect_key
from retinue.runs.journal import Accepted, AnyEntry, Attempt, Checkpoint, Finished, Intent, Leased, Outcome, Parked

PUT = "0/put#0"
FAN = "0/part#0"
STEP = "0/plain#0"
HOP = Usage(hops=1)


def request(run_id: str, **more: Any) -> RunRequest:
    return RunRequest(
        run_id=run_id,
        trace_id="t",
        span_id="s",
        tenant_id="acme",
        principal_id="ana",
        kind="workflow",
        target="w",
        target_version="1",
        root_run_id="p",
        effect_scope=run_id,
        budget=Budget(hops=3, tokens=100, usd="0.001"),
        **more,
    )


def leased(epoch: int, pid: int = 1) -> Leased:
    return Leased(at=0, epoch=epoch, host_id=f"h{epoch}", actor_id=None, pid=pid, node="n")


def wrote(key: str = PUT) -> Intent:
    facts = {"side_effect": "write"}
    return Intent(at=0, key=key, effect="call", name="put", digest="d", reserved=HOP, facts=facts)


def done(key: str = PUT, **more: Any) -> Outcome:
    return Outcome(at=0, key=key, effect="call", name="put", activation=1, **{"usage": HOP, **more})


def fan_out(join: dict[str, Any]) -> Intent:
    return Intent(at=0, key=FAN, effect="children", name="part", digest="d", facts={"join": join})


def fan_in(ok: int, failed: int, total: int) -> Outcome:
    facts = {"total": total, "ok": ok, "failed": failed, "rejected": 0}
    return Outcome(at=0, key=FAN, effect="children", name="part", activation=2, facts=facts)


def finished(reason: StopReason = StopReason.success, status: Status = Status.completed) -> Finished:
    return Finished(at=0, status=status, reason=reason, usage=HOP)


def story(run_id: str, *appends: tuple[int, int, tuple[AnyEntry, ...]], **more: Any) -> RunStory:
    """A run from (commit number, epoch, entries) of each append; positions and the record follow from them."""
    asked = more.pop("request", None) or request(run_id)
    written = [Written(more.pop("born", 1), 1, 0, (Accepted(at=0, request=asked),))]
    position = 1
    for seq, epoch, entries in appends:
        written.append(Written(seq, position + 1, epoch, entries))
        position += len(entries)
    known = {"status": "completed", "reason": "success", "usage": HOP, "epoch": written[-1].epoch}
    return RunStory(run_id=run_id, request=asked, position=position, written=tuple(written), **{**known, **more})


def part(index: int, seq: int, **more: Any) -> RunStory:
    asked = request(f"c{index}", input_id=f"r{index}")
    entries = (leased(1), finished())
    told = {"usage": Usage(), "born": 4, "request": asked, "group": ("p", FAN, index)}
    return story(f"c{index}", (seq, 1, entries), **{**told, **more})


JOURNAL = (
    (2, 1, (leased(1), wrote())),
    (3, 2, (leased(2, pid=2), done())),
    (4, 2, (fan_out({"policy": "all", "need": None}),)),
    (9, 3, (leased(3, pid=3), fan_in(2, 0, 2), finished())),
)
PARENT = story("p", *JOURNAL)
GROUP = GroupStory("p", FAN, total=2, pending=0, ok=2, failed=0)
EFFECT = Effect("idempotent", effect_key("p", PUT), "p", 1, 1, "x")
GOOD = History(
    runs={"p": PARENT, "c0": part(0, 6), "c1": part(1, 7)},
    groups=(GROUP,),
    effects=(EFFECT, replace(EFFECT, epoch=2, pid=2)),
    waves=(Wave("p", ("r0", "r1"), (("r0", "completed"), ("r1", "completed"))),),
    accepted=("p",),
    tables={"runs": ((3, "digest"), (3, "digest"))},
    now=1_000,
)


def with_run(run: RunStory, **more: Any) -> History:
    return replace(GOOD, runs={**GOOD.runs, run.run_id: run}, **more)


def alone(*appends: tuple[int, int, tuple[AnyEntry, ...]], **more: Any) -> History:
    """A history with one run, `q`, and nothing else."""
    effects = more.pop("effects", ())
    canceled = more.pop("canceled", ())
    return History(runs={"q": story("q", *appends, **more)}, effects=effects, canceled=canceled, now=1_000)


def line(contract: str, key: str = PUT, epoch: int = 1, pid: int = 1, text: str = "x") -> Effect:
    return Effect(contract, effect_key("q", key), "q", epoch, pid, text)


def parked(reason: str, **more: Any) -> History:
    told = {"status": "waiting", "reason": reason, "usage": Usage(), **more}
    waits = Parked(at=0, status=Status.waiting, reason=StopReason(reason), waits=())
    return alone((2, 1, (leased(1), waits)), **told)


STEPPED = Outcome(at=0, key=STEP, effect="step", name="plain", activation=1)
PAID = Attempt(
    at=0,
    key=PUT,
    number=1,
    error=ErrorInfo(reason="r", code="c", message="m"),
    not_before=0,
    charged=Usage(micros=900),
)
WAITS = (Written(7, 2, 1, (leased(1),)),)
BAD: dict[str, tuple[str, History]] = {
    "a run that was acknowledged is gone": ("no_run_is_lost", replace(GOOD, accepted=("p", "gone"))),
    "a run stays queued": ("runs_end_or_wait", parked("timer", status="queued")),
    "a run is in progress for ever": ("runs_end_or_wait", parked("timer", status="in_progress")),
    "it waits for no reason": ("runs_end_or_wait", parked("success")),
    "it waits for nobody": ("runs_end_or_wait", parked("input_required", status="waiting_for_input")),
    "its time has come": ("runs_end_or_wait", parked("timer", wake_at=999)),
    "it retries at no time": ("runs_end_or_wait", parked("retry_later")),
    "its children have ended": ("runs_end_or_wait", parked("child")),
    "two ends": ("ends_are_final", alone((2, 1, (leased(1), finished(), finished())))),
    "something after the end": ("ends_are_final", alone((2, 1, (leased(1), finished(), leased(1))))),
    "an end that the record does not know": (
        "ends_are_final",
        alone((2, 1, (leased(1), finished())), status="waiting", reason="event"),
    ),
    "an end without an entry": ("ends_are_final", alone((2, 1, (leased(1),)))),
    "two words on one end": ("ends_are_final", alone((2, 1, (leased(1), finished())), status="failed")),
    "a cancel that nobody heard": ("cancels_are_heard", parked("event", canceled=("q",))),
    "a child outlives its parent": (
        "cancels_are_heard",
        replace(
            GOOD,
            runs={
                "p": story(
                    "p",
                    *JOURNAL[:2],
                    (4, 2, (fan_out({"policy": "best_effort", "need": None, "deadline": 1}),)),
                    (9, 3, (leased(3), fan_in(1, 0, 2), finished())),
                ),
                "c0": part(0, 6),
                "c1": replace(
                    part(1, 7), status="waiting", reason="event", position=2, written=part(1, 7).written[:1] + WAITS
                ),
            },
            groups=(replace(GROUP, ok=1, pending=1),),
            waves=(),
        ),
    ),
    "a child of a parent that has ended": ("cancels_are_heard", with_run(part(1, 11, born=10))),
    "a gap": (
        "positions_and_epochs_increase",
        with_run(replace(PARENT, written=(*PARENT.written[:2], *PARENT.written[3:]))),
    ),
    "a zombie": (
        "positions_and_epochs_increase",
        alone((2, 1, (leased(1),)), (3, 2, (leased(2),)), (4, 1, (finished(),)), epoch=2),
    ),
    "two owners with one epoch": (
        "positions_and_epochs_increase",
        alone((2, 1, (leased(1),)), (3, 1, (leased(1), finished()))),
    ),
    "commits out of order": (
        "positions_and_epochs_increase",
        alone((3, 1, (leased(1),)), (2, 1, (finished(),))),
    ),
    "a record ahead of its journal": (
        "positions_and_epochs_increase",
        with_run(replace(PARENT, position=99)),
    ),
    "an intent after the outcome": (
        "finished_steps_stay_finished",
        alone((2, 1, (leased(1), wrote(), done(), wrote(), finished())), effects=(line("idempotent"),)),
    ),
    "a second outcome": (
        "finished_steps_stay_finished",
        alone((2, 1, (leased(1), wrote(), done(), done(), finished())), effects=(line("idempotent"),)),
    ),
    "an effect by a later owner": (
        "finished_steps_stay_finished",
        alone(
            (2, 1, (leased(1), wrote(), done())),
            (3, 2, (leased(2), finished())),
            effects=(line("idempotent"), line("idempotent", epoch=2)),
        ),
    ),
    "user code in a later process": (
        "finished_steps_stay_finished",
        alone(
            (2, 1, (leased(1), STEPPED)),
            (3, 2, (leased(2, pid=2), finished())),
            usage=Usage(),
            effects=(line("step", STEP, pid=1), line("step", STEP, pid=2)),
        ),
    ),
    "at most once, twice": (
        "effects_happen_once",
        alone((2, 1, (leased(1), wrote(), done(), finished())), effects=(line("at_most_once"),) * 2),
    ),
    "reconcilable, twice": (
        "effects_happen_once",
        alone((2, 1, (leased(1), wrote(), done(), finished())), effects=(line("reconcilable"),) * 2),
    ),
    "one key for two effects": (
        "effects_happen_once",
        alone(
            (2, 1, (leased(1), wrote(), done(), finished())),
            effects=(line("idempotent"), line("idempotent", text="y")),
        ),
    ),
    "done in words only": (
        "what_is_called_done_was_done",
        alone((2, 1, (leased(1), wrote(), done(), finished()))),
    ),
    "too many hops": (
        "budgets_hold",
        alone((2, 1, (leased(1), done("a"), done("b"), done("c"), done("d"), finished()))),
    ),
    "too much money in the record": (
        "budgets_hold",
        alone((2, 1, (leased(1), finished())), usage=Usage(micros=1_001)),
    ),
    "too much money for lost calls": (
        "budgets_hold",
        alone((2, 1, (leased(1), PAID, PAID, finished())), usage=Usage(micros=1_800)),
    ),
    "spending that the record forgot": ("budgets_hold", alone((2, 1, (leased(1), PAID, finished())))),
    "a reservation for nobody": (
        "budgets_hold",
        replace(GOOD, groups=(replace(GROUP, reserved=Usage(micros=1)),)),
    ),
    "a group that counts too many": ("joins_are_complete", replace(GOOD, groups=(replace(GROUP, ok=3, total=3),))),
    "a group that counts the wrong end": (
        "joins_are_complete",
        replace(GOOD, groups=(replace(GROUP, ok=1, failed=1),)),
    ),
    "a child twice": ("joins_are_complete", with_run(replace(part(1, 7), group=("p", FAN, 0)))),
    "a parent that heard of a child too many": (
        "joins_are_complete",
        with_run(story("p", *JOURNAL[:3], (9, 3, (leased(3), fan_in(3, 0, 3), finished())))),
    ),
    "a join that did not wait": (
        "joins_are_complete",
        with_run(story("p", *JOURNAL[:3], (9, 3, (leased(3), fan_in(1, 0, 2), finished())))),
    ),
    "a quorum that was none": (
        "joins_are_complete",
        with_run(
            story(
                "p",
                *JOURNAL[:2],
                (4, 2, (fan_out({"policy": "quorum", "need": 2}),)),
                (9, 3, (leased(3), fan_in(1, 0, 2), finished())),
            )
        ),
    ),
    "a row twice": (
        "rows_are_written_once",
        replace(GOOD, waves=(replace(GOOD.waves[0], lines=GOOD.waves[0].lines * 2),)),
    ),
    "a row missing": (
        "rows_are_written_once",
        replace(GOOD, waves=(replace(GOOD.waves[0], lines=GOOD.waves[0].lines[:1]),)),
    ),
    "a row from nowhere": (
        "rows_are_written_once",
        replace(GOOD, waves=(replace(GOOD.waves[0], lines=(*GOOD.waves[0].lines, ("r9", "completed"))),)),
    ),
    "a row with another end": (
        "rows_are_written_once",
        replace(GOOD, waves=(replace(GOOD.waves[0], lines=(("r0", "failed"), ("r1", "completed"))),)),
    ),
    "an input that never ran": (
        "rows_are_written_once",
        replace(GOOD, waves=(replace(GOOD.waves[0], inputs=("r0", "r1", "r2")),)),
    ),
    "a trace row lost": (
        "traces_follow_from_the_journal",
        replace(GOOD, tables={"runs": ((2, "other"), (3, "digest"))}),
    ),
    "a trace row changed": (
        "traces_follow_from_the_journal",
        replace(GOOD, tables={"runs": ((3, "other"), (3, "digest"))}),
    ),
}


def test_a_good_history_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("what", BAD)
def test_a_bad_history_is_found_by_its_rule_alone(what: str) -> None:
    rule, history = BAD[what]
    found = check(history)
    assert {finding.rule for finding in found} == {rule}, found
    assert all(isinstance(finding, Finding) and finding.text for finding in found)


def test_every_rule_is_shown_to_fire() -> None:
    assert {rule for rule, _ in BAD.values()} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    "history",
    [
        parked("event"),
        parked("timer", wake_at=1_001),
        parked("input_required", status="waiting_for_input", wants=1),
        alone((2, 1, (leased(1), Checkpoint(at=0, name="c", number=1))), (3, 1, (finished(),))),
        alone((2, 1, (leased(1), PAID, finished())), usage=Usage(micros=900)),
    ],
)
def test_what_is_right_is_left_alone(history: History) -> None:
    assert check(history) == []
