"""When a run waits: whether what it waits for has come, for how long to stay in memory, and how to park.

Waiting costs nothing: a parked run holds no coroutine and no actor. Knows no effect in particular.
"""

from __future__ import annotations

from retinue.runs.contracts import Status, StopReason
from retinue.runs.effects.run import Run
from retinue.runs.journal import Parked
from retinue.runs.machine import STATUS_OF
from retinue.runs.ownership import Appended, Park
from retinue.runs.steps import Wait

Waits = dict[str, Wait]
"""What a run waits for, by step key."""

_URGENCY = (
    StopReason.side_effect_unknown,
    StopReason.approval_required,
    StopReason.input_required,
    StopReason.child,
    StopReason.event,
    StopReason.timer,
    StopReason.retry_later,
)
"""The reason shown for a run that waits for several things: the first of these."""


def is_ready(run: Run, wait: Wait) -> bool:
    """True when the effect that waits can go on."""
    if wait.at is not None and run.services.now_ns() >= wait.at:
        return True
    if wait.session is not None and not run.sessions.is_open(wait.session):
        return True
    if wait.request is not None:
        return wait.request in run.news.answers
    if wait.group is not None:
        group = run.news.groups.get(wait.group)
        return group is not None and (group.decided or (not group.exhausted and group.pending <= group.low))
    if wait.event is not None:
        taken = run.history.events.get(wait.event, 0)
        return any(event.name == wait.event and event.number > taken for event in run.news.events)
    return False


def deadline(run: Run) -> int | None:
    """When the run must have ended (Unix ns): its own wall time or the deadline it was given."""
    given, seconds = run.request.deadline, run.request.budget.seconds
    if seconds is None:
        return given
    change = run.history.amendment
    own = (run.leased.started_at if change is None else change.since) + int(seconds * 1e9)
    return own if given is None else min(own, given)


def next_moment(run: Run, waits: Waits) -> int | None:
    """The next moment (Unix ns) at which something is due without any news."""
    moments = [wait.at for wait in waits.values() if wait.at is not None]
    limit = deadline(run)
    return min([*moments, limit] if limit is not None else moments, default=None)


def seconds_to_next(run: Run, waits: Waits) -> float | None:
    """How long to sleep in memory at most."""
    moment = next_moment(run, waits)
    return None if moment is None else max((moment - run.services.now_ns()) / 1e9, 0.0)


def should_park(run: Run, waits: Waits) -> bool:
    """True unless something is due so soon that parking would cost more than waiting."""
    soon = seconds_to_next(run, waits)
    return bool(waits) and (soon is None or soon > run.services.retry.in_memory)


async def park(run: Run, waits: Waits) -> Appended:
    """Let go of the run until news or time wakes it; not parked when news arrived that it has not seen."""
    reasons = {wait.reason for wait in waits.values()}
    reason = next(reason for reason in _URGENCY if reason in reasons)
    in_doubt = reason is StopReason.side_effect_unknown
    status, wake_at = Status.waiting_for_input if in_doubt else STATUS_OF[reason], next_moment(run, waits)
    entry = Parked(at=run.services.now_ns(), status=status, reason=reason, waits=tuple(waits), wake_at=wake_at)
    return await run.write(entry, end=Park(status, reason, wake_at))
