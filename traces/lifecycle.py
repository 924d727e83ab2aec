"""Rows for the life of a run: accepted, leased, parked, finished, checkpointed.

Pure: an entry in, rows out, the run's state moved on.
"""

from __future__ import annotations

from retinue.runs.contracts import Status
from retinue.runs.journal import Accepted, Checkpoint, Finished, Intent, Leased, Outcome, Parked, Retried
from retinue.traces.rows import Page, micros, spent
from retinue.traces.spans import number, run_span
from retinue.traces.states import RunState, identity_of
from retinue.traces.steps import end_step


def begin(entry: Accepted) -> RunState:
    """The state of a run that is accepted."""
    return RunState.of(identity_of(entry.request, entry.at))


def accept(page: Page, entry: Accepted) -> None:
    """The request as it was, with its input."""
    request = entry.request
    page.add(
        "run_requests",
        page.state.identity
        | {
            "principal_id": request.principal_id,
            "route": request.route,
            "pool": request.pool,
            "queue": request.queue or None,
            "priority": request.priority,
            "depth": request.depth,
            "budget": request.budget.model_dump(mode="json", exclude_none=True),
            "deadline": micros(request.deadline),
            "idempotency_key": request.idempotency_key,
            "effect_scope": request.effect_scope,
            "forked_from": request.forked_from,
            "group_key": request.group_key,
            "group_index": request.group_index,
            "input": entry.content,
        },
    )


def lease(page: Page, entry: Leased) -> None:
    """What follows is the doing of this host."""
    page.state.take(entry)
    page.add("leases", {**page.state.host, "at_ns": entry.at})


def park(page: Page, entry: Parked) -> None:
    """The run waits."""
    page.add(
        "parks",
        {
            "status": entry.status.value,
            "reason": entry.reason.value,
            "waits": list(entry.waits),
            "wake_at": micros(entry.wake_at),
        },
    )


def checkpoint(page: Page, entry: Checkpoint) -> None:
    """A name and what was spent; the state would grow with history, and the journal has it."""
    page.add("checkpoints", {"name": entry.name, "number": entry.number, **spent(entry.spent)})


def finish(page: Page, entry: Finished) -> None:
    """The result and the run's span; steps that nobody waited for end here too."""
    _close_steps(page, entry)
    facts = dict(entry.facts)
    confidence = facts.pop("confidence", None)
    follow_ups = facts.pop("follow_ups", None) or []
    error = entry.error
    page.add(
        "run_results",
        {
            "status": entry.status.value,
            "reason": entry.reason.value,
            **spent(entry.usage),
            "error_reason": error.reason if error else None,
            "error_code": error.code if error else None,
            "error_message": error.message if error else None,
            "retryable": error.retryable if error else None,
            "confidence": number(confidence),
            "facts": facts or None,
            "output": entry.content,
        },
    )
    for place, follow_up in enumerate(follow_ups if isinstance(follow_ups, list) else [follow_ups]):
        page.add("follow_ups", {"number": place, "follow_up": follow_up})
    if entry.status is Status.failed:
        message = error.message if error else None
        page.add("dead_letters", {"source": "run", "reason": entry.reason.value, "message": message})
    page.add("spans", run_span(page.state, entry))


def retry(page: Page, entry: Retried) -> None:
    """The run goes on after a failure."""
    change = entry.amendment
    page.add(
        "retries",
        {"number": change.retries, "retried_by": entry.by, "again": entry.again, "version": change.version},
    )


def _close_steps(page: Page, entry: Finished) -> None:
    for left in list(page.state.open.values()):
        end_step(page, _unseen_end(left.intent, entry.at))


def _unseen_end(intent: Intent, at: int) -> Outcome:
    """The end of a step that the run did not wait for: dropped, unless it may have changed the world."""
    return Outcome(
        at=at,
        key=intent.key,
        effect=intent.effect,
        name=intent.name,
        activation=0,
        result="unknown" if intent.leaves_doubt else "canceled",
    )
