"""What no rule can change: checks in plain Python before any rule is asked.

Owns the invariants and the test of an approval. Knows no rule and no rule engine.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from retinue.policy.view import NO_LIFT, RESOURCE_TYPES, Lift
from retinue.runs.gate import Approval, GateRequest, RuleHit

SIDE_EFFECTS = ("read", "draft", "write")
CONTRACTS = ("idempotent", "reconcilable", "at_most_once")
ROLLOUTS = ("shadow", "canary", "full", "stopped")


@dataclass(frozen=True, slots=True)
class Invariants:
    """`kill_switch`: True, or a file that stops everything while it exists; `tenants`: None admits any."""

    kill_switch: Path | bool = False
    tenants: frozenset[str] | None = None

    def check(self, request: GateRequest) -> RuleHit | None:
        """The invariant that a request breaks, or None."""
        return self._check_switch() or self._check_identity(request) or _check_effect(request)

    def _check_switch(self) -> RuleHit | None:
        if self.kill_switch is False:
            return None
        if self.kill_switch is True:
            return _deny("kill_switch", "everything is stopped: the kill switch is on")
        try:
            os.stat(self.kill_switch)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot see the kill switch {self.kill_switch.name}: {error.strerror}"
            return _deny("kill_switch", f"everything is stopped: {problem}")
        return _deny("kill_switch", f"everything is stopped while the file {self.kill_switch.name} exists")

    def _check_identity(self, request: GateRequest) -> RuleHit | None:
        if not (_is_name(request.tenant) and _is_name(request.principal)):
            return _deny("identity", "no request without a tenant and a principal")
        if self.tenants is not None and request.tenant not in self.tenants:
            return _deny("tenant", f"tenant {request.tenant!r} is not served here")
        owner = request.facts.get("resource_tenant", request.tenant)
        if owner != request.tenant:
            return _deny("tenant", f"{request.resource!r} belongs to another tenant than {request.tenant!r}")
        if request.stage not in RESOURCE_TYPES:
            known = ", ".join(RESOURCE_TYPES)
            return _deny("stage", f"there is no stage {request.stage!r}; stages are {known}")
        return None


def _check_effect(request: GateRequest) -> RuleHit | None:
    if request.side_effect not in SIDE_EFFECTS or request.rollout not in ROLLOUTS:
        effect = f"side effect {request.side_effect!r} at rollout {request.rollout!r}"
        return _deny("effect", f"{effect} is not known")
    if request.facts.get("rollout_new") is True:
        return _deny("stopped", f"the rollout of {request.resource!r} or its agent was stopped before this run began")
    if request.side_effect != "write":
        return None
    if request.rollout == "shadow":
        return _deny("shadow", f"{request.resource!r} is in shadow: the call is on record and was not made")
    if request.stage == "capability" and request.idempotency not in CONTRACTS:
        return _deny("contract", f"{request.resource!r} writes without an idempotency contract; declare one")
    return None


def weigh_approval(
    request: GateRequest, policy_digest: str, roles: Mapping[str, Collection[str]] = MappingProxyType({})
) -> tuple[Lift, str]:
    """How far an approval reaches and why not further. `roles` says who has which."""
    approval = request.approval
    if approval is None:
        return NO_LIFT, ""
    problem = _void(approval, request, policy_digest)
    if problem:
        return NO_LIFT, f"the approval {approval.request_id!r} {problem}"
    if approval.by == request.principal:
        return Lift("own", approval.by), f"{approval.by!r} asked for it and cannot approve it alone"
    return Lift("other", approval.by, frozenset(role for role, names in roles.items() if approval.by in names)), ""


def _void(approval: Approval, request: GateRequest, policy_digest: str) -> str:
    """Why an approval counts for nothing; empty when it counts."""
    if not request.digest or approval.digest != request.digest:
        return "was given for other arguments or another version"
    if approval.policy_digest != policy_digest:
        return "was given under other rules"
    if approval.expires_at is not None and request.now >= approval.expires_at:
        return "has expired: it was not used in time"
    return "" if approval.by else "names no approver"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _deny(name: str, reason: str) -> RuleHit:
    return RuleHit(rule=f"retinue.{name}", outcome="deny", reason=reason)
