"""What a run is: the frozen nouns that every room shares.

Owns statuses, stop reasons, budgets, usage, the request for a run and its record. Knows no journal, no
store, no model: those have modules of their own. All times are Unix nanoseconds (UTC), all money is
integer micro-dollars (1 USD = 1,000,000), all tokens are counts as the model endpoint reports them.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Json = Any
"""A JSON value: None, bool, int, float, str, list of Json, dict of str to Json."""

MICROS = 1_000_000
"""Micro-dollars in a dollar."""


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return not value


class Frozen(BaseModel):
    """Base of all contracts: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Status(StrEnum):
    """Where a run stands; the legal moves between them are in `runs.machine`."""

    queued = "queued"
    in_progress = "in_progress"
    waiting = "waiting"
    waiting_for_input = "waiting_for_input"
    waiting_for_approval = "waiting_for_approval"
    completed = "completed"
    failed = "failed"
    canceled = "canceled"

    @property
    def terminal(self) -> bool:
        """True when the run has ended; only a retry of a failed one can follow."""
        return self in _TERMINAL


_TERMINAL = frozenset({Status.completed, Status.failed, Status.canceled})


class StopReason(StrEnum):
    """Why a run stopped or waits; `runs.machine.STATUS_OF` gives the status each one leads to."""

    success = "success"
    handoff = "handoff"
    approval_required = "approval_required"
    input_required = "input_required"
    timer = "timer"
    child = "child"
    event = "event"
    retry_later = "retry_later"
    blocked = "blocked"
    budget_exhausted = "budget_exhausted"
    invalid_decision = "invalid_decision"
    policy_denied = "policy_denied"
    tool_failure = "tool_failure"
    model_failure = "model_failure"
    output_rejected = "output_rejected"
    side_effect_unknown = "side_effect_unknown"
    replay_mismatch = "replay_mismatch"
    deadline_exceeded = "deadline_exceeded"
    internal_error = "internal_error"
    canceled = "canceled"


class Budget(Frozen):
    """Limits of one run; None means no limit of its own (its parent's still hold).

    `steps` are model turns, `hops` capability calls, `tokens` input plus output tokens, `usd` dollars,
    `seconds` wall time since the run first started, `depth` how many levels of children may stand below
    it, `width` how many children one fan-out may have. Tokens and money of children are reserved from
    their parent's.
    """

    steps: int | None = Field(default=None, exclude_if=_is_none, ge=1)
    hops: int | None = Field(default=None, exclude_if=_is_none, ge=0)
    tokens: int | None = Field(default=None, exclude_if=_is_none, ge=0)
    usd: Decimal | None = Field(default=None, exclude_if=_is_none, ge=0, decimal_places=6)
    seconds: float | None = Field(default=None, exclude_if=_is_none, gt=0)
    depth: int | None = Field(default=None, exclude_if=_is_none, ge=0)
    width: int | None = Field(default=None, exclude_if=_is_none, ge=0)

    @field_validator("usd", mode="before")
    @classmethod
    def _no_binary_money(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    @property
    def micros(self) -> int | None:
        """The money limit in micro-dollars."""
        return None if self.usd is None else int(self.usd * MICROS)

    def within(self, limits: Budget) -> Budget:
        """This budget with every open limit filled from `limits`."""
        return limits.model_copy(update=self.model_dump(exclude_none=True))


NO_LIMITS = Budget()
"""A budget that limits nothing of its own."""


class Usage(Frozen):
    """What was spent, or is held in reserve."""

    steps: int = 0
    hops: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micros: int = 0

    @property
    def tokens(self) -> int:
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            steps=self.steps + other.steps,
            hops=self.hops + other.hops,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            micros=self.micros + other.micros,
        )


NOTHING = Usage()


class ErrorInfo(Frozen):
    """An error as a value: journaled, shown, returned as a failed branch."""

    reason: str
    code: str
    message: str
    retryable: bool = False
    retry_after: float | None = None


class RunRequest(Frozen):
    """A run to be: everything that is fixed when it is accepted. Its input travels beside it, sealed.

    `target` names an agent or workflow of the project's modules and `target_version` pins the definition
    it began with. `effect_scope` is the seed of idempotency keys: retries inherit it, forks get a new one.
    `queue` is what limits of concurrency and rate may be set for. A fork names the run it shares its past with
    in `forked_from` and the writes that run has made since in `repeats`: it asks before it makes one of them again;
    `seed` is that of its randomness, the run's own id where there is none.
    The parent of a `relayed` run takes its handoff and runs the receiver itself. The writes of one in `shadow`, and of
    all below it, are recorded and not made.
    """

    run_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None = Field(default=None, exclude_if=_is_none)
    tenant_id: str
    principal_id: str
    route: str = "api"
    kind: Literal["agent", "workflow"]
    target: str
    target_version: str
    job_id: str | None = Field(default=None, exclude_if=_is_none)
    parent_run_id: str | None = Field(default=None, exclude_if=_is_none)
    root_run_id: str
    agent_instance_id: str | None = Field(default=None, exclude_if=_is_none)
    session_id: str | None = Field(default=None, exclude_if=_is_none)
    idempotency_key: str | None = Field(default=None, exclude_if=_is_none)
    input_id: str | None = Field(default=None, exclude_if=_is_none)
    model: str | None = Field(default=None, exclude_if=_is_none)
    pool: str = "runs"
    queue: str = Field(default="", exclude_if=_is_empty)
    priority: int = Field(default=0, exclude_if=_is_empty)
    depth: int = Field(default=0, exclude_if=_is_empty)
    budget: Budget = Budget()
    deadline: int | None = Field(default=None, exclude_if=_is_none)
    effect_scope: str
    forked_from: str | None = Field(default=None, exclude_if=_is_none)
    repeats: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    seed: str | None = Field(default=None, exclude_if=_is_none)
    group_key: str | None = Field(default=None, exclude_if=_is_none)
    group_index: int | None = Field(default=None, exclude_if=_is_none)
    relayed: bool = Field(default=False, exclude_if=_is_empty)
    shadow: bool = Field(default=False, exclude_if=_is_empty)

    @field_validator("tenant_id", "principal_id", "trace_id", "run_id")
    @classmethod
    def _present(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty: no run without id, tenant, principal and trace id")
        return value


class Amendment(Frozen):
    """What retries changed of a request: the limits in force now, and since when (Unix ns) its clocks run.

    None leaves a version or a budget as it was; a deadline is lifted when no new one was given.
    """

    since: int
    retries: int = 1
    version: str | None = None
    budget: Budget | None = None
    deadline: int | None = None


class RunRecord(Frozen):
    """The control record of a run as the store holds it; what it read and wrote is in its journal."""

    run_id: str
    parent_run_id: str | None
    root_run_id: str
    tenant_id: str
    target: str
    kind: str
    input_id: str | None = None
    job_id: str | None = None
    pool: str
    queue: str = ""
    priority: int = 0
    depth: int
    status: Status
    held: bool = False
    reason: StopReason | None
    epoch: int
    position: int
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    wake_at: int | None = None
    cancel: str | None = None
    usage: Usage = NOTHING
    actor_id: str | None = None
    pid: int | None = None
    node: str | None = None


ERASED = "erased"
"""The fact of a result whose content was erased."""


class Branch(Frozen):
    """One child's result as a value: a failed branch is data, not an explosion. One whose tenant's key was destroyed
    has the fact `erased` and no value.
    """

    index: int
    run_id: str
    status: Status
    reason: StopReason
    value: Json = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    facts: dict[str, Json] = Field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when the child completed."""
        return self.status is Status.completed

    @property
    def problem(self) -> str:
        """Why it did not complete, in words."""
        return self.error.message if self.error else self.reason.value


OWN_FACTS = frozenset(
    "approver asked assignee by capability doubt escalate_at escalate_to escalated_at expires_at gate low_confidence "
    "prompt repeatable request_id requester side_effect status turn".split()
)
"""Facts that the runtime writes with a question or reads of one: those of a workflow's questions have other names."""


class PendingRequest(Frozen):
    """Something a run waits for from a person: an approval or an input.

    Nobody's answer counts after `expires_at`; `assignee` is who should answer, since `escalated_at` when the one
    asked first did not.
    """

    request_id: str
    run_id: str
    root_run_id: str
    tenant_id: str
    kind: Literal["approval", "input"]
    key: str
    prompt: str
    asked: dict[str, Json] = Field(default_factory=dict)
    facts: dict[str, Json] = Field(default_factory=dict)
    status: Literal["open", "approved", "denied", "answered", "expired", "withdrawn"] = "open"
    assignee: str | None = None
    created_at: int
    expires_at: int | None = None
    escalated_at: int | None = None
    resolved_at: int | None = None
    resolved_by: str | None = None
