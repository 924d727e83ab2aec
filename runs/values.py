"""What an outcome is to the function that asked for it: its value, or the error it stands for, raised."""

from __future__ import annotations

from typing import Any

from retinue.runs.contracts import ErrorInfo
from retinue.runs.errors import (
    EffectError,
    PermanentError,
    PermanentModelError,
    PolicyDenied,
    RetinueError,
    RunError,
    SideEffectUnknown,
    TransientError,
    TransientModelError,
)
from retinue.runs.journal import Outcome
from retinue.runs.sandboxes import SANDBOX_LOST, SandboxLost
from retinue.runs.steps import result_of


def value_of(outcome: Outcome) -> Any:
    """The value of an outcome, or the error it stands for, raised."""
    if outcome.result == "ok":
        return result_of(outcome)[0]
    error = _error_of(outcome)
    error.step = outcome.key
    raise error


def _error_of(outcome: Outcome) -> RetinueError:
    error = outcome.error
    message = error.message if error else f"{outcome.name} ended as {outcome.result}"
    if outcome.result == "refused":
        return PolicyDenied(message)
    if outcome.result == "unknown":
        return SideEffectUnknown(message)
    if error is None or error.reason in _EFFECT_ERRORS:
        return _effect_error(error, message)
    failure = RunError(message)
    failure.reason = error.reason
    return failure


def _effect_error(error: ErrorInfo | None, message: str) -> EffectError:
    if error is None:
        return PermanentError(message)
    permanent, transient = _EFFECT_ERRORS[error.reason]
    if error.retryable:
        return transient(message, code=error.code, retry_after=error.retry_after)
    if error.code == SANDBOX_LOST:
        return SandboxLost(message)
    return permanent(message, code=error.code)


_EFFECT_ERRORS: dict[str, tuple[type[PermanentError], type[TransientError]]] = {
    "tool_failure": (PermanentError, TransientError),
    "model_failure": (PermanentModelError, TransientModelError),
}
"""What an effect raises that failed for good, and what it raises when its tries are used up."""
