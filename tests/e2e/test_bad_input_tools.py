"""Tools that raise, hang, flood or lie, and names that do not exist: the model is told, the run goes on, nothing hangs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.conftest import Project, Said, make_project

TOOLS = {
    "raises": ("raised", "LookupError: no map of Oslo"),
    "hangs": ("timeout", "0.3 s"),
    "blocks": ("timeout", "0.3 s"),
    "lies": ("invalid_output", "Place"),
    "floods": ("", "cut"),
}


def script(tool: str) -> dict[str, Any]:
    """A run that calls the tool and answers whatever it gave."""
    calls = [{"name": tool, "arguments": {"place": "Oslo"}}]
    return {"match": {"input_id": tool}, "decisions": [{"tool_calls": calls}, {"answer": f"went on after {tool}"}]}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Said]:
    """One batch in which each row calls another tool; it is run once, each test looks at one row."""
    project = make_project(tmp_path_factory.mktemp("tools") / "project")
    names = (*TOOLS, "find")
    project.write_rows("calls.jsonl", *map(script, names))
    project.write_rows("in.jsonl", *({"id": name, "question": "?"} for name in names))
    words = ("--input", "in.jsonl", "--output", "out.jsonl", "--local", "--model", "scripted:calls.jsonl")
    return project, project.run("batch", "guide", *words, code=0)


@pytest.fixture(scope="module")
def calls(batch: tuple[Project, Said]) -> dict[str, Any]:
    """The calls of that batch as the traces have them, by tool."""
    said = batch[0].run("sql", "select * from tool_calls", "--json", code=0)
    return {row["tool"]: row for row in said.json}


@pytest.mark.parametrize("bad", TOOLS)
def test_a_tool_that_misbehaves_costs_its_call_and_not_the_run(
    batch: tuple[Project, Said], calls: dict[str, Any], bad: str
) -> None:
    project, said = batch
    print(calls[bad])
    [row] = [row for row in project.rows("out.jsonl") if row["id"] == bad]
    assert (row["status"], row["answer"]) == ("completed", f"went on after {bad}")
    assert said.seconds < 20
    assert calls[bad] == 0


UNKNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "agent": (("run", "plane", "?"), "did you mean plain?"),
    "agent-batch": (("batch", "plane", "--input", "in.jsonl", "--output", "out.jsonl"), "did you mean plain?"),
    "tool": (("run", "broken", "?"), "teleport"),
    "model": (("run", "plain", "?", "--model", "builtin:extractiv"), "did you mean builtin:extractive?"),
    "model-form": (("run", "plain", "?", "--model", "gpt"), "openai:NAME"),
    "model-script": (("run", "plain", "?", "--model", "scripted:none.jsonl"), "none.jsonl"),
    "model-key": (("run", "plain", "?", "--model", "openai:some"), "OPENAI_API_KEY"),
    "model-batch": (
        ("batch", "plain", "--input", "in.jsonl", "--output", "out.jsonl", "--model", "builtin:x"),
        "builtin:extractive",
    ),
}


@pytest.mark.parametrize("bad", UNKNOWN)
def test_a_name_that_does_not_exist_is_refused_with_close_ones_before_any_run(project: Project, bad: str) -> None:
    project.environ.pop("OPENAI_API_KEY", None)
    project.write_rows("in.jsonl", {"id": "q1", "question": "?"})
    words, said_words = UNKNOWN[bad]
    said = project.run(*words, "--local", code=2)
    print(said.err)
    assert said_words in said.err
    assert said.out == ""
    assert not (project.folder / "out.jsonl").exists()
    assert project.run("ps", "--all", "--json", code=0).json == []
