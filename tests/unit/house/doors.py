"""Finds, in syntax trees, who goes through which door: to models, capabilities, memory, and out of the machine.

Pure: trees in, places out. A place is `room.module:Class.function`, without `retinue.`. What a door is called is
listed by its callers in test_gate_paths.py.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

Trees = Mapping[Path, ast.Module]

SQL_ROOMS = {"store", "traces", "memory"}
"""Their `execute` is that of a database; they cannot import the rooms that have doors."""
_GETTERS = {"getattr", "attrgetter", "methodcaller"}
_IMPORTERS = {"import_module", "__import__", "find_spec"}


@dataclass
class Index:
    """What a module reads and imports: attribute to functions, owner and attribute to functions, module names."""

    attributes: dict[str, set[str]] = field(default_factory=dict)
    owned: set[tuple[str, str, str]] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)

    def take(self, function: str, node: ast.AST) -> None:
        """One node, found in a function."""
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            self.attributes.setdefault(node.attr, set()).add(function)
            if isinstance(node.value, ast.Name):
                self.owned.add((node.value.id, node.attr, function))
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            said = [given.value for given in node.args if isinstance(given, ast.Constant)]
            words = [word for word in said if isinstance(word, str)]
            for word in words if name in _GETTERS else ():
                self.attributes.setdefault(word, set()).add(function)
            self.imported |= set(words) if name in _IMPORTERS else set()
        elif isinstance(node, ast.Import):
            self.imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            self.imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}


@lru_cache(maxsize=2_000)
def index_of(tree: ast.Module) -> Index:
    """The index of a module, made once."""
    index = Index()
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        name, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            index.take(inner, child)
            pending.append((inner, child))
    return index


def module_of(path: Path) -> str:
    """`runs/effects/calls.py` -> `runs.effects.calls`."""
    return ".".join(path.with_suffix("").parts)


def uses(trees: Trees, name: str) -> set[str]:
    """Places that read an attribute of this name off anything, also as `getattr(x, "name")`; called or not."""
    return {
        f"{module_of(path)}:{function}"
        for path, tree in trees.items()
        if path.parts[0] not in SQL_ROOMS
        for function in index_of(tree).attributes.get(name, ())
    }


def imports(trees: Trees, libraries: frozenset[str]) -> dict[str, set[str]]:
    """By library, the modules that import it or something inside it, anywhere, by statement or by name."""
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        for name in index_of(tree).imported:
            for library in libraries:
                if name == library or name.startswith(f"{library}."):
                    found.setdefault(library, set()).add(module_of(path))
    return found


def reached_into(trees: Trees, package: str) -> set[str]:
    """Modules that import or read a private name of a module of a package that they are not."""
    found = set()
    for path, tree in trees.items():
        index = index_of(tree)
        mine = {name for name in index.imported if name.startswith(f"retinue.{package}.")}
        modules = {name.rpartition(".")[2] for name in mine}
        by_import = any(name.rpartition(".")[2].startswith("_") for name in mine)
        if by_import or any(owner in modules and name.startswith("_") for owner, name, _ in index.owned):
            found.add(module_of(path))
    return found


def unguarded(tree: ast.Module, door: str, guards: frozenset[str]) -> list[str]:
    """Functions of a module that call the function `door` without a call to one of `guards` further up in them.

    `*.name` is a method of this name of anything.
    """
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name == door:
            continue
        lines = [(_called(node), node.lineno) for node in ast.walk(function) if isinstance(node, ast.Call)]
        through = [line for called, line in lines if called == door or _is_any(called, door)]
        asked = [line for called, line in lines if called in guards]
        if through and (not asked or min(asked) >= min(through)):
            found.append(function.name)
    return found


def _is_any(called: str, door: str) -> bool:
    return door.startswith("*.") and called.rpartition(".")[2] == door[2:] and called != door[2:]


def _called(call: ast.Call) -> str:
    """What a call calls: `name`, `owner.name`, `owner(...).name`, or `.name` of anything else."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return function.id if isinstance(function, ast.Name) else ""
    owner = function.value
    plain = isinstance(owner, ast.Name) or (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name))
    return f"{ast.unparse(owner)}.{function.attr}" if plain else f".{function.attr}"
