"""The gate: invariants first, then the rules, then what an approval would change.

Owns the order of these and the cache of decisions. A decision is a pure function of (policy digest, kill
switch, request); whatever goes wrong inside is a denial that says so.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from hashlib import blake2b
from threading import Lock
from typing import Literal

from retinue.policy.facts import Unclear
from retinue.policy.invariants import Invariants, Lift, weigh_approval
from retinue.policy.rules import SCHEMA, Rule
from retinue.policy.view import RESOURCE_TYPES, Answer, EngineFault, Seen, View
from retinue.runs.gate import GateDecision, GateRequest, RuleHit, explain

CACHE_SIZE = 4096
"""Decisions kept; the oldest makes room."""


class CedarGate:
    """Implements `runs.gate.Gate` with Cedar rules. Safe to share between threads."""

    def __init__(self, rules: Iterable[Rule], invariants: Invariants | None = None) -> None:
        """`rules` come checked from `policy.rules.read_rules`."""
        self._rules = tuple(rules)
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

    def _decide_by_rules(self, request: GateRequest, started: int) -> GateDecision:
        view = self._named.get((request.stage, request.resource)) or self._stages[request.stage]
        seen = view.see(request)
        approval = weigh_approval(request, self._digest)
        key = (request.stage, request.resource, approval, seen.key)
        known = self._decisions.get(key)
        if known is not None:
            return known
        outcome, reason, hits = _judge(view, request, seen, approval)
        fresh = GateDecision(outcome=outcome, reason=reason, rules=hits, digest=self._digest)
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


_Judgement = tuple[Literal["allow", "deny", "approval_required"], str, tuple[RuleHit, ...]]


def _judge(view: View, request: GateRequest, seen: Seen, approval: tuple[Lift, str]) -> _Judgement:
    lift, doubt = approval
    answer = view.ask(request, seen, lift)
    if answer.allowed:
        return "allow", _explain(request, answer.rules), _hits(answer)
    if lift == "yes" or not (view.approvals or view.sees_approval):
        return "deny", _explain(request, answer.rules), _hits(answer)
    granted = view.ask(request, seen, "yes")
    if not granted.allowed:
        return "deny", _explain(request, granted.rules), _hits(granted)
    asking = answer if answer.rules else granted
    hits = tuple(RuleHit(rule=r.id, outcome="approval_required", reason=r.reason) for r in asking.rules)
    reason = _explain(request, asking.rules)
    return "approval_required", f"{reason}; {doubt}" if doubt else reason, hits


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
