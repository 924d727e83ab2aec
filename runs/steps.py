"""The currency between a run's function and the runtime: commands, waits, and how an effect ended.

Plain data. Knows neither the function's loop nor how any effect is carried out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from retinue.runs.contracts import NOTHING, ErrorInfo, Json, StopReason, Usage
from retinue.runs.errors import EffectError, RetinueError, RunError, TransientError
from retinue.runs.journal import EffectKind, Intent, Outcome

EDITED = "edited"
"""The fact of a call whose approver changed its arguments: by whom, and the digests of both calls."""


@dataclass(slots=True)
class Command:
    """An effect that the function asked for and waits for. `future` belongs to the function's loop.

    `interrupted` says that its intent is in the journal from an earlier owner: it may have happened. `doubted` says
    why this owner does not know how it ended.
    """

    key: str
    effect: EffectKind
    name: str
    digest: str
    arguments: Json
    future: asyncio.Future[Any]
    options: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    doubted: str = ""


@dataclass(slots=True)
class Done:
    """An effect ended. `hard` says that the outcome must be durable before the function goes on.

    `live` is handed to the function instead of `value` when it is the same thing already parsed.
    """

    value: Json = None
    result: Literal["ok", "refused", "error", "unknown", "canceled"] = "ok"
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    facts: dict[str, Json] = field(default_factory=dict)
    hard: bool = True
    live: Any = None


@dataclass(slots=True)
class Wait:
    """An effect waits, holding nothing, for an arrival or for `at` (Unix ns), whichever comes first.

    With `session` it is over too when the capability session of this id is closed.
    """

    reason: StopReason
    at: int | None = None
    request: str | None = None
    group: str | None = None
    event: str | None = None
    session: str | None = None


def result_of(outcome: Outcome) -> tuple[Json, dict[str, Json] | None]:
    """The value of an outcome, and the arguments a call was made with where its approver changed them."""
    content = outcome.content
    if EDITED in outcome.facts and isinstance(content, dict) and content.keys() == {"called", "value"}:
        return content["value"], content["called"]
    return content, None


def asked_by(command: Command) -> dict[str, Json]:
    """The model's own words for a step: its id and its turn; a workflow's step has neither."""
    return {name: command.options[name] for name in ("call_id", "turn") if command.options.get(name) is not None}


def intent_of(command: Command, at: int, facts: dict[str, Json] | None = None) -> Intent:
    """The journal's word on an effect that is about to happen with the arguments it was asked for with."""
    return Intent(
        at=at,
        content=command.arguments,
        key=command.key,
        effect=command.effect,
        name=command.name,
        digest=command.digest,
        facts=facts or {},
    )


def outcome_of(command: Command, done: Done, activation: int, at: int) -> Outcome:
    """The journal's word on how an effect ended; activation 0 when it is not delivered."""
    return Outcome(
        at=at,
        content=done.value,
        key=command.key,
        effect=command.effect,
        name=command.name,
        activation=activation,
        result=done.result,
        error=done.error,
        usage=done.usage,
        facts=done.facts,
    )


def cut_short(intent: Intent, at: int) -> Outcome:
    """The journal's word on an effect that was stopped in flight: a write, or a step that must not be repeated, is
    unknown, a paid call spent.
    """
    unknown = intent.leaves_doubt
    doubt = ": whether it took effect is not known" if unknown else ""
    reason = "side_effect_unknown" if unknown else "canceled"
    return Outcome(
        at=at,
        key=intent.key,
        effect=intent.effect,
        name=intent.name,
        activation=0,
        result="unknown" if unknown else "canceled",
        error=ErrorInfo(reason=reason, code="canceled", message=f"{intent.name} was stopped in flight{doubt}"),
        usage=intent.reserved if unknown or intent.reserved.micros else NOTHING,
    )


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as a value."""
    if isinstance(error, EffectError):
        retryable = isinstance(error, TransientError)
        after = error.retry_after if isinstance(error, TransientError) else None
        return ErrorInfo(
            reason=error.reason, code=error.code, message=str(error), retryable=retryable, retry_after=after
        )
    if isinstance(error, RunError):
        return ErrorInfo(reason=error.reason, code=type(error).__name__, message=str(error))
    if isinstance(error, RetinueError):
        return ErrorInfo(reason="internal_error", code=type(error).__name__, message=str(error))
    message = f"{type(error).__name__}: {error}"
    return ErrorInfo(reason="internal_error", code=type(error).__name__, message=message)
