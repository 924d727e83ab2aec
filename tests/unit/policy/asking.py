"""Questions to a gate, shared by the tests of the policy room."""

from __future__ import annotations

from typing import Any

from retinue.policy.gate import CedarGate
from retinue.policy.invariants import Invariants
from retinue.policy.rules import read_rules
from retinue.runs.gate import Approval, GateRequest

PERMIT_ALL = '@id("all") permit (principal, action, resource);'

DEFAULTS: dict[str, Any] = {
    "stage": "capability",
    "run_id": "r1",
    "tenant": "acme",
    "principal": "ana",
    "agent": "clerk",
    "route": "cli",
    "resource": "search",
}
WRITE: dict[str, Any] = {
    "resource": "refund",
    "side_effect": "write",
    "idempotency": "idempotent",
    "digest": "d1",
}


def ask(**changes: Any) -> GateRequest:
    return GateRequest(**{**DEFAULTS, **changes})


def gate_of(*rules: str, **invariants: Any) -> CedarGate:
    return CedarGate(read_rules({"rules.cedar": "\n".join(rules)}), Invariants(**invariants))


def approve(gate: CedarGate, **changes: Any) -> Approval:
    given = {"request_id": "q1", "by": "bob", "at": 1, "digest": "d1", "policy_digest": gate.digest}
    return Approval(**{**given, **changes})
