"""docs/promises.md and the marks on tests say the same: what is called kept has a test that shows it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SECTIONS = {"A": 11, "B": 5, "C": 7, "D": 5, "E": 4, "F": 5, "G": 2, "H": 4, "I": 7, "J": 1, "K": 5}
PROMISES = {f"{letter}{n}" for letter, last in SECTIONS.items() for n in range(1, last + 1)}
RULES = {f"R{n}" for n in range(1, 17)}
STATES = {"kept", "partly", "open"}
TEST = re.compile(r"tests/[\w/]+\.py(?:::\w+)+")

Marks = dict[str, set[tuple[str, str]]]


class Row(NamedTuple):
    """One line of a table: the id, what is promised, its state, and the tests that show it."""

    id: str
    words: str
    state: str
    tests: list[str]


@pytest.fixture(scope="module")
def rows(root: Path) -> list[Row]:
    return [row for line in (root / "docs/promises.md").read_text("utf-8").splitlines() for row in read_row(line)]


@pytest.fixture(scope="module")
def marks(tests: dict[Path, ast.Module]) -> Marks:
    """Test (file::name) to its marks, each as (promise or rule, id)."""
    return {test: found for path, tree in tests.items() for test, found in marks_of(path, tree)}


def test_every_id_has_one_row(rows: list[Row]) -> None:
    assert sorted(row.id for row in rows) == sorted(PROMISES | RULES)


def test_every_row_says_something_and_has_a_state(rows: list[Row]) -> None:
    assert [row.id for row in rows if len(row.words.split()) < 5 or row.state not in STATES] == []


def test_what_is_kept_names_a_test_that_shows_it(rows: list[Row], marks: Marks) -> None:
    unshown = []
    for row in rows:
        kind = "rule" if row.id in RULES else "promise"
        if row.state != "open" and not row.tests:
            unshown.append(f"{row.id} is {row.state} and names no test")
        unshown += [f"{row.id}: {test} does not exist" for test in row.tests if test not in marks]
        unshown += [
            f"{row.id}: {test} is not marked {kind}({row.id!r})"
            for test in row.tests
            if (kind, row.id) not in marks.get(test, {(kind, row.id)})
        ]
    assert unshown == []


def test_every_mark_is_a_known_id(marks: Marks) -> None:
    known = {("promise", each) for each in PROMISES} | {("rule", each) for each in RULES}
    unknown = [f"{test}: {kind}({each!r})" for test, found in marks.items() for kind, each in found - known]
    assert unknown == []


def read_row(line: str) -> Iterator[Row]:
    """The row a line of Markdown holds, if its first cell is an id."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if len(cells) == 4 and re.fullmatch(r"[A-Z]\d+", cells[0]):
        yield Row(cells[0], cells[1], cells[2], TEST.findall(cells[3]))


def marks_of(path: Path, tree: ast.Module) -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """(file::name, marks) of every test function of a module, in classes too, with what it inherits."""
    pending: list[tuple[str, ast.Module | ast.ClassDef, set[tuple[str, str]]]] = [(str(path), tree, set())]
    while pending:
        place, node, inherited = pending.pop()
        inherited = inherited | {mark for line in node.body for mark in pytestmark_of(line)}
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                pending.append((f"{place}::{child.name}", child, inherited | decorations(child)))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name.startswith("test_"):
                yield f"{place}::{child.name}", inherited | decorations(child)


def pytestmark_of(line: ast.stmt) -> set[tuple[str, str]]:
    """The marks in `pytestmark = ...`, none for any other statement."""
    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "pytestmark":
        return marks_in(line.value)
    return set()


def decorations(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[tuple[str, str]]:
    """The marks among the decorators."""
    return {mark for decorator in node.decorator_list for mark in marks_in(decorator)}


def marks_in(expression: ast.expr) -> set[tuple[str, str]]:
    """(kind, id) of every `pytest.mark.promise(...)` or `pytest.mark.rule(...)` in the expression."""
    return {
        (kind, ast.literal_eval(argument))
        for call in ast.walk(expression)
        if isinstance(call, ast.Call)
        for kind in ("promise", "rule")
        if ast.unparse(call.func) == f"pytest.mark.{kind}"
        for argument in call.args
    }
