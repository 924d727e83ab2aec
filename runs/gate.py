"""The port of the policy gate: what it is asked, what it answers.

Owns the stages, the request and the decision. Knows no rule language. A decision is a pure function of
(policy digest, request), so equal requests may share one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen, Json

Stage = Literal["request", "context", "model", "capability", "output", "memory", "doubt"]


class Approval(Frozen):
    """A person's yes to one call: bound to the digest of its arguments and to the policy it was asked under."""

    request_id: str
    by: str
    at: int
    digest: str
    policy_digest: str


class GateRequest(Frozen):
    """Who wants what, at which stage.

    `resource` is the capability, model or agent concerned, `digest` the hash of its arguments, `arguments`
    their values. `budget` holds what remains (micros, tokens, hops, steps), absent where there is no limit.
    `facts` are computed before the engine sees them (hosts, paths, counters, run attributes).
    """

    stage: Stage
    run_id: str
    tenant: str
    principal: str
    agent: str
    route: str
    depth: int = 0
    resource: str
    version: str = "1"
    side_effect: str = "read"
    idempotency: str | None = None
    sensitivity: str = "internal"
    rollout: str = "full"
    digest: str = ""
    arguments: dict[str, Json] = Field(default_factory=dict)
    budget: dict[str, int] = Field(default_factory=dict)
    approval: Approval | None = None
    facts: dict[str, Json] = Field(default_factory=dict)


class RuleHit(Frozen):
    """One rule that decided: its id, what it said, why."""

    rule: str
    outcome: Literal["allow", "deny", "approval_required"]
    reason: str


class GateDecision(Frozen):
    """Allow, deny or ask a person; always explained. `micros` is the time it took, in microseconds."""

    outcome: Literal["allow", "deny", "approval_required"]
    reason: str
    rules: tuple[RuleHit, ...] = ()
    digest: str
    micros: int = 0

    @cached_property
    def facts(self) -> dict[str, Json]:
        """The decision as JSON for the journal; one that is shared is written out once. Not to be changed."""
        return self.model_dump(mode="json")


class Gate(Protocol):
    """Decides every stage. Never raises: an error inside is a denial that says so."""

    @property
    def digest(self) -> str:
        """Hash of the rules in force."""
        ...

    def decide(self, request: GateRequest) -> GateDecision:
        """Pure and synchronous."""
        ...
