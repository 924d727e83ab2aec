"""Tools that raise, hang, flood or lie cost their call and not the run; names that do not exist start nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.conftest import Project, Said, make_project

FAILING = {
    "raises": ("raised", "LookupError: no map of Oslo"),
    "hangs": ("timeout", "did not end within"),
    "blocks": ("timeout", "did not end within"),
    "lies": ("invalid_output", "the result is 42: Input should be a valid dictionary or instance of Place"),
}


def script(tool: str) -> dict[str, Any]:
    """A run that calls the tool and answers whatever it gave."""
    calls = [{"name": tool, "arguments": {"place": "Oslo"}}]
    return {"match": {"input_id": tool}, "decisions": [{"tool_calls": calls}, {"answer": f"went on after {tool}"}]}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Said]:
    """One batch in which each row calls another tool; it is run once, each test looks at one row."""
    project = make_project(tmp_path_factory.mktemp("tools") / "project")
    names = (*FAILING, "floods", "find")
    project.write_rows("calls.jsonl", *map(script, names))
    project.write_rows("in.jsonl", *({"id": name, "question": "?"} for name in names))
    words = ("--input", "in.jsonl", "--output", "out.jsonl", "--local", "--model", "scripted:calls.jsonl")
    return project, project.run("batch", "guide", *words, code=0)


@pytest.fixture(scope="module")
def calls(batch: tuple[Project, Said]) -> dict[str, Any]:
    """The calls of that batch as the traces have them, by tool."""
    said = batch[0].run("sql", "select * from tool_calls", "--json", code=0)
    return {row["tool"]: row for row in said.json}


@pytest.mark.promise("D1")
@pytest.mark.parametrize("bad", FAILING)
def test_a_tool_that_misbehaves_costs_its_call_and_not_the_run(
    batch: tuple[Project, Said], calls: dict[str, Any], bad: str
) -> None:
    project, _ = batch
    code, words = FAILING[bad]
    [row] = [row for row in project.rows("out.jsonl") if row["id"] == bad]
    assert (row["status"], row["answer"]) == ("completed", f"went on after {bad}")
    assert (calls[bad]["result"], calls[bad]["error_code"]) == ("error", code)
    assert f"tool '{bad}'" in calls[bad]["error_message"]
    assert words in calls[bad]["error_message"]


@pytest.mark.promise("D5")
def test_fifty_megabytes_of_a_tool_are_cut_to_its_cap(batch: tuple[Project, Said], calls: dict[str, Any]) -> None:
    assert (calls["floods"]["result"], calls["floods"]["cut"]) == ("ok", True)
    assert 900_000 < calls["floods"]["size_bytes"] <= 50_000_100
    assert "6 ok, 0 failed" in batch[1].err


@pytest.mark.promise("D5")
def test_what_the_cap_cut_is_kept_once_as_a_whole_and_read_by_command(
    batch: tuple[Project, Said], calls: dict[str, Any]
) -> None:
    project, run = batch[0], calls["floods"]["run_id"]
    [kept] = project.run("inspect", run, "--json", code=0).json["full_outputs"]
    assert (kept["name"], kept["size"], kept["key"]) == ("floods", 50_000_002, calls["floods"]["key"])
    assert f"--full '{kept['key']}'" in project.run("inspect", run, code=0).out
    whole = project.run("inspect", run, "--full", kept["key"], code=0).out
    assert whole.rstrip("\n") == "x" * 50_000_000
    stored = sum(path.stat().st_size for path in (project.folder / ".retinue").rglob("*") if path.is_file())
    assert stored < 80_000_000
    refused = project.run("inspect", run, "--full", "nothing", code=2)
    assert f"those of {kept['key']} were" in refused.err


UNKNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "agent": (("run", "plane", "?"), "did you mean plain?"),
    "agent-batch": (("batch", "plane", "--input", "in.jsonl", "--output", "out.jsonl"), "did you mean plain?"),
    "tool": (("run", "broken", "?"), "teleport"),
    "model": (("run", "plain", "?", "--model", "builtin:extractiv"), "did you mean builtin:extractive?"),
    "model-form": (("run", "plain", "?", "--model", "gpt"), "openai:NAME"),
    "model-script": (("run", "plain", "?", "--model", "scripted:none.jsonl"), "none.jsonl"),
    "model-key": (("run", "plain", "?", "--model", "openai:some"), "OPENAI_API_KEY"),
}


@pytest.mark.parametrize("bad", UNKNOWN)
def test_a_name_that_does_not_exist_is_refused_with_close_ones_before_any_run(project: Project, bad: str) -> None:
    project.environ.pop("OPENAI_API_KEY", None)
    project.write_rows("in.jsonl", {"id": "q1", "question": "?"})
    words, said_words = UNKNOWN[bad]
    said = project.run(*words, "--local", code=2)
    assert said_words in said.err
    assert said.out == ""
    assert not said.err.startswith("run "), "a run was accepted"
    assert not (project.folder / "out.jsonl").exists()
