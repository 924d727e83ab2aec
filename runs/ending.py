"""How a run ends: from what its function returned or raised to one final entry, follow-ups included.

Every end is a status and a reason of the transition table. Knows no effect in particular.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from retinue.runs.contracts import NOTHING, ErrorInfo, Json, RunRequest, Status, StopReason, Usage
from retinue.runs.effects import rolling
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, RetinueError, RunError, RunFailed
from retinue.runs.identity import child_id, effect_key
from retinue.runs.journal import Finished
from retinue.runs.machine import STATUS_OF
from retinue.runs.ownership import Finish, NewRun, Spawn
from retinue.runs.piecewise import dump, load
from retinue.runs.steps import Command, Done, cut_short, error_info, outcome_of
from retinue.runs.tracing import span_id_of

_LOG = logging.getLogger("retinue.runs")
_FOLLOW_UPS = "follow-ups"
_DEEPEST = 8


class Ended:
    """What a function may return instead of a plain value: a value with the reason and facts of its end."""

    def __init__(
        self, value: Any, reason: StopReason = StopReason.success, facts: dict[str, Json] | None = None
    ) -> None:
        self.value = value
        self.reason = reason
        self.facts = facts or {}


async def finish(run: Run, body: asyncio.Task[Any]) -> None:
    """End the run with what its function returned or raised."""
    error = asyncio.CancelledError() if body.cancelled() else body.exception()
    if error is not None:
        await fail(run, error)
        return
    result = body.result()
    ended = result if isinstance(result, Ended) else Ended(result)
    try:
        value = load(dump(ended.value))
    except ValueError as error:
        message = f"{run.request.target} returned what is not JSON: {error}"
        await _end(run, StopReason.output_rejected, error=_info(StopReason.output_rejected, message))
        return
    await _end(run, ended.reason, value=value, facts=ended.facts)


async def stop(run: Run, tasks: dict[str, asyncio.Task[None]], settled: list[tuple[Command, Done]]) -> None:
    """Stop what is in flight: what has ended is put on record, a write that has not is unknown, a paid call spent.

    What does not stop within the grace is left behind: whatever it still says, nobody hears.
    """
    stopped = dict(tasks)
    for task in stopped.values():
        task.cancel()
    if stopped:
        await asyncio.wait(stopped.values(), timeout=run.services.defaults.cancel_grace)
    now = run.services.now_ns()
    for command, done in settled:
        run.ledger.settle(command.key, done.usage)
        run.note(outcome_of(command, done, 0, now))
    settled.clear()
    for key in stopped:
        intent = run.history.intents.get(key)
        if intent is not None and key not in run.history.outcomes:
            cut = cut_short(intent, now)
            run.ledger.settle(key, cut.usage)
            run.note(cut)


async def fail(run: Run, error: BaseException) -> None:
    """End the run with an error."""
    reason = _reason(error)
    if reason is StopReason.internal_error and not isinstance(error, RetinueError):
        _LOG.warning("run %s failed: %s", run.request.run_id, error, exc_info=error)
    info = error_info(error)
    facts: dict[str, Json] = dict(error.facts) if isinstance(error, RunError) else {}
    facts |= _cause(error)
    if reason is StopReason.canceled:
        facts["by"] = run.news.cancel
    await _end(run, reason, error=info.model_copy(update={"reason": reason.value}), facts=facts)


async def _end(
    run: Run,
    reason: StopReason,
    value: Json = None,
    error: ErrorInfo | None = None,
    facts: dict[str, Json] | None = None,
) -> None:
    status = STATUS_OF[reason]
    usage = sum(run.history.lost(), run.ledger.total())
    run.sessions.end()
    await run.boxes.end(keep=reason is not StopReason.canceled)
    spawn = None
    if status is Status.completed and run.services.defaults.follow_ups:
        spawn = _follow_ups(run, value)
    entry = Finished(
        at=run.services.now_ns(),
        content=value,
        status=status,
        reason=reason,
        usage=usage,
        error=error,
        facts=(facts or {}) | ({"follow_ups": [child.request.target for child in spawn.children]} if spawn else {}),
    )
    await run.write(entry, spawn=spawn, end=Finish(status, reason, usage, run.ledger.below()))


def _reason(error: BaseException) -> StopReason:
    if isinstance(error, RunError | RunFailed | EffectError):
        known = error.reason in StopReason.__members__
        reason = StopReason(error.reason) if known else StopReason.internal_error
        return reason if STATUS_OF[reason] is not Status.completed else StopReason.internal_error
    if isinstance(error, asyncio.CancelledError):
        return StopReason.canceled
    return StopReason.internal_error


def _cause(error: BaseException | None) -> dict[str, Json]:
    """The step that an error came from, through the errors it was wrapped in."""
    for _ in range(_DEEPEST):
        if error is None:
            return {}
        if isinstance(error, RetinueError) and error.step is not None:
            return {"step": error.step}
        error = error.__cause__ or error.__context__
    return {}


def _info(reason: StopReason, message: str) -> ErrorInfo:
    return ErrorInfo(reason=reason.value, code=reason.value, message=message)


def _follow_ups(run: Run, output: Json) -> Spawn | None:
    """Runs that begin when the answer is there, and cannot touch it."""
    parent = run.request
    names = [f if isinstance(f, str) else f.name for f in run.definition(parent.target).follow_ups]
    if not names:
        return None
    payload = {
        "input": run.leased.input,
        "output": output,
        "run_id": parent.run_id,
        "input_id": parent.input_id,
    }
    children = tuple(_follow_up(run, name, (index, len(names))) for index, name in enumerate(names))
    now = run.services.now_ns()
    shared = run.ledger.budget.usd is not None
    shares = [Usage(micros=child.budget.micros or 0) if shared else NOTHING for child in children]
    made = (NewRun(child, payload, now, share) for child, share in zip(children, shares, strict=True))
    return Spawn(_FOLLOW_UPS, tuple(made))


def _follow_up(run: Run, name: str, place: tuple[int, int]) -> RunRequest:
    """The follow-up of a place among so many; what the run leaves of its money is shared by them."""
    index, count = place
    parent, definition = run.request, rolling.version_for(run, run.definition(name))
    run_id = child_id(parent.run_id, _FOLLOW_UPS, index)
    return parent.model_copy(
        update={
            "run_id": run_id,
            "span_id": run_id[:16],
            "parent_span_id": span_id_of(parent.run_id, _FOLLOW_UPS),
            "kind": definition.kind,
            "target": definition.name,
            "target_version": definition.version,
            "parent_run_id": parent.run_id,
            "idempotency_key": None,
            "pool": run.services.registry.pool_of(definition.name) or "workers",
            "queue": definition.queue or parent.queue,
            "priority": parent.priority - 1,
            "depth": parent.depth + 1,
            "budget": run.ledger.follow_ups(count, definition.budget.within(run.services.defaults.budget)),
            "deadline": None,
            "effect_scope": effect_key(parent.effect_scope, f"{_FOLLOW_UPS}:{index}"),
            "group_key": _FOLLOW_UPS,
            "group_index": index,
            "relayed": False,
            "shadow": rolling.is_shadow(run.services.rollouts.table, definition, parent.shadow),
        }
    )
