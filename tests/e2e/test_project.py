"""A project as `retinue init` makes it, used as a newcomer would: ask, be asked, answer, look, query, check."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.e2e.conftest import BOUND, Project, environment

QUESTION = "How long may power tools be kept?"
CLERK = """

clerk = agent("clerk", "Keep notes.", tools=[save_note])
"""
CALL = {"name": "save_note", "arguments": {"title": "Saws", "text": "Only after the safety course."}}
NOTE = {"match": {}, "decisions": [{"tool_calls": [CALL]}, {"answer": "It is written down."}]}


@pytest.fixture
def mine(tmp_path: Path) -> Project:
    """`retinue init my-project`, and an agent beside that writes notes as a script tells it."""
    above = Project(tmp_path, environment() | {"RETINUE_PRINCIPAL": "ana"})
    said = above.run("init", "my-project", code=0)
    assert "cd my-project" in said.out
    made = Project(tmp_path / "my-project", above.environ)
    agents = made.folder / "agents.py"
    agents.write_text(agents.read_text("utf-8") + CLERK, "utf-8")
    made.write_rows("note.jsonl", NOTE)
    return made


def ask_to_write(project: Project) -> tuple[str, str]:
    """(run, request): the clerk would write a note and waits for a person."""
    said = project.run("run", "clerk", "Note it.", "--local", "--model", "scripted:note.jsonl", "--json", code=3)
    [request] = said.json["requests"]
    return said.json["run_id"], request["request_id"]


def notes(project: Project) -> list[str]:
    """The texts of the notes that were written."""
    return [path.read_text("utf-8") for path in sorted((project.folder / "notes").glob("*.md"))]


@pytest.mark.promise("A9")
@pytest.mark.promise("K2")
@pytest.mark.promise("I4")
def test_a_new_project_answers_with_a_citation_and_every_verb_knows_of_it(mine: Project, tmp_path: Path) -> None:
    said = mine.run("run", "librarian", QUESTION, "--local", code=0)
    assert "power tools for one week" in said.out
    assert "[1] lending.md" in said.out

    [run] = mine.run("ps", "--json", code=0).json
    assert (run["status"], run["reason"]) == ("completed", "success")
    name = run["run_id"][-12:]
    assert name in mine.run("ps", code=0).out
    seen = mine.run("inspect", name, code=0)
    assert "completed (success)" in seen.out
    events = [json.loads(line) for line in mine.run("logs", name, "--json", code=0).out.splitlines()]
    assert (events[0]["kind"], events[-1]["kind"]) == ("accepted", "finished")
    waited = mine.run("wait", name, "--local", "--json", code=0).json
    assert waited["output"]["citations"][0]["document"] == "lending.md"
    assert "had ended already" in mine.run("cancel", name, code=0).out
    assert sql_in_every_format(mine, tmp_path) == [("librarian", "completed")] * 4


def sql_in_every_format(project: Project, folder: Path) -> list[tuple[str, str]]:
    """The one row of a query, as a table, JSON, CSV and Parquet."""
    query = "select agent, status from runs"
    table = project.run("sql", query, code=0).out
    found: list[Any] = [tuple(word for word in ("librarian", "completed") if word in table)]
    [row] = project.run("sql", query, "--format", "json", code=0).json
    found.append(tuple(row.values()))
    [_, line] = csv.reader(io.StringIO(project.run("sql", query, "--format", "csv", code=0).out))
    found.append(tuple(line))
    file = folder / "runs.parquet"
    project.run("sql", query, "--format", "parquet", "--output", str(file), code=0)
    [row] = pq.read_table(file).to_pylist()
    return [*found, tuple(row.values())]


@pytest.mark.promise("A1")
def test_the_logs_of_a_run_tell_its_stages_in_order(mine: Project) -> None:
    run, request = ask_to_write(mine)
    mine.run("approve", request, "--by", "bob", code=0)
    mine.run("wait", run, "--local", code=0)
    told = mine.run("logs", run, code=0).out
    turn = [
        "policy stage=context",
        "context turn={}",
        "policy stage=model",
        "model scripted:note.jsonl ended",
        "decision turn={}",
    ]
    stages = [
        "accepted agent clerk",
        "stage stage=accept",
        "policy stage=request",
        *(stage.format(0) for stage in turn),
        "approval save_note begins",
        "waiting_for_approval",
        "call save_note begins",
        "call save_note ended",
        "observation turn=0",
        "checkpoint turn 1",
        *(stage.format(1) for stage in turn),
        "validation turn=1",
        "policy stage=output",
        "completed (success)",
    ]
    place = 0
    for stage in stages:
        assert stage in told[place:], f"{stage!r} is not told, or too early, in\n{told}"
        place = told.index(stage, place) + len(stage)


@pytest.mark.promise("F1")
@pytest.mark.promise("A7")
def test_a_write_waits_in_the_inbox_for_a_yes_and_is_done_once(mine: Project) -> None:
    run, request = ask_to_write(mine)
    assert notes(mine) == []
    listed = mine.run("inbox", code=0)
    assert f"`retinue approve {request}`" in listed.out
    assert "save_note" in listed.out
    assert "approved by bob" in mine.run("approve", request, "--by", "bob", code=0).out
    said = mine.run("wait", run, "--local", "--json", code=0)
    assert said.json["output"] == "It is written down."
    assert notes(mine) == ["# Saws\n\nOnly after the safety course.\n"]
    assert mine.run("inbox", "--json", code=0).json["waits"] == []
    assert "is approved already" in mine.run("approve", request, "--by", "bob", code=2).err


@pytest.mark.promise("F3")
def test_the_yes_of_the_one_who_asked_counts_for_nothing(mine: Project) -> None:
    policy = mine.folder / "policy" / "project.cedar"
    policy.write_text(policy.read_text("utf-8").replace('@approver("anyone")\n', ""), "utf-8")
    run, request = ask_to_write(mine)
    assert "cannot approve it alone" in mine.run("approve", request, code=2).err
    assert "asks for approval" in mine.run("wait", run, "--local", code=3).err
    mine.run("deny", request, "--by", "bob", code=0)
    mine.run("wait", run, "--local", code=0)
    assert notes(mine) == []
    assert "call save_note ended refused" in mine.run("logs", run, code=0).line


@pytest.mark.promise("F1")
def test_a_write_that_is_denied_is_not_done_and_the_run_goes_on(mine: Project) -> None:
    run, request = ask_to_write(mine)
    assert "denied by bob" in mine.run("deny", request, "--by", "bob", "--why", "not now", code=0).out
    mine.run("wait", run, "--local", code=0)
    assert notes(mine) == []
    assert "call save_note ended refused" in mine.run("logs", run, code=0).line
    assert "is denied already" in mine.run("approve", request, "--by", "bob", code=2).err


@pytest.mark.promise("A7")
def test_a_yes_reaches_a_run_that_a_command_carries_on(mine: Project) -> None:
    """The command may see the yes at once, or end because it is not there yet; the run is never stuck."""
    run, request = ask_to_write(mine)
    waiting = mine.start("wait", run, "--local", "--timeout", "30")
    try:
        mine.run("approve", request, "--by", "bob", code=0)
        out, err = waiting.communicate(timeout=BOUND)
    finally:
        waiting.kill()
    if waiting.returncode == 3:
        assert "carries it on" in err
        out = mine.run("wait", run, "--local", code=0).out
    assert "It is written down." in out
    assert len(notes(mine)) == 1


def test_a_run_that_waits_can_be_canceled_and_asks_nobody_any_more(mine: Project) -> None:
    run, request = ask_to_write(mine)
    assert mine.run("cancel", run[-12:], "--by", "bob", code=0).out == "1 run canceled\n"
    assert mine.run("inbox", "--json", code=0).json["waits"] == []
    assert mine.run("wait", run, "--local", code=5).err
    assert "is withdrawn already" in mine.run("approve", request, "--by", "bob", code=2).err
    assert notes(mine) == []


@pytest.mark.promise("K3")
def test_doctor_tells_part_by_part_what_this_installation_is_ready_for(mine: Project) -> None:
    said = mine.run("doctor", "--json", code=0).json
    checked = {check["name"]: check["ok"] for check in said["checks"]}
    assert {"python", "libraries", "ray", "configuration", "data folder", "disk", "policy", "modules"} < set(checked)
    assert all(checked.values())
    parts = {part["name"] for part in said["readiness"]}
    assert {"state", "capabilities", "policy", "context", "traces", "sandbox", "auth", "backups"} <= parts
    assert all(part["owner"] and part["gap"] and part["decision"] for part in said["readiness"])
