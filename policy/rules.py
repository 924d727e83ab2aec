"""Rules as they stand in files: parsed one by one, checked against the schema, refused with file and line.

Owns what a rule file may hold. Knows no request and takes no decision.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import cedarpy
from cedarpy import pst

from retinue.policy.facts import KINDS
from retinue.policy.reads import Field, find_comparisons, find_reads
from retinue.runs.errors import ConfigError

SCHEMA = (Path(__file__).parent / "request.cedarschema").read_text(encoding="utf-8")
DEFAULTS = Path(__file__).parent / "defaults.cedar"

RESERVED = "retinue."
"""Ids of the invariants begin with this; no rule's id may."""

WORDS: Mapping[Field, tuple[str, ...]] = {
    ("side_effect",): ("read", "draft", "write"),
    ("idempotency",): ("idempotent", "reconcilable", "at_most_once"),
    ("sensitivity",): ("public", "internal", "confidential", "secret"),
    ("rollout",): ("shadow", "canary", "full", "stopped"),
}
"""Fields that hold one of a few words; comparing them with another word is a mistake in a rule."""

_ANNOTATIONS: Mapping[str, tuple[str, ...]] = {
    "id": (),
    "reason": (),
    "outcome": ("approval",),
    "approver": ("anyone", "role:NAME"),
}
ROLE = "role:"
"""What `@approver` says before the name of a role."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_A_ROLE = re.compile(r"role:[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;', re.DOTALL)
_KIND = f"on entity type `(?P<kind>{'|'.join(kind.capitalize() for kind in KINDS)})`"
_UNASKED = re.compile(rf'access to tag `"(?P<name>[^"]*)"` {_KIND}')
_BY_NAME = re.compile(rf"attribute `(?P<name>[^`]*)` {_KIND} not found")
_BLANK = re.compile(r"(?:\s|//[^\n]*(?:\n|$))*")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `stages` and `resource` are what its scope pins down (None: any); `where` is `file:line`.

    One that asks a person is answered by anyone but the requester: by that one too with `self_approval`, by holders
    of `role` alone where it names one.
    """

    id: str
    outcome: Literal["allow", "deny", "approval_required"]
    self_approval: bool
    role: str | None
    reason: str
    text: str
    where: str
    stages: frozenset[str] | None
    resource: str | None
    reads: frozenset[Field]

    def concerns(self, stage: str, resource: str | None) -> bool:
        """False when its scope alone keeps it from deciding about this stage and resource."""
        if self.stages is not None and stage not in self.stages:
            return False
        return self.resource is None or self.resource == resource


@dataclass(frozen=True, slots=True)
class _Statement:
    text: str
    where: str

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        raise ConfigError(f"{self.where}: {problem}. {remedy}")


def read_rules(files: Mapping[str, str], roles: Collection[str] = ()) -> tuple[Rule, ...]:
    """Parse and check rule files (name to text). Raises ConfigError naming file, line, rule and remedy.

    `roles` are those that a rule may name.
    """
    schema = cedarpy.Schema.from_str(SCHEMA)
    rules: dict[str, Rule] = {}
    for name, text in files.items():
        for statement in _split(name, text):
            rule = _read_rule(statement, schema)
            if rule.id in rules:
                problem = f"rule id {rule.id!r} is taken by {rules[rule.id].where}"
                statement.refuse(problem, "Give each rule an @id of its own.")
            if rule.role is not None and rule.role not in roles:
                known = f"They are {', '.join(sorted(roles))}." if roles else "It has none."
                problem = f"rule {rule.id!r}: `roles:` of retinue.yaml has no {rule.role!r}"
                statement.refuse(problem, f"{known} Name it there, or correct it here.")
            rules[rule.id] = rule
    return tuple(rules.values())


def _split(name: str, text: str) -> Iterator[_Statement]:
    start = 0
    ends = [token.end() for token in _TOKEN.finditer(text) if token.group() == ";"]
    for end in [*ends, len(text)]:
        blank = _BLANK.match(text, start, end)
        begin = blank.end() if blank else start
        if begin < end:
            yield _Statement(text[begin:end], f"{name}:{text.count(chr(10), 0, begin) + 1}")
        start = end


def _read_rule(statement: _Statement, schema: cedarpy.Schema) -> Rule:
    tree = _parse(statement)
    notes = _read_annotations(statement, tree)
    rule_id = notes["id"]
    _refuse_direct_values(statement, tree)
    verdict = cedarpy.validate_policies(statement.text, schema)
    if not verdict.validation_passed:
        problems = "; ".join(re.sub(r"^.*?for policy `[^`]*`, ", "", error.error) for error in verdict.errors)
        statement.refuse(f"rule {rule_id!r}: {problems}", _remedy(problems, statement.text))
    _refuse_unknown_words(statement, tree)
    outcome: Literal["allow", "deny", "approval_required"] = "allow"
    if tree.effect == "forbid":
        outcome = "approval_required" if "outcome" in notes else "deny"
    approver = notes.get("approver", "")
    return Rule(
        id=rule_id,
        outcome=outcome,
        self_approval=approver == "anyone",
        role=approver.removeprefix(ROLE) if approver.startswith(ROLE) else None,
        reason=notes.get("reason", ""),
        text=statement.text,
        where=statement.where,
        stages=_stages(tree.action),
        resource=_pinned_resource(tree.resource),
        reads=find_reads(tree),
    )


def _remedy(problems: str, text: str) -> str:
    """What mends a rule that does not fit the schema: for a value that may not be there, or is read by name."""
    tag = _UNASKED.search(problems) or _BY_NAME.search(problems)
    if tag is not None:
        name, facts = tag["name"], f"context.facts.{tag['kind'].lower()}"
        values = facts if facts in text else f"context.arguments.{tag['kind'].lower()}"
        asked = f'`{values}.hasTag("{name}") && {values}.getTag("{name}")`'
        return f"It may not be there: ask with hasTag before getTag, in the same condition, as in {asked}."
    return "docs/policy.md lists what a rule may read."


def _parse(statement: _Statement) -> pst.Template:
    try:
        tree = cedarpy.policies_to_pst(statement.text)
    except (ValueError, RecursionError) as error:
        statement.refuse(f"not a Cedar rule: {error}", "Correct it; a rule ends with a semicolon.")
    if tree.templates or len(tree.static_policies) != 1:
        statement.refuse("a template with ?principal or ?resource", "Write a rule for each case.")
    return next(iter(tree.static_policies.values()))


def _read_annotations(statement: _Statement, tree: pst.Template) -> dict[str, str]:
    notes = dict(tree.annotations)
    for name, value in notes.items():
        known = _ANNOTATIONS.get(name)
        if known is None:
            close = difflib.get_close_matches(name, _ANNOTATIONS, 1)
            hint = f"Did you mean @{close[0]}?" if close else f"Known: {', '.join(_ANNOTATIONS)}."
            statement.refuse(f"unknown annotation @{name}", hint)
        if known and value not in known and not (name == "approver" and _A_ROLE.fullmatch(value)):
            ways = " or ".join(f'@{name}("{each}")' for each in known)
            statement.refuse(f"@{name}({value!r})", f"Write {ways}, or leave it out.")
    rule_id = notes.get("id", "")
    if not _ID.fullmatch(rule_id):
        statement.refuse(f"a rule with id {rule_id!r}", 'Begin it with @id("some-name").')
    if rule_id.startswith(RESERVED):
        statement.refuse(f"rule id {rule_id!r} is reserved", f"Do not begin it with {RESERVED!r}.")
    if "outcome" in notes and tree.effect != "forbid":
        statement.refuse(f"rule {rule_id!r}: @outcome on a permit", "Only a forbid can ask for an approval.")
    if "approver" in notes and "outcome" not in notes:
        statement.refuse(f"rule {rule_id!r}: @approver without @outcome", 'Add @outcome("approval").')
    return notes


def _refuse_direct_values(statement: _Statement, tree: pst.Template) -> None:
    """Values are reached through the context only, else a rule could read what nobody sees it read."""
    values = {kind.capitalize() for kind in KINDS}
    for uid in pst.entity_uids(tree):
        if str(uid.type) in values:
            problem = f"rule {tree.annotations['id']!r} names {uid}"
            statement.refuse(problem, "Read values through context.arguments or context.facts.")


def _refuse_unknown_words(statement: _Statement, tree: pst.Template) -> None:
    for comparison in find_comparisons(tree):
        words = WORDS.get(comparison.field)
        if words and comparison.text not in words:
            field = ".".join(("context", *comparison.field))
            statement.refuse(
                f"rule {tree.annotations['id']!r}: {field} is never {comparison.text!r}",
                f"It is one of {', '.join(words)}.",
            )


def _stages(action: pst.ActionConstraint) -> frozenset[str] | None:
    match action:
        case pst.ActionEq(entity=entity):
            return frozenset({entity.id})
        case pst.ActionIn(entities=entities):
            return frozenset(entity.id for entity in entities)
        case _:
            return None


def _pinned_resource(resource: pst.PrincipalOrResourceConstraint) -> str | None:
    if isinstance(resource, pst.ScopeEq) and isinstance(resource.entity, pst.EntityUid):
        return resource.entity.id
    return None
