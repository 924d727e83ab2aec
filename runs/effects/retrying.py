"""Retries, with one owner: here. A transient failure becomes a wait, a permanent one or the last an outcome.

Nothing below (clients, gateway, tools) repeats anything on its own.
"""

from __future__ import annotations

from retinue.runs.contracts import NOTHING, StopReason, Usage
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, TransientError
from retinue.runs.journal import Attempt
from retinue.runs.steps import Command, Done, Wait, error_info


def due(run: Run, command: Command) -> Wait | None:
    """The wait that is still to be done before the next try; None when the effect may be tried now."""
    attempts = run.history.attempts.get(command.key)
    if not attempts or attempts[-1].not_before <= run.services.now_ns():
        return None
    return Wait(StopReason.retry_later, at=attempts[-1].not_before)


def after(run: Run, command: Command, error: EffectError, charged: Usage = NOTHING) -> Done | Wait:
    """What follows a failed try: another one later, or the failure as the outcome."""
    number = len(run.history.attempts.get(command.key, ())) + 1
    info = error_info(error)
    policy = run.services.retry
    if not isinstance(error, TransientError) or number >= policy.attempts:
        return Done(result="error", error=info, usage=charged, facts={"attempts": number})
    delay = policy.delay(number, run.services.random, error.retry_after)
    now = run.services.now_ns()
    attempt = Attempt(
        at=now, key=command.key, number=number, error=info, not_before=now + int(delay * 1e9), charged=charged
    )
    run.note(attempt)
    run.ledger.settle(command.key, charged)
    return Wait(StopReason.retry_later, at=attempt.not_before)
