"""The rules of alerts: which of what the store says somebody has to be told of, and which alerts are over. Pure.

Knows no store, no clock and no way to tell anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from retinue.runs.accounts import Account, ends_at
from retinue.runs.alerts import OTHERS, Alert, Asked, Cause, Failure, Kind, Look, OnEvent, joined
from retinue.runs.contracts import Json, StopReason

TRACES = "traces"
"""Subject of the one alert about the trace tables."""

_OF_TREES: dict[str, Kind] = {
    StopReason.budget_exhausted: "budget",
    StopReason.side_effect_unknown: "side_effect_unknown",
}
_FROM_OUTSIDE = (StopReason.tool_failure, StopReason.model_failure)
"""Ends that a retry can mend when what was called is well again."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a reader of the journal is behind: the newest frame it has, the newest there is, and for how long (ns)
    something has been waiting for it, since when. More than `most` (ns) is told of, under `subject`, with `facts`."""

    subject: str
    projected: int
    newest: int
    since: int
    behind: int
    most: int
    facts: Mapping[str, Json] = field(default_factory=dict)


def current(look: Look, now: int) -> Look:
    """Without the accounts whose window is over (Unix ns)."""
    lasting = (each for each in look.exhausted if (end := ends_at(each.window)) is None or now < end)
    return replace(look, exhausted=tuple(lasting))


def causes(look: Look, before: int, lags: Iterable[Lag] = ()) -> list[Cause]:
    """Everything to tell of. What is asked since `before` (Unix ns) is late."""
    found = [_late(asked) for asked in look.asked if asked.escalated_at is not None or asked.since <= before]
    found += [_doubted(asked) for asked in look.asked if asked.doubt is not None]
    found += [_on_event(run) for run in look.on_event]
    found += [
        Cause("breaker", each.name, {"since": each.since, "failures": each.failures, "reason": each.reason})
        for each in look.breakers
    ]
    found += [_exhausted(account) for account in look.exhausted]
    found += [
        Cause("rollout", f"{each.kind} {each.label}", {"since": each.at, "by": each.by, "reason": each.reason})
        for each in look.stopped
    ]
    found += [_ended(failure) for failure in look.failures if failure.reason in _OF_TREES]
    found += _given_up(look)
    for lag in lags:
        if lag.behind > lag.most:
            seen = {"projected": lag.projected, "newest": lag.newest, "seconds": lag.behind // 1_000_000_000}
            found.append(Cause("traces_lag", lag.subject, {"since": lag.since, **seen, **lag.facts}))
    return _one_each(found)


def gone(look: Look, found: Iterable[Cause], lags: Iterable[Lag] = ()) -> list[int]:
    """Ids of the alerts that stand though their cause is gone."""
    there = {(cause.kind, cause.subject) for cause in found}
    reached = {lag.subject: lag.projected for lag in lags}
    return [
        alert.id for alert in look.standing if not _lasts(alert, look, (alert.kind, alert.subject) in there, reached)
    ]


def _lasts(alert: Alert, look: Look, there: bool, reached: Mapping[str, int]) -> bool:
    facts = alert.facts
    if alert.subject == OTHERS:
        return True
    if alert.kind == "traces_lag":
        return there or reached.get(alert.subject, -1) < facts["newest"]
    if alert.kind in ("breaker", "policy", "rollout") or "window" in facts:
        return there
    if "request_id" in facts:
        return facts["request_id"] in look.open_requests
    if alert.kind == "wait":
        return facts["run"] in look.still_on_event
    if "job" in facts:
        job = look.jobs.get(facts["job"])
        return job is not None and job.failed + job.refused > 0
    return any(run in look.still_failed for run in facts["runs"])


def _one_each(found: Iterable[Cause]) -> list[Cause]:
    """One cause for each kind and subject; what is counted adds up."""
    by_subject: dict[tuple[Kind, str], Cause] = {}
    for cause in found:
        place = (cause.kind, cause.subject)
        known = by_subject.get(place)
        facts = cause.facts if known is None else joined(known.facts, cause.facts)
        by_subject[place] = Cause(*place, facts)
    return list(by_subject.values())


def _late(asked: Asked) -> Cause:
    facts = {**_of_request(asked), "assignee": asked.assignee}
    if asked.escalated_at is None:
        return Cause("wait", asked.request_id, facts)
    return Cause("wait", f"{asked.request_id} passed on", {**facts, "escalated_at": asked.escalated_at})


def _doubted(asked: Asked) -> Cause:
    return Cause("side_effect_unknown", asked.request_id, {**_of_request(asked), "doubt": asked.doubt})


def _of_request(asked: Asked) -> dict[str, Json]:
    return {
        "request_id": asked.request_id,
        "run": asked.run_id,
        "root": asked.root_run_id,
        "tenant": asked.tenant_id,
        "asks": asked.kind,
        "since": asked.since,
    }


def _on_event(run: OnEvent) -> Cause:
    named = {"run": run.run_id, "root": run.root_run_id, "tenant": run.tenant_id, "target": run.target}
    return Cause("wait", run.run_id, {**named, "since": run.since, "waits": list(run.waits)})


def _exhausted(account: Account) -> Cause:
    facts: dict[str, Json] = {
        "tenant": account.tenant_id,
        "window": account.window,
        "limit": account.limit,
        "spent": account.spent,
        "reserved": account.reserved,
        "since": account.refused_at or 0,
    }
    return Cause("budget", f"tenant {account.tenant_id}, {account.window}", facts)


def _ended(failure: Failure) -> Cause:
    return Cause(_OF_TREES[failure.reason], failure.root_run_id, _of_failure(failure))


def _of_failure(failure: Failure) -> dict[str, Json]:
    return {
        "runs": [failure.run_id],
        "count": 1,
        "root": failure.root_run_id,
        "tenant": failure.tenant_id,
        "target": failure.target,
        "reason": failure.reason,
        "since": failure.at,
    }


def _given_up(look: Look) -> list[Cause]:
    """Rows that failed and inputs that were refused, by job; roots that a tool or a model made fail."""
    found = []
    for failure in look.failures:
        if failure.job_id is not None and failure.job_id in look.jobs:
            facts = {**_of_failure(failure), **_of_job(look, failure.job_id)}
            found.append(Cause("dead_letters", failure.job_id, facts))
        elif failure.run_id == failure.root_run_id and failure.reason in _FROM_OUTSIDE:
            found.append(Cause("dead_letters", failure.run_id, _of_failure(failure)))
    for job_id, at in look.refused.items():
        if job_id in look.jobs:
            facts = {"runs": [], "count": 0, "tenant": look.jobs[job_id].tenant_id, **_of_job(look, job_id)}
            found.append(Cause("dead_letters", job_id, {**facts, "since": at}))
    return found


def _of_job(look: Look, job_id: str) -> dict[str, Json]:
    job = look.jobs[job_id]
    return {"job": job_id, "failed": job.failed, "refused": job.refused}
