"""What an alert says: one line from its facts, with the command that helps. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from retinue.runs.alerts import JOURNAL, OTHERS, Kind
from retinue.runs.budgets import usd_text
from retinue.runs.contracts import Json

Facts = dict[str, Json]


def said(kind: Kind, subject: str, facts: Facts) -> str:
    """The message of an alert."""
    if subject == OTHERS:
        return (
            f"{facts['count']} more runs for {kind.replace('_', ' ')}: too many for an alert each; "
            "`retinue ps --all --status failed` lists them"
        )
    return _SAYS[kind](subject, facts)


def _wait(_: str, facts: Facts) -> str:
    run, since = facts["run"], _moment(facts["since"])
    if "request_id" not in facts:
        return f"run {run} ({facts['target']}) waits for an event since {since}: `retinue inspect {run}` names it"
    passed_on = f", passed on to {facts['assignee']}" if "escalated_at" in facts else ""
    what = "an approval" if facts["asks"] == "approval" else "an answer"
    return f"run {run} waits for {what} since {since}{passed_on}: `retinue inbox {run}`"


def _dead_letters(subject: str, facts: Facts) -> str:
    if "job" not in facts:
        return f"run {subject} ({facts['target']}) gave up, {facts['reason']}: `retinue inspect {subject}`"
    parts = (_counted(facts["failed"], "row") + " failed", _counted(facts["refused"], "input") + " could not be read")
    told = [part for part, count in zip(parts, (facts["failed"], facts["refused"]), strict=True) if count]
    return f"job {subject}: {' and '.join(told)}: `retinue dlq list --job {subject}`"


def _breaker(subject: str, facts: Facts) -> str:
    failures = _counted(facts["failures"], "failure")
    return f"{subject} is left alone since {_moment(facts['since'])} after {failures} in a row: {facts['reason']}"


def _budget(subject: str, facts: Facts) -> str:
    if "window" in facts:
        limit, spent, reserved = (usd_text(facts[name]) for name in ("limit", "spent", "reserved"))
        return (
            f"tenant {facts['tenant']} has no room for more runs under its limit of {limit} USD ({facts['window']}): "
            f"{spent} USD spent, {reserved} USD reserved: `retinue budgets`"
        )
    return f"{_of_tree(subject, facts)} ended for want of budget: `retinue inspect {facts['runs'][0]}`"


def _unknown(subject: str, facts: Facts) -> str:
    if "request_id" in facts:
        run = facts["run"]
        return f"run {run}: {facts['doubt']} may have happened; a person has to say: `retinue inbox {run}`"
    return (
        f"{_of_tree(subject, facts)} ended without knowing whether a write happened: "
        f"`retinue inspect {facts['runs'][0]}`"
    )


def _traces(subject: str, facts: Facts) -> str:
    if subject == JOURNAL:
        return (
            f"the journal cannot be followed beyond entry {facts['projected']} of {facts['newest']}: a transaction has "
            f"been open for {facts['seconds']} s (process {facts['pid']} of the database, {facts['holder']}). Runs go "
            "on; trace tables, outputs of jobs and alerts wait until it ends: "
            f"`SELECT pg_terminate_backend({facts['pid']})`"
        )
    return f"the trace tables are {facts['seconds']} s behind the journal: what they answer is old"


def _policy(_: str, facts: Facts) -> str:
    return f"the rules were changed and cannot be used, hosts keep those they have: {facts['problem']}"


def _rollout(subject: str, facts: Facts) -> str:
    return (
        f"the rollout of {subject} was stopped by {facts['by']} at {_moment(facts['since'])}: {facts['reason']}; "
        "`retinue rollout list`"
    )


_SAYS: dict[Kind, Callable[[str, Facts], str]] = {
    "wait": _wait,
    "dead_letters": _dead_letters,
    "breaker": _breaker,
    "budget": _budget,
    "side_effect_unknown": _unknown,
    "rollout": _rollout,
    "traces_lag": _traces,
    "policy": _policy,
}


def _of_tree(root: str, facts: Facts) -> str:
    if facts["runs"] == [root]:
        return f"run {root} ({facts['target']})"
    return f"run {root}: {_counted(facts['count'], 'run')} of its tree"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
