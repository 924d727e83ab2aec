"""What no rule can change: checks in plain Python before any rule is asked.

Owns the invariants and the test of an approval. Knows no rule and no rule engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinue.policy.view import RESOURCE_TYPES
from retinue.runs.gate import GateRequest, RuleHit

SIDE_EFFECTS = ("read", "draft", "write")
CONTRACTS = ("idempotent", "reconcilable", "at_most_once")
ROLLOUTS = ("shadow", "canary", "full")

Lift = Literal["no", "self", "yes"]


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
    if request.side_effect != "write":
        return None
    if request.rollout == "shadow":
        return _deny("shadow", f"{request.resource!r} is in shadow, and shadow never writes")
    if request.stage == "capability" and request.idempotency not in CONTRACTS:
        return _deny("contract", f"{request.resource!r} writes without an idempotency contract; declare one")
    return None


def weigh_approval(request: GateRequest, policy_digest: str) -> tuple[Lift, str]:
    """How far an approval reaches and why not further; `self`: only rules that let the requester approve."""
    approval = request.approval
    if approval is None:
        return "no", ""
    if not request.digest or approval.digest != request.digest:
        return "no", f"the approval {approval.request_id!r} was given for other arguments"
    if approval.policy_digest != policy_digest:
        return "no", f"the approval {approval.request_id!r} was given under other rules"
    if not approval.by:
        return "no", f"the approval {approval.request_id!r} names no approver"
    if approval.by == request.principal:
        return "self", f"{approval.by!r} asked for it and cannot approve it alone"
    return "yes", ""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _deny(name: str, reason: str) -> RuleHit:
    return RuleHit(rule=f"retinue.{name}", outcome="deny", reason=reason)
