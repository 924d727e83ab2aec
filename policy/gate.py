"""The gate: invariants first, then the rules, then what an approval would change.

Owns the order of these and the cache of decisions. A decision is a pure function of (policy digest, kill
switch, request); whatever goes wrong inside is a denial that says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable, Mapping
from hashlib import blake2b
from threading import Lock
from typing import Literal

from retinue.policy.facts import Unclear
from retinue.policy.invariants import Invariants, weigh_approval
from retinue.policy.rules import SCHEMA, Rule
from retinue.policy.view import FULL_LIFT, RESOURCE_TYPES, Answer, EngineFault, Lift, Seen, View
from retinue.runs.gate import Approver, GateDecision, GateRequest, RuleHit, explain

CACHE_SIZE = 4096
"""Decisions kept; the oldest makes room."""


class CedarGate:
    """Implements `runs.gate.Gate` with Cedar rules. Safe to share between threads."""

    def __init__(
        self,
        rules: Iterable[Rule],
        invariants: Invariants | None = None,
        roles: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """`rules` come checked from `policy.rules.read_rules`; `roles` says who has which (role to names)."""
        self._rules = tuple(rules)
        self._roles = roles or {}
        self._invariants = invariants or Invariants()
        self._digest = _hash_rules(self._rules)
        self._stages = {stage: self._view(stage, None) for stage in RESOURCE_TYPES}
        self._named = {
            (stage, rule.resource): self._view(stage, rule.resource)
            for rule in self._rules
            if rule.resource is not None
            for stage in (rule.stages or RESOURCE_TYPES)
        }
        self._decisions: dict[Hashable, GateDecision] = {}
        self._lock = Lock()

    @property
    def digest(self) -> str:
        """Hash of the rules in force and of the schema they were checked against."""
        return self._digest

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force, in the order of their files."""
        return self._rules

    def decide(self, request: GateRequest) -> GateDecision:
        """Allow, deny or ask a person. Never raises. `micros` is 0 for a decision from the cache."""
        started = time.perf_counter_ns()
        try:
            broken = self._invariants.check(request)
            if broken is not None:
                return self._deny(broken.reason, broken, started)
            return self._decide_by_rules(request, started)
        except Unclear as problem:
            reason = f"the rules cannot judge this call: {problem}"
            return self._deny(reason, RuleHit(rule="retinue.unclear", outcome="deny", reason=reason), started)
        except EngineFault as problem:
            reason = f"a rule failed, so nothing is allowed: {problem}"
            return self._deny(reason, RuleHit(rule="retinue.engine", outcome="deny", reason=reason), started)
        except Exception as problem:
            reason = f"the gate failed, so nothing is allowed: {type(problem).__name__}: {problem}"
            return self._deny(reason, RuleHit(rule="retinue.error", outcome="deny", reason=reason), started)

    def view_of(self, stage: str, resource: str) -> View:
        """The rules that concern a stage and resource."""
        return self._named.get((stage, resource)) or self._stages[stage]

    def _decide_by_rules(self, request: GateRequest, started: int) -> GateDecision:
        view = self.view_of(request.stage, request.resource)
        seen = view.see(request)
        approval = weigh_approval(request, self._digest, self._roles)
        key = (request.stage, request.resource, approval, seen.key)
        known = self._decisions.get(key)
        if known is not None:
            return known
        fresh = _judge(view, request, seen, approval, self._digest)
        self._remember(key, fresh)
        return fresh.model_copy(update={"micros": _micros_since(started)})

    def _remember(self, key: Hashable, decision: GateDecision) -> None:
        with self._lock:
            if len(self._decisions) >= CACHE_SIZE:
                self._decisions.pop(next(iter(self._decisions)))
            self._decisions[key] = decision

    def _deny(self, reason: str, hit: RuleHit, started: int) -> GateDecision:
        return GateDecision(
            outcome="deny", reason=reason, rules=(hit,), digest=self._digest, micros=_micros_since(started)
        )

    def _view(self, stage: str, resource: str | None) -> View:
        return View(rule for rule in self._rules if rule.concerns(stage, resource))


def _judge(view: View, request: GateRequest, seen: Seen, approval: tuple[Lift, str], digest: str) -> GateDecision:
    lift, doubt = approval
    answer = view.ask(request, seen, lift)
    if answer.allowed:
        return _final(request, answer, digest)
    if (lift.kind == "other" and all(map(lift.covers, view.approvals))) or not (view.approvals or view.sees_approval):
        return _final(request, answer, digest)
    granted = view.ask(request, seen, FULL_LIFT)
    if not granted.allowed:
        return _final(request, granted, digest)
    asking = answer if answer.rules else granted
    approver = _approver(answer.rules)
    reasons = [_explain(request, asking.rules), doubt or _lacking(lift, approver)]
    return GateDecision(
        outcome="approval_required",
        reason="; ".join(filter(None, reasons)),
        rules=tuple(RuleHit(rule=r.id, outcome="approval_required", reason=r.reason) for r in asking.rules),
        digest=digest,
        approver=approver,
    )


def _final(request: GateRequest, answer: Answer, digest: str) -> GateDecision:
    outcome: Literal["allow", "deny"] = "allow" if answer.allowed else "deny"
    return GateDecision(outcome=outcome, reason=_explain(request, answer.rules), rules=_hits(answer), digest=digest)


def _approver(asking: tuple[Rule, ...]) -> Approver:
    """Who can answer all of the rules that ask a person."""
    roles = sorted({rule.role for rule in asking if rule.role is not None})
    return Approver(roles=tuple(roles), requester=bool(asking) and all(rule.self_approval for rule in asking))


def _lacking(lift: Lift, approver: Approver) -> str:
    missing = [role for role in approver.roles if role not in lift.roles]
    return f"{lift.by!r} does not have the role {', '.join(missing)}" if lift.kind == "other" and missing else ""


def _hits(answer: Answer) -> tuple[RuleHit, ...]:
    outcome: Literal["allow", "deny"] = "allow" if answer.allowed else "deny"
    return tuple(RuleHit(rule=rule.id, outcome=outcome, reason=rule.reason) for rule in answer.rules)


def _explain(request: GateRequest, rules: tuple[Rule, ...]) -> str:
    if not rules:
        return f"no rule permits {request.stage} {request.resource!r}; add a permit rule for it"
    return explain({rule.id: rule.reason for rule in rules})


def _hash_rules(rules: tuple[Rule, ...]) -> str:
    hasher = blake2b(SCHEMA.encode(), digest_size=16)
    for text in sorted(rule.text for rule in rules):
        hasher.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return hasher.hexdigest()


def _micros_since(started: int) -> int:
    return (time.perf_counter_ns() - started) // 1000
