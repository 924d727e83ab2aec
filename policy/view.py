"""What the rules that concern one stage and resource can see, and what they answer.

Owns the projection of a request onto the fields those rules read, which is also the key under which equal
decisions are shared, and the call to the rule engine. Knows no invariant and no approval.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cedarpy

from retinue.policy.facts import KINDS, Fact, Facts, Unclear, sort_values
from retinue.policy.reads import ANY, PRINCIPAL, Field
from retinue.policy.rules import Rule
from retinue.runs.gate import GateRequest

RESOURCE_TYPES = {
    "request": "Agent",
    "context": "Agent",
    "output": "Agent",
    "model": "Model",
    "capability": "Capability",
    "memory": "Memory",
    "doubt": "Capability",
    "sandbox": "Sandbox",
    "egress": "Sandbox",
}
"""The entity type of a request's resource at each stage."""

_PLAIN: Mapping[str, Callable[[GateRequest], str | int | None]] = {
    "tenant": lambda request: request.tenant,
    "agent": lambda request: request.agent,
    "route": lambda request: request.route,
    "depth": lambda request: request.depth,
    "version": lambda request: request.version,
    "side_effect": lambda request: request.side_effect,
    "idempotency": lambda request: request.idempotency,
    "sensitivity": lambda request: request.sensitivity,
    "rollout": lambda request: request.rollout,
}
_LIMITS = ("micros", "tokens", "hops", "steps")
_BAGS = ("arguments", "facts")


@dataclass(frozen=True, slots=True)
class Lift:
    """Which of the rules that ask a person are set aside: none, all, or those that `by` could answer.

    `own` is the requester's yes to itself, `other` that of somebody else, who has `roles`.
    """

    kind: Literal["none", "own", "other", "all"] = "none"
    by: str = ""
    roles: frozenset[str] = frozenset()

    def covers(self, rule: Rule) -> bool:
        """Whether a rule that asks a person is set aside."""
        if self.kind == "other":
            return rule.role is None or rule.role in self.roles
        return self.kind == "all" or (self.kind == "own" and rule.self_approval)


NO_LIFT, FULL_LIFT = Lift(), Lift("all")


class EngineFault(RuntimeError):
    """The rule engine gave no clean answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The engine's answer and the rules that decided it (none: nothing permits)."""

    allowed: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rules can see of one request; equal `key` means equal answers."""

    key: Hashable
    context: dict[str, Any]
    entities: list[dict[str, Any]]
    principal: str


class View:
    """The rules that concern one stage and resource, compiled, with the fields they read."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_id = {rule.id: rule for rule in self.rules}
        fields = _spell_out(field for rule in self.rules for field in rule.reads)
        self._plain = tuple((name, read) for name, read in _PLAIN.items() if (name,) in fields)
        self._limits = tuple(limit for limit in _LIMITS if ("budget", limit) in fields)
        self._bags = tuple((bag, _names_by_kind(bag, fields)) for bag in _BAGS if _names_by_kind(bag, fields))
        self._sees_hosts = ("hosts",) in fields
        self._sees_principal = PRINCIPAL in fields
        self.sees_approval = ("approved",) in fields
        self.approvals = tuple(rule for rule in self.rules if rule.outcome == "approval_required")
        self._compiled: dict[frozenset[str], cedarpy.PolicySet] = {}
        for lift in (NO_LIFT, FULL_LIFT):
            self._without(lift)

    def see(self, request: GateRequest) -> Seen:
        """The part of a request that these rules read. Raises Unclear for a value of a kind they do not read."""
        context: dict[str, Any] = {}
        entities: list[dict[str, Any]] = []
        key: list[Hashable] = []
        for name, read in self._plain:
            value = read(request)
            key.append(value)
            if value is not None:
                context[name] = value
        if self._limits:
            left = {limit: request.budget[limit] for limit in self._limits if limit in request.budget}
            context["budget"] = left
            key.append(tuple(left.items()))
        if self._bags or self._sees_hosts:
            key.append(self._see_values(request, context, entities))
        principal = request.principal if self._sees_principal else "-"
        key.append(principal)
        return Seen(tuple(key), context, entities, principal)

    def _see_values(self, request: GateRequest, context: dict[str, Any], entities: list[dict[str, Any]]) -> Hashable:
        key: list[Hashable] = []
        arguments = sort_values(request.arguments)
        if self._sees_hosts:
            if not arguments.hosts_clear:
                raise Unclear("an address in the arguments does not say clearly which host it names")
            hosts = sorted(arguments.hosts)
            context["hosts"] = hosts
            key.append(tuple(hosts))
        for bag, names in self._bags:
            facts = arguments if bag == "arguments" else sort_values(request.facts)
            context[bag] = {}
            for kind, wanted in names.items():
                values = _select(facts, bag, kind, wanted)
                key.append(tuple(sorted(values.items())))
                context[bag][kind] = _show(bag, kind, values, entities)
        return tuple(key)

    def _without(self, lift: Lift) -> cedarpy.PolicySet:
        """The rules but those that are set aside; compiled when first needed."""
        aside = frozenset(rule.id for rule in self.approvals if lift.covers(rule))
        policies = self._compiled.get(aside)
        if policies is None:
            policies = self._compiled[aside] = _compile(rule for rule in self.rules if rule.id not in aside)
        return policies

    def reads(self) -> frozenset[str]:
        """The fields that its rules read, by their names at the top: `tenant`, `budget`, `arguments`, `hosts`, ..."""
        bags = {bag for bag, _ in self._bags} | ({"hosts"} if self._sees_hosts else set())
        limits = {"budget"} if self._limits else set()
        principal = {"principal"} if self._sees_principal else set()
        return frozenset({name for name, _ in self._plain} | bags | limits | principal)

    def ask(self, request: GateRequest, seen: Seen, lift: Lift) -> Answer:
        """The engine's answer, with the rules of `lift` set aside."""
        policies = self._without(lift)
        approved = lift.kind in ("other", "all")
        context = {**seen.context, "approved": approved} if self.sees_approval else seen.context
        question = {
            "principal": {"type": "Principal", "id": seen.principal},
            "action": {"type": "Action", "id": request.stage},
            "resource": {"type": RESOURCE_TYPES[request.stage], "id": request.resource},
            "context": context,
        }
        result = cedarpy.is_authorized(question, policies, seen.entities)
        diagnostics = result.diagnostics
        if diagnostics.errors or result.decision is cedarpy.Decision.NoDecision:
            raise EngineFault("; ".join(diagnostics.errors) or "no decision")
        ids = diagnostics.id_annotations_by_reason
        decided = tuple(self._by_id[ids[reason]] for reason in sorted(diagnostics.reasons))
        return Answer(result.decision is cedarpy.Decision.Allow, decided)


def _compile(rules: Iterable[Rule]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str("\n".join(rule.text for rule in rules))


def _spell_out(fields: Iterable[Field]) -> frozenset[Field]:
    """Every leaf that the fields reach: a field that holds others stands for all of them."""
    leaves: set[Field] = set()
    for field in fields:
        if field in (PRINCIPAL, ("hosts",), ("approved",)) or (len(field) == 1 and field[0] in _PLAIN):
            leaves.add(field)
            continue
        leaves.update(_spell_out_nested(field))
    return frozenset(leaves)


def _spell_out_nested(field: Field) -> Iterable[Field]:
    if field == (ANY,):
        yield from ((name,) for name in (*_PLAIN, "hosts", "approved"))
        yield from (("budget", limit) for limit in _LIMITS)
        for bag in _BAGS:
            yield from _spell_out_nested((bag,))
    elif field[0] == "budget":
        yield from [field[:2]] if len(field) > 1 else [("budget", limit) for limit in _LIMITS]
    elif len(field) == 1:
        yield from ((field[0], kind, ANY) for kind in ("names", *KINDS))
    else:
        yield (field[0], field[1], field[2] if len(field) > 2 else ANY)


def _names_by_kind(bag: str, fields: frozenset[Field]) -> dict[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for field in fields:
        if field[0] == bag and len(field) == 3:
            names.setdefault(field[1], set()).add(field[2])
    return {kind: frozenset(wanted) for kind, wanted in sorted(names.items())}


def _select(facts: Facts, bag: str, kind: str, wanted: frozenset[str]) -> Mapping[str, Fact]:
    """The wanted values of one kind. A wanted name whose value is of another kind cannot be judged."""
    if kind == "names":
        return {"": tuple(sorted(facts.names))}
    found = facts.kinds[kind]
    for name in wanted - found.keys():
        if name in facts.names or name in facts.derived:
            raise Unclear(f"{bag} {name!r} cannot be read as {kind}, as a rule does")
    if ANY in wanted:
        unsorted = facts.find_unsorted()
        if unsorted:
            raise Unclear(f"{bag} {unsorted[0]!r} is of no kind that a rule can read")
        return found
    return {name: found[name] for name in sorted(wanted) if name in found}


def _show(bag: str, kind: str, values: Mapping[str, Fact], entities: list[dict[str, Any]]) -> Any:
    if kind == "names":
        return list(values[""]) if isinstance(values[""], tuple) else []
    uid = {"type": kind.capitalize(), "id": bag}
    tags = {name: _spell(kind, value) for name, value in values.items()}
    entities.append({"uid": uid, "attrs": {}, "parents": [], "tags": tags})
    return {"__entity": uid}


def _spell(kind: str, value: Fact) -> Any:
    if kind == "decimals":
        return {"__extn": {"fn": "decimal", "arg": value}}
    return list(value) if isinstance(value, tuple) else value
