"""The error tree of Retinue, drawn in one place.

Owns every exception that crosses a room's border. A message says what happened, to which run or field,
and what to do. Knows nothing of who raises or catches them.

    RetinueError
    ├── InvalidInput          the caller's fault: a field, a value, the remedy
    │   ├── ConfigError       a file, a line, a key
    │   ├── UnknownName       an agent, tool, model or run that does not exist
    │   └── LimitReached      a tenant's money limit leaves no room; nothing was accepted
    ├── RunError              how a run ended, seen by whoever waits for it
    │   ├── RunFailed / RunCanceled
    │   ├── BudgetExhausted / PolicyDenied / ReplayMismatch / InvalidDecision / OutputRejected
    │   └── SideEffectUnknown an effect may have happened though no outcome was recorded
    ├── EffectError           a model or a capability failed: Transient (may be retried) or Permanent
    └── StoreError            Fenced, StoreFull, StoreBusy, StoreUnreachable, StoreBroken, SchemaMismatch
"""

from __future__ import annotations


class RetinueError(Exception):
    """Root of all errors that Retinue raises on purpose. `step` is the key of the step it came from, if known."""

    step: str | None = None


class InvalidInput(RetinueError):
    """Something the caller gave cannot be used; the message names field, value and remedy."""


class ConfigError(InvalidInput):
    """A configuration or policy file cannot be used; the message names file, line and key."""


class UnknownName(InvalidInput):
    """A name that resolves to nothing; the message lists close matches."""


class LimitReached(InvalidInput):
    """The account of a tenant (its id, the window's name) has no room for a run; nothing was accepted."""

    def __init__(self, message: str, tenant_id: str, window: str) -> None:
        super().__init__(message)
        self.tenant_id = tenant_id
        self.window = window


class RunError(RetinueError):
    """A run did not end with a result. `reason` is the stop reason's value, `facts` go with the end's own."""

    reason = "internal_error"

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.facts: dict[str, object] = {}


class RunFailed(RunError):
    """A run that was waited for ended as failed, for the reason it carries."""

    def __init__(self, message: str, *, run_id: str | None = None, reason: str = "internal_error") -> None:
        super().__init__(message, run_id=run_id)
        self.reason = reason


class RunCanceled(RunError):
    """The run was canceled; the message says by whom and why."""

    reason = "canceled"


class BudgetExhausted(RunError):
    """A limit of the run's budget would be passed; nothing was spent on the refused step."""

    reason = "budget_exhausted"


class PolicyDenied(RunError):
    """The gate denied a stage that the run cannot go on without."""

    reason = "policy_denied"


class InvalidDecision(RunError):
    """The model's reply is no decision of the typed protocol, also after the bounded corrections."""

    reason = "invalid_decision"


class OutputRejected(RunError):
    """The answer does not satisfy the output's schema or rules, also after the bounded corrections."""

    reason = "output_rejected"


class ReplayMismatch(RunError):
    """The code no longer issues the steps that the journal holds; names expected and found."""

    reason = "replay_mismatch"


class SideEffectUnknown(RunError):
    """An effect may have happened though no outcome was recorded, and no rule says what to do."""

    reason = "side_effect_unknown"


class DeadlineExceeded(RunError):
    """The run's wall time or deadline has passed."""

    reason = "deadline_exceeded"


class EffectError(RetinueError):
    """A model or a capability failed. `code` is a short stable word for tables and policies; `full` is what came back
    where that was refused for its size alone (a `Whole`).
    """

    reason = "tool_failure"

    def __init__(self, message: str, *, code: str = "error") -> None:
        super().__init__(message)
        self.code = code
        self.full: object = None


class TransientError(EffectError):
    """May succeed when tried again; `retry_after` is in seconds when the other side named it."""

    def __init__(self, message: str, *, code: str = "transient", retry_after: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class PermanentError(EffectError):
    """Will not succeed when tried again with the same arguments."""


class TransientModelError(TransientError):
    """The model endpoint is down, slow, limiting or broke off; nothing usable was received."""

    reason = "model_failure"


class PermanentModelError(PermanentError):
    """The model endpoint refused the request or replied with something that is not its protocol."""

    reason = "model_failure"


class StoreError(RetinueError):
    """The store could not do what was asked; nothing of the refused operation was applied."""


class Fenced(StoreError):
    """An append named an old epoch or a wrong position: another owner has the run now."""


class StoreFull(StoreError):
    """The disk is full; nothing of the refused operation was applied. Free space and resume."""


class StoreBusy(StoreError):
    """Another process holds the store longer than the bound, or another runtime owns the folder."""


class StoreUnreachable(StoreError):
    """A part of the store that is not on this machine does not answer, or does not let us in; it may later."""


class StoreBroken(StoreError):
    """A part of the store that is not its disk fails, such as a file of the package: to wait helps nobody."""


class SchemaMismatch(StoreError):
    """The store was written by another version of Retinue; migrate it or use that version."""
