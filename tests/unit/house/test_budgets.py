"""Budgets on size and shape: split what is over, never raise a number.

Complexity, branches and statements are ruff's (pyproject.toml); here stands what ruff cannot count.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 50
FUNCTION_LINES_P90 = 30
PARAMETERS = 6
BANNED_WORDS = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "impl", "misc"}

# Where a function may import, and what: lazy doors of the command line, and optional extras.
LAZY_IMPORTS = [
    ("ingress/cli*", "*"),
    ("src/retinue/__init__.py", "retinue.*"),
    ("ingress/connecting.py", "retinue.actors.runtime"),
    ("host/opening.py", "retinue.store.postgres.*"),
    ("host/moving.py", "retinue.store.postgres.*"),
    ("host/remotes.py", "retinue.sessions.remotes"),
    ("host/rows.py", "pyarrow.parquet"),
    ("host/parts.py", "pyarrow*"),
    ("sandbox/backends/seccomp.py", "pyseccomp"),
    ("store/places.py", "retinue.store.s3"),
    ("traces/*", "opentelemetry.exporter.*"),
]

Trees = dict[Path, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_modules_fit_400_lines(root: Path, written: Trees) -> None:
    lengths = {path: len((root / path).read_text("utf-8").splitlines()) for path in written}
    assert [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MODULE_LINES] == []


def test_functions_fit_50_lines(written: Trees) -> None:
    over = [
        f"{path}:{function.lineno} {function.name}: {length(function)} lines"
        for path, function in functions_of(written)
        if length(function) > FUNCTION_LINES
    ]
    assert over == []


def test_nine_functions_in_ten_fit_30_lines(product: Trees) -> None:
    lengths = sorted(length(function) for _, function in functions_of(product))
    rank = math.ceil(len(lengths) * 0.9) - 1
    assert lengths[rank] <= FUNCTION_LINES_P90, f"the 90th percentile is {lengths[rank]} lines"


def test_functions_take_six_parameters_at_most(written: Trees) -> None:
    over = [
        f"{path}:{function.lineno} {function.name}: {count} parameters"
        for path, function in functions_of(written)
        if (count := parameter_count(function)) > PARAMETERS
    ]
    assert over == []


def test_functions_import_nothing_but_lazy_doors_and_extras(written: Trees) -> None:
    hidden = [
        f"{path}:{line} imports {module} inside {function.name}"
        for path, function in functions_of(written)
        for line, module in imports_in(function)
        if not any(fnmatch(str(path), where) and fnmatch(module, what) for where, what in LAZY_IMPORTS)
    ]
    assert hidden == []


def test_module_names_say_what_they_hold(written: Trees) -> None:
    assert [str(path) for path in written if BANNED_WORDS & set(path.stem.split("_"))] == []


def test_every_module_opens_with_a_docstring(written: Trees, tests: Trees) -> None:
    trees = written | tests
    assert [str(path) for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_no_error_is_swallowed_in_silence(written: Trees, tests: Trees) -> None:
    silent = [
        f"{path}:{node.lineno}"
        for path, tree in (written | tests).items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ExceptHandler) and all(does_nothing(line) for line in node.body))
        or (isinstance(node, ast.Call) and suppresses_everything(node))
    ]
    assert silent == []


def test_tests_wait_for_events_not_for_time(tests: Trees) -> None:
    asleep = [
        f"{path}:{call.lineno} in {function.name}"
        for path, function in functions_of(tests)
        if function.name.startswith("test_")
        for call in straight_calls(function)
        if ast.unparse(call.func) in {"time.sleep", "asyncio.sleep", "anyio.sleep", "sleep"}
        and ast.unparse(call.args[0]) != "0"
    ]
    assert asleep == []


def functions_of(trees: Trees) -> Iterator[tuple[Path, Function]]:
    """Every function and method, nested ones too, with the path of its module."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield path, node


def length(function: Function) -> int:
    """Lines from `def` to the last one; decorators do not count, the docstring does."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def parameter_count(function: Function) -> int:
    """Named parameters without self and cls; *args and **kwargs do not count."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in {"self", "cls"} for argument in named)


def imports_in(function: Function) -> Iterator[tuple[int, str]]:
    """(line, module) of each import statement inside the function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def does_nothing(statement: ast.stmt) -> bool:
    """Whether the statement is `pass`, `...` or a bare string."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def suppresses_everything(call: ast.Call) -> bool:
    """Whether the call is `suppress(Exception)` or wider."""
    return ast.unparse(call.func) in {"suppress", "contextlib.suppress"} and any(
        ast.unparse(argument) in {"Exception", "BaseException"} for argument in call.args
    )


def straight_calls(function: Function) -> Iterator[ast.Call]:
    """Calls in the function's own body: not those in a loop (a bounded poll) or in a nested function."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef | ast.While | ast.For | ast.AsyncFor):
            pending.extend(ast.iter_child_nodes(node))
