"""What imports what, and what an import does: no cycles, no way up to the public face, no side effects.

The layers between rooms are a contract in pyproject.toml, which `make check` reads with import-linter.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

# Who alone may import a library: a change of library then stays in one place.
HOMES = {
    "ray": ["retinue.actors"],
    "httpx": ["retinue.inference.http"],
    "duckdb": ["retinue.traces"],
    "apsw": ["retinue.store", "retinue.memory"],
    "jsonschema": ["retinue.sessions.schemas"],
    "mcp": ["retinue.sessions.mcp", "retinue.ingress.mcp"],
    "mcp_types": ["retinue.sessions.mcp", "retinue.ingress.mcp"],
    "httpx2": ["retinue.sessions.mcp"],
    "psycopg": ["retinue.store.postgres"],
    "psycopg_pool": ["retinue.store.postgres"],
    "anyio": ["retinue.sessions.mcp"],
}

# Imports everything it is told in a fresh interpreter; prints what the second batch did besides.
PROBE = """
import importlib, json, os, sys, threading

theirs, ours = json.load(sys.stdin)
for name in theirs:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print("an optional extra is not here:", error, file=sys.stderr)

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ACTS = {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.mkdir", "os.remove", "os.rename"}
done = []

def watch(event, args):
    if event in ACTS or (event == "open" and args[2] & WRITES):
        done.append(f"{event} {args[0]}")

environment, threads = dict(os.environ), set(threading.enumerate())
sys.addaudithook(watch)
for name in ours:
    before = len(done)
    importlib.import_module(name)
    done[before:] = [f"{name}: {act}" for act in done[before:]]
done += [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads]
done += [f"environment {key}" for key in os.environ.keys() ^ environment.keys() if not key.startswith("RAY_")]
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("retinue", include_external_packages=True, cache_dir=None)


def test_imports_go_round_in_no_circle(graph: grimp.ImportGraph) -> None:
    needs = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail("imports form a cycle: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_at_home_only(graph: grimp.ImportGraph, library: str) -> None:
    users = graph.find_modules_that_directly_import(library) if library in graph.modules else set()
    homes = HOMES[library]
    assert {user for user in users if not any(f"{user}.".startswith(f"{home}.") for home in homes)} == set()


def test_no_room_imports_the_public_face(graph: grimp.ImportGraph) -> None:
    assert graph.find_modules_that_directly_import("retinue") == set()


def test_an_import_does_nothing_but_define(product: dict[Path, ast.Module], tmp_path: Path, root: Path) -> None:
    theirs = sorted({name for tree in product.values() for name in names_imported(tree) if foreign(name)})
    ours = sorted(module_name(path) for path in product)
    probe = subprocess.run(
        [sys.executable, "-B", "-c", PROBE],
        input=json.dumps([theirs, ours]),
        cwd=tmp_path,
        env={"PYTHONPATH": str(root / "src"), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert probe.returncode == 0, probe.stderr
    assert json.loads(probe.stdout.splitlines()[-1]) == []
    assert list(tmp_path.iterdir()) == []


def names_imported(tree: ast.Module) -> set[str]:
    """Absolute names of the modules imported at the top of the module."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


def foreign(name: str) -> bool:
    """Whether the module is of another package."""
    return name.partition(".")[0] not in {"retinue", "__future__"}


def module_name(path: Path) -> str:
    """The import name of a room's file or the public face: runs/machine.py -> retinue.runs.machine."""
    parts = path.with_suffix("").parts
    inside = parts[2:] if parts[0] == "src" else parts
    return ".".join(("retinue", *(part for part in inside if part != "__init__")))
