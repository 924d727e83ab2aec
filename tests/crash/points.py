"""The points between two journal operations, derived from the source: each has a name, and none is listed by hand.

A point is a place in the code where an operation on the durable state is called:

- `port`: outside of the store, a call of a method of the port `Journal`, or of a method of `Store` that
  submits to its writer, on something named `store`, `_store`, `journal` or `_journal`; and in `runs/` every call
  of a method `write`, and of `remember` or `forget` on the port of memories. A function that is itself named
  `write` only passes on what its callers write: they are the points. `note` is none: it keeps entries in memory until
  one of the others flushes them.
- `facade`: a call of the writer's `submit` in `store/store.py`: between the store's caller and group commit.
- `transaction`: a statement in `store/sqlite_pen.py` that begins, ends or divides a transaction; of PostgreSQL every
  statement in `store/postgres/pen.py` and `bulk.py`, whose transactions are made of a few.

Points of a transaction belong to one kind of store, all others to both. A point is named
`room.module.function:operation#ordinal` and has two moments: `before`, when nothing of the operation is done, and
`after`, when it is durable and its caller has not gone on. Knows no scenario.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Literal

from tests.doubles.processes import ROOT

from retinue.runs.ownership import Journal
from retinue.store.store import Store

Kind = Literal["port", "facade", "transaction"]
MOMENTS = ("before", "after")
_ROOMS = ("actors", "host", "inference", "ingress", "memory", "policy", "runs", "sessions", "store", "traces")
_STORES = {"store", "_store", "journal", "_journal"}
MEMORY = ("remember", "forget")
"""What changes memories."""
_MEMORIES = {"memories", "_port"}
_WORDS = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"}
_PENS = {"store.sqlite_pen": "sqlite", "store.postgres.pen": "postgres", "store.postgres.bulk": "postgres"}
_STATEMENTS = {"run", "execute", "executemany"}


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the code: its name, what it calls, and where the call ends (file, line, column in bytes).

    `store` is the kind of store that it belongs to; None for both.
    """

    name: str
    kind: Kind
    operation: str
    file: str
    end: tuple[int, int]
    store: str | None = None


@cache
def operations() -> frozenset[str]:
    """The methods of the port, and the store's methods that submit to its writer."""
    tree = ast.parse((ROOT / "store" / "store.py").read_text("utf-8"))
    [facade] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == Store.__name__]
    writing = {
        method.name
        for method in facade.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        if any(_is_submit(node) for node in ast.walk(method))
    }
    port = {name for name, value in vars(Journal).items() if callable(value) and not name.startswith("_")}
    return frozenset(writing | port)


@cache
def points() -> dict[str, Point]:
    """All points of the product by name."""
    files = [file for room in _ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    found = [point for file in files for point in points_in(file, file.read_text("utf-8"))]
    return {point.name: point for point in found}


def points_of(store: str) -> set[str]:
    """The names of the points that runs in such a store can pass."""
    return {point.name for point in points().values() if point.store in (None, store)}


def points_in(file: Path, source: str) -> Iterator[Point]:
    """The points of one module of the product."""
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    ordinals: Counter[str] = Counter()
    for function, call in _calls(ast.parse(source)):
        found = _operation(module, function, call)
        if found is not None:
            kind, operation = found
            name = f"{module}.{function}:{operation}"
            ends = (call.end_lineno or 0, call.end_col_offset or 0)
            store = _PENS.get(module) if kind == "transaction" else None
            yield Point(f"{name}#{ordinals[name]}", kind, operation, str(file.resolve()), ends, store)
            ordinals[name] += 1


class Finder:
    """Tells from which point of a kind a call came: the innermost frame that stands at one."""

    def __init__(self, kind: Kind) -> None:
        self._places = {(point.file, point.end): point.name for point in points().values() if point.kind == kind}
        self._known: dict[tuple[CodeType, int], str | None] = {}

    def find(self, frame: FrameType | None) -> str | None:
        """The name of the point; None when no frame stands at one."""
        while frame is not None:
            name = self._at(frame.f_code, frame.f_lasti)
            if name is not None:
                return name
            frame = frame.f_back
        return None

    def _at(self, code: CodeType, instruction: int) -> str | None:
        if (code, instruction) not in self._known:
            _, line, _, column = list(code.co_positions())[instruction // 2]
            file = str(Path(code.co_filename).resolve())
            place = None if line is None or column is None else self._places.get((file, (line, column)))
            self._known[code, instruction] = place
        return self._known[code, instruction]


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    """Every call in source order with the name of the function it stands in."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(node, ast.Call):
            yield inside, node
        yield from _calls(node, inside)


def _operation(module: str, function: str, call: ast.Call) -> tuple[Kind, str] | None:
    """The kind of the point that a call is, and its operation; None for any other call."""
    if not isinstance(call.func, ast.Attribute):
        return None
    of = call.func.value
    called, receiver = call.func.attr, _last(of.func if isinstance(of, ast.Call) else of)
    if module == "store.store":
        return ("facade", called) if _is_submit(call) else None
    if module in _PENS:
        said = _statement(call) if called in _STATEMENTS else ""
        return ("transaction", said) if said in _WORDS or (said and _PENS[module] == "postgres") else None
    if module.startswith("store.") or function == "write":
        return None
    ours = called == "write" or (called in MEMORY and receiver in _MEMORIES)
    writes = ours and module.startswith("runs.")
    if writes or (called in operations() and receiver in _STORES):
        return "port", called
    return None


def _is_submit(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr == "submit" and _last(called.value) == "_writer"


def _last(node: ast.expr) -> str:
    """The last name of a dotted expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _statement(call: ast.Call) -> str:
    """The first word of a statement that is written out, else the name of the statement."""
    said = call.args[0] if call.args else None
    if isinstance(said, ast.Call):  # `sql("append")`
        said = said.args[0]
    if isinstance(said, ast.Constant):
        return str(said.value).split()[0]
    return _last(said).strip("_") if said is not None else ""
