"""The port of the policy gate: what it is asked, what it answers.

Owns the stages, the request and the decision. Knows no rule language. A decision is a pure function of
(policy digest, request), so equal requests may share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen, Json

Stage = Literal["request", "context", "model", "capability", "output", "memory", "doubt", "sandbox", "egress"]


def _is_none(value: object) -> bool:
    return value is None


class Approval(Frozen):
    """A person's yes to one call: bound to the digest of its arguments and to the policy it was asked under.

    It counts before `expires_at` (Unix ns; None: no end).
    """

    request_id: str
    by: str
    at: int
    digest: str
    policy_digest: str
    expires_at: int | None = None


class Approver(Frozen):
    """Who may say yes: somebody who has all `roles`, and is not the requester unless `requester`."""

    roles: tuple[str, ...] = ()
    requester: bool = False


class GateRequest(Frozen):
    """Who wants what, at which stage.

    `resource` is the capability, model or agent concerned, `digest` the hash of its arguments, `arguments`
    their values. `budget` holds what remains (micros, tokens, hops, steps), absent where there is no limit.
    `facts` are computed before the engine sees them (hosts, paths, counters, run attributes). `now` (Unix ns) is
    there beside an approval, to weigh it; no rule sees it.
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
    now: int = 0
    facts: dict[str, Json] = Field(default_factory=dict)


class RuleHit(Frozen):
    """One rule that decided: its id, what it said, why."""

    rule: str
    outcome: Literal["allow", "deny", "approval_required"]
    reason: str


class GateDecision(Frozen):
    """Allow, deny or ask a person; always explained. `micros` is the time it took, in microseconds.

    `approver` says who could answer a question to a person.
    """

    outcome: Literal["allow", "deny", "approval_required"]
    reason: str
    rules: tuple[RuleHit, ...] = ()
    digest: str
    micros: int = 0
    approver: Approver | None = Field(default=None, exclude_if=_is_none)

    @cached_property
    def facts(self) -> dict[str, Json]:
        """The decision as JSON for the journal, in few bytes since every call has one; `in_full` reads it.

        One that is shared is written out once. Not to be changed.
        """
        said: dict[str, Json] = {"outcome": self.outcome, "reason": self.reason, "digest": self.digest}
        reasons = {hit.rule: hit.reason for hit in self.rules}
        if any(hit.outcome != self.outcome for hit in self.rules) or len(reasons) < len(self.rules):
            said["rules"] = [hit.model_dump(mode="json") for hit in self.rules]
        else:
            said["rules"] = reasons
            if self.reason == explain(reasons):
                del said["reason"]
        return said | ({"micros": self.micros} if self.micros else {})


def explain(reasons: Mapping[str, str]) -> str:
    """The reason of a decision that rules made: those of the rules, by id."""
    return "; ".join(f"{reason} (rule {rule})".lstrip() for rule, reason in reasons.items())


def in_full(said: Mapping[str, Json]) -> dict[str, Json]:
    """A decision as the journal holds it, of any version, with its reason and a hit (rule, outcome, reason) a rule."""
    rules = said.get("rules")
    if not isinstance(rules, dict):
        return {"micros": 0, **said}
    hits = [{"rule": rule, "outcome": said.get("outcome"), "reason": reason} for rule, reason in rules.items()]
    return {"micros": 0, "reason": explain(rules), **said, "rules": hits}


class Gate(Protocol):
    """Decides every stage. Never raises: an error inside is a denial that says so."""

    @property
    def digest(self) -> str:
        """Hash of the rules in force."""
        ...

    def decide(self, request: GateRequest) -> GateDecision:
        """Pure and synchronous."""
        ...
