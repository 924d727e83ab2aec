"""The judge: reads a history and names everything in it that must not be. Pure, in the tradition of Jepsen.

Each rule is a function of the history; none trusts a clock, since clocks are among what is disturbed: order
comes from positions, epochs and commit numbers. Knows no store, no process and no fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.chaos.history import Effect, GroupStory, History, RunStory

from retinue.runs.contracts import NOTHING, Usage
from retinue.runs.identity import effect_key
from retinue.runs.journal import Attempt, Finished, Intent, Leased, Outcome


class Finding(NamedTuple):
    """Something that must not be: the rule it breaks, the run (or file, or table), and what was found."""

    rule: str
    who: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.who}: {self.text}"


Rule = Callable[[History], Iterator[Finding]]


def check(history: History) -> list[Finding]:
    """All findings, rule by rule."""
    return [finding for rule in RULES for finding in rule(history)]


# -- runs --------------------------------------------------------------------------------------------------


def no_run_is_lost(history: History) -> Iterator[Finding]:
    """Every acknowledged run is there."""
    for run_id in history.accepted:
        if run_id not in history.runs:
            yield Finding("no_run_is_lost", run_id, "was acknowledged, and the store does not know it")


def runs_end_or_wait(history: History) -> Iterator[Finding]:
    """Every run has ended, or waits for something that is named and has not come."""
    children = defaultdict(list)
    for run in history.runs.values():
        if run.group is not None:
            children[run.group[0]].append(run)
    for run in history.runs.values():
        if run.ended:
            continue
        said = _why_not(run, children[run.run_id], history.now)
        if said:
            yield Finding("runs_end_or_wait", run.run_id, f"{run.status} ({run.reason}): {said}")


def _why_not(run: RunStory, children: list[RunStory], now: int) -> str | None:
    """Why a run that has not ended does not wait rightly; None when it does."""
    if not run.status.startswith("waiting"):
        return "it neither ended nor waits"
    match run.reason:
        case "approval_required" | "input_required":
            return None if run.wants else "it has no open request"
        case "child":
            return None if any(not child.ended for child in children) else "all its children have ended"
        case "timer" | "retry_later":
            return None if run.wake_at is not None and run.wake_at > now else "its time has come, or it has none"
        case "event":
            return None
    return "for no reason that is known"


def ends_are_final(history: History) -> Iterator[Finding]:
    """A run that has ended has one end, the last of its entries, and its record says the same."""
    for run in history.runs.values():
        entries = [entry for written in run.written for entry in written.entries]
        ends = [entry for entry in entries if isinstance(entry, Finished)]
        if not run.ended and ends:
            yield Finding("ends_are_final", run.run_id, f"it is {run.status} and its journal has an end")
        elif run.ended and (len(ends) != 1 or entries[-1] is not ends[0]):
            yield Finding(
                "ends_are_final", run.run_id, f"it has {len(ends)} ends, the last entry is {entries[-1].kind}"
            )
        elif run.ended and (ends[0].status.value, ends[0].reason.value) != (run.status, run.reason):
            yield Finding("ends_are_final", run.run_id, f"its record says {run.status}, its journal {ends[0].status}")


def cancels_are_heard(history: History) -> Iterator[Finding]:
    """An acknowledged cancel leaves nothing running below, and no child is made after a parent's end."""
    for run_id in history.canceled:
        run = history.runs.get(run_id)
        if run is not None and not run.ended:
            yield Finding("cancels_are_heard", run_id, f"it was canceled and is {run.status}")
    for run in history.runs.values():
        parent = history.runs.get(run.group[0]) if run.group else None
        if parent is None or not parent.ended:
            continue
        if not run.ended:
            yield Finding("cancels_are_heard", run.run_id, f"its parent {parent.run_id} has ended, it is {run.status}")
        if run.written[0].seq > parent.written[-1].seq:
            yield Finding("cancels_are_heard", run.run_id, f"it was made after the end of its parent {parent.run_id}")


# -- the journal -------------------------------------------------------------------------------------------


def positions_and_epochs_increase(history: History) -> Iterator[Finding]:
    """Positions have no gap, every lease has a newer epoch, and nothing is written under an older one."""
    rule = "positions_and_epochs_increase"
    for run in history.runs.values():
        position = seq = 0
        epoch = -1
        for written in run.written:
            if written.position != position + 1:
                yield Finding(rule, run.run_id, f"position {written.position} follows {position}")
            if written.seq <= seq:
                yield Finding(rule, run.run_id, f"position {written.position} was committed before its predecessor")
            if written.epoch < epoch:
                yield Finding(rule, run.run_id, f"epoch {written.epoch} wrote after epoch {epoch}")
            for entry in written.entries:
                if isinstance(entry, Leased) and (entry.epoch <= epoch or entry.epoch != written.epoch):
                    yield Finding(rule, run.run_id, f"leased with epoch {entry.epoch} after epoch {epoch}")
            position, seq = written.position + len(written.entries) - 1, written.seq
            epoch = max(epoch, written.epoch)
        if position != run.position or epoch > run.epoch:
            yield Finding(rule, run.run_id, f"its record says {run.position}/{run.epoch}, it is {position}/{epoch}")


def finished_steps_stay_finished(history: History) -> Iterator[Finding]:
    """After its outcome nothing more is heard of a step: not in the journal, and not in the world."""
    rule = "finished_steps_stay_finished"
    outcomes: dict[str, int] = {}
    for run in history.runs.values():
        ended: set[str] = set()
        for written in run.written:
            for entry in written.entries:
                if isinstance(entry, Intent | Outcome | Attempt) and entry.key in ended:
                    yield Finding(rule, run.run_id, f"{entry.kind} of {entry.key} after its outcome")
                if isinstance(entry, Outcome):
                    ended.add(entry.key)
                    outcomes[effect_key(run.request.effect_scope, entry.key)] = written.epoch
    for effect in history.effects:
        if effect.contract != "step" and effect.epoch > outcomes.get(effect.key, effect.epoch):
            yield Finding(rule, effect.run, f"{effect.text} was done by epoch {effect.epoch}, finished before")
    yield from _steps_done_again(history)


def _steps_done_again(history: History) -> Iterator[Finding]:
    """User code in a step knows no epoch: its process does. It may not run in one that came after the outcome."""
    for effect in history.effects:
        run = history.runs.get(effect.run)
        if effect.contract != "step" or run is None:
            continue
        ended = [
            written.epoch
            for written in run.written
            for entry in written.entries
            if isinstance(entry, Outcome) and entry.effect == "step"
        ]
        mine = [
            entry.epoch
            for written in run.written
            for entry in written.entries
            if isinstance(entry, Leased) and entry.pid == effect.pid
        ]
        if ended and mine and min(mine) > ended[0]:
            text = f"its step ran in epoch {min(mine)}, and had ended in epoch {ended[0]}"
            yield Finding("finished_steps_stay_finished", run.run_id, text)


# -- effects -----------------------------------------------------------------------------------------------


def effects_happen_once(history: History) -> Iterator[Finding]:
    """A key is one effect: done once, or the very same again where the contract allows that."""
    by_key: dict[str, list[Effect]] = defaultdict(list)
    for effect in history.effects:
        if effect.contract in ("idempotent", "reconcilable", "at_most_once"):
            by_key[effect.key].append(effect)
    for key, found in by_key.items():
        if len({(effect.contract, effect.run, effect.text) for effect in found}) > 1:
            yield Finding("effects_happen_once", found[0].run, f"key {key} stands for different effects: {found}")
        elif len(found) > 1 and found[0].contract != "idempotent":
            epochs = [effect.epoch for effect in found]
            text = f"{found[0].contract} {found[0].text} was done {len(found)} times, by epochs {epochs}"
            yield Finding("effects_happen_once", found[0].run, text)


def what_is_called_done_was_done(history: History) -> Iterator[Finding]:
    """A write whose outcome is `ok` left its line in the log."""
    done = {effect.key for effect in history.effects}
    for run in history.runs.values():
        entries = [entry for written in run.written for entry in written.entries]
        writes = {e.key for e in entries if isinstance(e, Intent) and e.facts.get("side_effect") == "write"}
        for key in [e.key for e in entries if isinstance(e, Outcome) and e.key in writes and e.result == "ok"]:
            if effect_key(run.request.effect_scope, key) not in done:
                yield Finding("what_is_called_done_was_done", run.run_id, f"{key} left no line")


# -- budgets -----------------------------------------------------------------------------------------------


def budgets_hold(history: History) -> Iterator[Finding]:
    """No run spends more than it may, alone or with its children, and its record accounts for what it spent."""
    reserved: dict[str, Usage] = defaultdict(Usage)
    for group in history.groups:
        reserved[group.run_id] += group.reserved
    for run in history.runs.values():
        budget, own = run.request.budget, _spent(run)
        total = run.usage if run.ended else own + reserved[run.run_id]
        limits = (
            ("steps", budget.steps, own.steps),
            ("hops", budget.hops, own.hops),
            ("tokens", budget.tokens, max(total.tokens, own.tokens)),
            ("micros", budget.micros, max(total.micros, own.micros)),
        )
        for name, limit, used in limits:
            if limit is not None and used > limit:
                yield Finding("budgets_hold", run.run_id, f"{used} {name} spent of {limit}")
        if run.ended and (run.usage.micros < own.micros or run.usage.tokens < own.tokens):
            yield Finding("budgets_hold", run.run_id, f"its record says {run.usage}, its journal {own}")
    for group in history.groups:
        if not group.pending and (group.reserved.tokens or group.reserved.micros):
            yield Finding("budgets_hold", group.run_id, f"{group.key} holds {group.reserved} for nobody")


def _spent(run: RunStory) -> Usage:
    spent = NOTHING
    for written in run.written:
        for entry in written.entries:
            if isinstance(entry, Outcome):
                spent = spent + entry.usage
            elif isinstance(entry, Attempt):
                spent = spent + entry.charged
    return spent


# -- joins, outputs, traces ----------------------------------------------------------------------------------


def joins_are_complete(history: History) -> Iterator[Finding]:
    """A group counts exactly its children, and what its parent heard is what they are."""
    children: dict[tuple[str, str], list[RunStory]] = defaultdict(list)
    for run in history.runs.values():
        if run.group is not None:
            children[run.group[:2]].append(run)
    for group in history.groups:
        members = children[(group.run_id, group.key)]
        status = Counter(child.status if child.ended else "pending" for child in members)
        ok, pending = status["completed"], status["pending"]
        counted = (len(members), pending, ok, len(members) - ok - pending)
        if counted != (group.total, group.pending, group.ok, group.failed):
            told = (group.total, group.pending, group.ok, group.failed)
            text = f"{group.key} says {told} of total, pending, ok, failed; its children say {counted}"
            yield Finding("joins_are_complete", group.run_id, text)
        if sorted(child.group[2] for child in members if child.group) != list(range(len(members))):
            yield Finding("joins_are_complete", group.run_id, f"{group.key} has children with a gap or a double")
        if group.run_id in history.runs:
            yield from _heard(history.runs[group.run_id], group)


def _heard(parent: RunStory, group: GroupStory) -> Iterator[Finding]:
    """The one outcome of a group: nothing was counted that is not, and the join had heard enough."""
    entries = [entry for written in parent.written for entry in written.entries]
    intents = [entry for entry in entries if isinstance(entry, Intent) and entry.key == group.key]
    for outcome in entries:
        if not isinstance(outcome, Outcome) or outcome.key != group.key or outcome.result != "ok":
            continue
        facts, join = outcome.facts, intents[0].facts["join"] if intents else {}
        total, ok, failed = int(facts["total"]), int(facts["ok"]), int(facts["failed"])
        if total != group.total or ok > group.ok or failed > group.failed:
            text = f"{group.key} was told {ok} ok, {failed} failed of {total}; there are {group}"
            yield Finding("joins_are_complete", parent.run_id, text)
        need = join.get("need")
        enough = join.get("deadline") or (ok >= need or total - failed < need if need else ok + failed == total)
        if not enough:
            text = f"{group.key} ({join.get('policy')}) went on with {ok} ok, {failed} failed of {total}"
            yield Finding("joins_are_complete", parent.run_id, text)


def rows_are_written_once(history: History) -> Iterator[Finding]:
    """Every row of a job that ran is in its output once, with the status its run has; all of them, if it completed."""
    for wave in history.waves:
        job = history.runs.get(wave.job_id)
        ran = {run.request.input_id: run for run in history.runs.values() if run.group and run.group[0] == wave.job_id}
        lines = Counter(input_id for input_id, _ in wave.lines)
        for input_id, status in wave.lines:
            if input_id not in ran:
                yield Finding("rows_are_written_once", wave.job_id, f"row {input_id} was written and never ran")
            elif ran[input_id].status != status:
                text = f"row {input_id} is {ran[input_id].status}, and was written as {status}"
                yield Finding("rows_are_written_once", wave.job_id, text)
        wanted = wave.inputs if job is not None and job.status == "completed" else tuple(filter(None, ran))
        for input_id in wanted:
            if lines[input_id] != 1:
                text = f"row {input_id} was written {lines[input_id]} times"
                yield Finding("rows_are_written_once", wave.job_id, text)


def traces_follow_from_the_journal(history: History) -> Iterator[Finding]:
    """The tables that lived through it all are those that are made again from the journal."""
    for table, (kept, rebuilt) in history.tables.items():
        if kept != rebuilt:
            text = f"{kept[0]} rows were kept, {rebuilt[0]} come out when it is made again, or they differ"
            yield Finding("traces_follow_from_the_journal", table, text)


RULES: tuple[Rule, ...] = (
    no_run_is_lost,
    runs_end_or_wait,
    ends_are_final,
    cancels_are_heard,
    positions_and_epochs_increase,
    finished_steps_stay_finished,
    effects_happen_once,
    what_is_called_done_was_done,
    budgets_hold,
    joins_are_complete,
    rows_are_written_once,
    traces_follow_from_the_journal,
)
