"""What a parsed rule looks at: the fields of the context that can change its answer.

Owns the walk over Cedar's syntax tree. A field it cannot pin down counts as "everything below", so leaving
the rest out of a request is sound. Knows no request, no files and no decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from cedarpy import pst

Field = tuple[str, ...]
"""A field of the context from the top, such as ("arguments", "numbers", "amount")."""

ANY = "*"
"""Stands for every name below a field."""

PRINCIPAL: Field = ("principal",)
"""Read by rules that look at the principal itself; no field of the context has this name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field that a rule compares with the text it holds."""

    field: Field
    text: str


def find_reads(rule: pst.Template) -> frozenset[Field]:
    """Every field that the scope or the conditions of a rule read."""
    reads = {field for clause in rule.clauses for field in _walk(clause.expr)}
    if not isinstance(rule.principal, pst.ScopeAny):
        reads.add(PRINCIPAL)
    return frozenset(reads)


def find_comparisons(rule: pst.Template) -> Iterator[Comparison]:
    """Comparisons of a field with literal texts: `field == "x"` and `["x", "y"].contains(field)`."""
    pending: list[object] = [clause.expr for clause in rule.clauses]
    while pending:
        node = pending.pop()
        if isinstance(node, pst.BinaryOp):
            yield from _compared(node)
        pending.extend(_parts(node))


def _compared(node: pst.BinaryOp) -> Iterator[Comparison]:
    if node.op in ("eq", "not_eq"):
        pairs = [(node.left, node.right), (node.right, node.left)]
    elif node.op == "contains" and isinstance(node.left, pst.Set):
        pairs = [(node.right, element) for element in node.left.elements]
    else:
        return
    for side, other in pairs:
        field = _field_of(side)
        if field and isinstance(other, pst.StringLit):
            yield Comparison(field, other.value)


def _walk(node: object) -> Iterator[Field]:
    field = _field_of(node)
    if field is not None:
        yield field or (ANY,)
    elif isinstance(node, pst.Var):
        if node.name == "principal":
            yield PRINCIPAL
    elif isinstance(node, pst.HasAttr) and (base := _field_of(node.base)) is not None:
        yield (*base, *node.attrs)
    elif isinstance(node, pst.BinaryOp) and node.op in ("has_tag", "get_tag"):
        yield from _walk_tag(node)
    else:
        for part in _parts(node):
            yield from _walk(part)


def _walk_tag(node: pst.BinaryOp) -> Iterator[Field]:
    base = _field_of(node.left)
    if base and isinstance(node.right, pst.StringLit):
        yield (*base, node.right.value)
        return
    yield from _walk(node.left)
    yield from _walk(node.right)


def _field_of(node: object) -> Field | None:
    """The field that a chain such as `context.arguments.numbers` names; () is the whole context."""
    names: list[str] = []
    while isinstance(node, pst.GetAttr):
        names.append(node.attr)
        node = node.base
    is_context = isinstance(node, pst.Var) and node.name == "context"
    return tuple(reversed(names)) if is_context else None


def _parts(node: object) -> Iterator[object]:
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, pst.Record):
        yield from node.fields.values()
    elif is_dataclass(node) and not isinstance(node, type):
        for field in fields(node):
            yield getattr(node, field.name)
