"""When a run waits: whether what it waits for has come, for how long to stay in memory, and how to park.

Waiting costs nothing: a parked run holds no coroutine and no actor. Knows no effect in particular.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.runs.contracts import StopReason
from retinue.runs.journal import Park, Parked
from retinue.runs.machine import STATUS_OF
from retinue.runs.steps import Wait

if TYPE_CHECKING:
    from retinue.runs.execution import Execution

_URGENCY = (
    StopReason.approval_required,
    StopReason.input_required,
    StopReason.child,
    StopReason.event,
    StopReason.timer,
    StopReason.retry_later,
)
"""The reason shown for a run that waits for several things: the first of these."""


def is_ready(run: Execution, key: str, wait: Wait) -> bool:
    """True when the effect that waits can go on."""
    if wait.at is not None and run.services.now_ns() >= wait.at:
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


def deadline(run: Execution) -> int | None:
    """When the run must have ended (Unix ns): its own wall time or the deadline it was given."""
    limits = [run.request.deadline] if run.request.deadline is not None else []
    if run.request.budget.seconds is not None:
        limits.append(run.leased.started_at + int(run.request.budget.seconds * 1e9))
    return min(limits, default=None)


def next_moment(run: Execution) -> int | None:
    """The next moment (Unix ns) at which something is due without any news."""
    moments = [wait.at for wait in run.waits.values() if wait.at is not None]
    limit = deadline(run)
    return min([*moments, limit] if limit is not None else moments, default=None)


def seconds_to_next(run: Execution) -> float | None:
    """How long to sleep in memory at most."""
    moment = next_moment(run)
    return None if moment is None else max((moment - run.services.now_ns()) / 1e9, 0.0)


def should_park(run: Execution) -> bool:
    """True unless something is due so soon that parking would cost more than waiting."""
    soon = seconds_to_next(run)
    return bool(run.waits) and (soon is None or soon > run.services.retry.in_memory)


async def park(run: Execution) -> bool:
    """Let go of the run until news or time wakes it. False when news arrived meanwhile: then it has them."""
    reasons = {wait.reason for wait in run.waits.values()}
    reason = next(reason for reason in _URGENCY if reason in reasons)
    status, wake_at = STATUS_OF[reason], next_moment(run)
    entry = Parked(at=run.services.now_ns(), status=status, reason=reason, waits=tuple(run.waits), wake_at=wake_at)
    done = await run.write(entry, end=Park(status, reason, wake_at))
    run.position = done.position
    run.parked = done.parked
    if not done.parked:
        run.take(await run.services.journal.look(run.request.run_id))
    return done.parked
