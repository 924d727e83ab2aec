"""Input files that are broken, empty or odd: one bad row costs that row, a useless file costs nothing at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.conftest import Project, make_project

pytestmark = pytest.mark.promise("B5")


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row that is well."""
    return {"id": f"q{number}", "question": "Is it?"} | more


def batch(project: Project, name: str, *more: str, code: int) -> Any:
    """Run the plain agent over a file, in the command's own process."""
    return project.run("batch", "plain", "--input", name, "--output", "out.jsonl", "--local", *more, code=code)


DEEP = '{"id": "deep", "question": ' + "[" * 150 + "]" * 150 + "}"
BAD_ROWS = {
    "half-written": (b'{"id": "q2", "question": "Is', "not_json", "the row is not whole JSON"),
    "not-utf8": (b'{"id": "q2", "question": "caf\xe9"}', "not_utf8", "byte 29 is not UTF-8: convert the file"),
    "half-a-character": (b'{"id": "q2", "question": "\\ud800"}', "not_json", "the row is not whole JSON"),
    "nested-deeply": (DEEP.encode(), "too_deep", "nested deeper than 100 levels: flatten the row"),
    "nested-bottomlessly": (b"[" * 200_000, "not_json", "the row is not whole JSON"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One batch over a file in which every second row is bad in a way of its own."""
    project = make_project(tmp_path_factory.mktemp("rows") / "project")
    lines = []
    for number, (content, _, _) in enumerate(BAD_ROWS.values()):
        lines += [json.dumps(row(number)).encode(), content]
    project.write("in.jsonl", b"\n".join([*lines, json.dumps(row(9)).encode()]) + b"\n")
    said = batch(project, "in.jsonl", code=1)
    assert f"{len(BAD_ROWS) + 1} ok, 0 failed, {len(BAD_ROWS)} not readable" in said.err
    return project


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_row_that_cannot_be_read_is_set_aside_with_its_line(mixed: Project, bad: str) -> None:
    _, reason, words = BAD_ROWS[bad]
    line = 2 + 2 * list(BAD_ROWS).index(bad)
    [letter] = [letter for letter in mixed.rows("out.jsonl.dead.jsonl") if letter["line"] == line]
    assert letter["reason"] == reason
    assert letter["message"].startswith(f"{mixed.folder / 'in.jsonl'} line {line}: ")
    assert words in letter["message"]


def test_the_rows_beside_those_that_cannot_be_read_run(mixed: Project) -> None:
    wanted = [(f"q{number}", "yes") for number in (*range(len(BAD_ROWS)), 9)]
    assert [(one["id"], one["answer"]) for one in mixed.rows("out.jsonl")] == wanted


def test_a_last_row_that_was_cut_off_is_set_aside(project: Project) -> None:
    project.write("in.jsonl", json.dumps(row(1)) + '\n{"id": "q2", "quest')
    batch(project, "in.jsonl", code=1)
    assert [letter["line"] for letter in project.rows("out.jsonl.dead.jsonl")] == [2]
    assert len(project.rows("out.jsonl")) == 1


def test_a_row_of_ten_megabytes_is_a_row(project: Project) -> None:
    project.write_rows("in.jsonl", row(1), row(2, question="long " * 2_000_000), row(3))
    said = batch(project, "in.jsonl", code=0)
    assert "3 ok, 0 failed, 0 not readable" in said.err
    assert [one["id"] for one in project.rows("out.jsonl")] == ["q1", "q2", "q3"]


def test_a_row_above_the_limit_is_set_aside_and_not_kept_in_memory(project: Project) -> None:
    with (project.folder / "in.jsonl").open("wb") as file:
        file.write(json.dumps(row(1)).encode() + b"\n" + b'{"id": "q2", "question": "')
        for _ in range(65):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + json.dumps(row(3)).encode() + b"\n")
    batch(project, "in.jsonl", code=1)
    [letter] = project.rows("out.jsonl.dead.jsonl")
    assert (letter["line"], letter["reason"]) == (2, "too_large")
    assert "at most 67108864: shorten the row" in letter["message"]
    assert [one["id"] for one in project.rows("out.jsonl")] == ["q1", "q3"]


REFUSED: dict[str, tuple[str, bytes, tuple[str, ...], str]] = {
    "empty": ("in.jsonl", b"", (), "in.jsonl is empty: it needs at least one row"),
    "blank-lines": ("in.jsonl", b"\n\n  \n", (), "in.jsonl is empty: it needs at least one row"),
    "heading-only": ("in.csv", b"id,question\n", (), "in.csv is empty: it needs at least one row"),
    "missing-column": (
        "in.jsonl",
        b'{"id": "q1"}\n{"key": "q2"}\n',
        ("--id", "id"),
        "in.jsonl line 2: there is no column 'id'; correct --id or the row",
    ),
    "missing-column-csv": (
        "in.csv",
        b"key,question\nq1,Is it?\n",
        ("--id", "id"),
        "there is no column 'id' for --id; there are: key, question",
    ),
    "duplicate-ids": (
        "in.jsonl",
        b'{"id": "q1"}\n{"id": "q2"}\n{"id": "q1"}\n',
        (),
        "occur more than once (lines 1 and 3): make them unique, or name another column with --id",
    ),
    "no-row-can-be-read": ("in.jsonl", b"{\nfoo\n", (), "none of its 2 rows can be read; line 1: not JSON"),
    "not-utf8-csv": ("in.csv", b"id,question\nq1,caf\xe9\n", (), "is not UTF-8: convert the file"),
    "not-parquet": ("in.parquet", b"PAR0", (), "in.parquet is not Parquet that can be read"),
    "unknown-ending": ("in.txt", b"Is it?\n", (), "unknown ending '.txt'; use one of .jsonl"),
}


@pytest.mark.parametrize("bad", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_before_any_run(project: Project, bad: str) -> None:
    name, content, more, words = REFUSED[bad]
    project.write(name, content)
    said = batch(project, name, *more, code=2)
    assert words in said.err
    assert said.out == ""
    assert not (project.folder / "out.jsonl").exists()
    assert not (project.folder / ".retinue").exists(), "a store was made for a batch that was refused"


def test_a_column_that_the_agent_needs_fails_that_row_by_name(project: Project) -> None:
    project.write_rows("in.jsonl", row(1), {"id": "q2", "text": "Is it?"}, row(3))
    said = project.run("batch", "strict", "--input", "in.jsonl", "--output", "out.jsonl", "--local", code=1)
    assert "2 ok, 1 failed, 0 not readable" in said.err
    bad = project.rows("out.jsonl")[1]
    assert (bad["id"], bad["status"]) == ("q2", "failed")
    assert "question" in bad["error"]["message"]


def test_an_input_that_is_not_there_is_named(project: Project) -> None:
    said = batch(project, "none.jsonl", code=2)
    assert "input none.jsonl cannot be read: No such file or directory; check the path" in said.err


OUTPUTS = {
    "no-such-folder": ("none/out.jsonl", "there is no folder {folder}/none; make it or name another"),
    "a-folder": (".", "is a folder: name a file in it"),
    "the-input-itself": ("in.jsonl", "is the input: name another file"),
    "a-device": ("/proc/out.jsonl", "output /proc/out.jsonl cannot be written: "),
}


@pytest.mark.parametrize("bad", OUTPUTS)
def test_an_output_that_cannot_be_written_is_told_before_any_run(project: Project, bad: str) -> None:
    output, words = OUTPUTS[bad]
    project.write_rows("in.jsonl", row(1))
    said = project.run("batch", "plain", "--input", "in.jsonl", "--output", output, "--local", code=2)
    assert words.format(folder=project.folder) in said.err
    assert project.rows("in.jsonl") == [row(1)]
    assert not (project.folder / ".retinue").exists(), "a store was made for a batch that was refused"
