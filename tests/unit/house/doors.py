"""Finds, in syntax trees, who goes through which door: to models, capabilities, memory, and out of the machine.

Pure: trees in, places out. A place is `room.module:Class.function`, without `retinue.`. What a door is called is
listed by its callers in test_gate_paths.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Trees = Mapping[Path, ast.Module]

SQL_ROOMS = {"store", "traces", "memory"}
"""Their `execute` is that of a database; they cannot import the rooms that have doors."""


def module_of(path: Path) -> str:
    """`runs/effects/calls.py` -> `runs.effects.calls`."""
    return ".".join(path.with_suffix("").parts)


def places(path: Path, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the place of the function (or class, or module) around it."""

    def walk(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            yield f"{module_of(path)}:{inner}", child
            yield from walk(child, inner)

    yield from walk(tree, "")


def uses(trees: Trees, name: str) -> set[str]:
    """Places that read an attribute of this name off anything, also as `getattr(x, "name")`; called or not."""
    found = set()
    for path, tree in trees.items():
        if path.parts[0] in SQL_ROOMS:
            continue
        for place, node in places(path, tree):
            read = isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load)
            if read or _is_getattr(node, name):
                found.add(place)
    return found


def _is_getattr(node: ast.AST, name: str) -> bool:
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _GETTERS):
        return False
    return any(isinstance(given, ast.Constant) and given.value == name for given in node.args)


_GETTERS = {"getattr", "attrgetter", "methodcaller"}


def imports(trees: Trees, libraries: frozenset[str]) -> dict[str, set[str]]:
    """By library, the modules that import it or something inside it, anywhere, by statement or by name."""
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            for name in _imported(node):
                for library in libraries:
                    if name == library or name.startswith(f"{library}."):
                        found.setdefault(library, set()).add(module_of(path))
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _IMPORTERS:
        yield from (
            given.value for given in node.args if isinstance(given, ast.Constant) and isinstance(given.value, str)
        )


_IMPORTERS = {"import_module", "__import__", "find_spec"}


def unguarded(tree: ast.Module, door: str, guards: frozenset[str]) -> list[str]:
    """Functions of a module that call the function `door` without a call to one of `guards` further up in them."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        through = [call.lineno for call in calls if _called(call) == door]
        asked = [call.lineno for call in calls if _called(call) in guards]
        if through and function.name != door and (not asked or min(asked) >= min(through)):
            found.append(function.name)
    return found


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = function.value
        return f"{owner.id}.{function.attr}" if isinstance(owner, ast.Name) else function.attr
    return function.id if isinstance(function, ast.Name) else ""
