"""A batch whose rows failed, a tool that is repaired, a redrive: the output is that of a batch that never failed."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from tests.e2e.conftest import Project, environment

pytestmark = [pytest.mark.promise("B5"), pytest.mark.promise("C5")]

FLOWS = '''
import time
from pathlib import Path

from retinue import Context, tool, workflow
from retinue.runs.errors import PermanentError

HERE = Path(__file__).parent


@tool(side_effect="write", idempotency="idempotent")
def book(place: str, *, key: str) -> str:
    """Book a place."""
    with (HERE / "booked").open("a") as file:
        file.write(f"{place} {key}\\n")
    return place


@tool(side_effect="read")
def find(number: int) -> str:
    """Find what there is; breaks for every third until it is repaired."""
    if (HERE / "slow").exists():
        time.sleep(0.3)
    if number % 3 == 0 and not (HERE / "repaired").exists():
        raise PermanentError(f"no map of {number}")
    return f"place {number}"


@workflow
async def guide(ctx: Context, row: dict) -> dict:
    await ctx.call(book, place=row["id"])
    return {"answer": await ctx.call(find, number=row["number"]), "confidence": 0.5}
'''
POLICY = '@id("all") permit (principal, action, resource);'
ROWS = 40


@pytest.fixture
def guided(tmp_path: Any) -> Project:
    """A project whose tool fails for every third row."""
    made = Project(tmp_path / "project", environment())
    made.write("retinue.yaml", "modules: [flows]\ndefault_model: scripted:yes.jsonl\n")
    made.write("flows.py", FLOWS)
    made.write("policy/rules.cedar", POLICY)
    made.write_rows("yes.jsonl", {"match": {}, "decisions": [{"answer": "yes"}]})
    made.write_rows("in.jsonl", *({"id": f"q{number}", "number": number} for number in range(ROWS)))
    return made


def batch(project: Project, output: str, *more: str, code: int) -> dict[str, Any]:
    """Run the guide over the file in the command's own process; what it said."""
    words = ("batch", "guide", "--input", "in.jsonl", "--output", output, "--local", "--json", *more)
    return dict(project.run(*words, code=code).json)


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the ids of their runs."""
    return [{name: value for name, value in row.items() if name != "run_id"} for row in rows]


def test_after_a_redrive_the_output_equals_that_of_a_clean_run(guided: Project) -> None:
    job = batch(guided, "out.jsonl", code=1)["job_id"]
    before = guided.rows("out.jsonl")
    broken = [row for row in before if row["status"] == "failed"]
    assert len(broken) == 14 and {row["stop_reason"] for row in broken} == {"tool_failure"}
    guided.write("repaired", "")
    said = guided.run("dlq", "redrive", job, code=0)
    assert "14 runs queued again" in said.err and said.out == f"{ROWS} rows ok, 0 failed\n"
    assert guided.rows("out.jsonl") == before
    again = batch(guided, "out.jsonl", "--resume", code=0)
    assert (again["ok"], again["failed"], again["written"]) == (ROWS, 0, ROWS)
    after = guided.rows("out.jsonl")
    assert [row["run_id"] for row in after] == [row["run_id"] for row in before]
    assert guided.run("dlq", "list", code=0).out == "no dead letters\n"
    booked = (guided.folder / "booked").read_text().splitlines()
    assert len(booked) == len({line.split()[1] for line in booked}) == ROWS
    batch(guided, "clean.jsonl", code=0)
    assert plain(after) == plain(guided.rows("clean.jsonl"))


def test_resume_hosts_what_was_queued_and_a_kill_in_between_costs_nothing(guided: Project) -> None:
    job = batch(guided, "out.jsonl", code=1)["job_id"]
    guided.write("repaired", "")
    guided.write("slow", "")
    assert "14 runs queued again" in guided.run("dlq", "redrive", job, "--background", code=0).err
    assert "14 queued" in guided.run("inspect", job, code=0).out
    given = ("batch", "guide", "--input", "in.jsonl", "--output", "out.jsonl", "--local", "--concurrency", "2")
    process = guided.start(*given, "--resume")
    deadline = time.monotonic() + 30
    while "14 queued" in guided.run("inspect", job, code=0).out:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    said = batch(guided, "out.jsonl", "--resume", code=0)
    assert (said["ok"], said["failed"]) == (ROWS, 0)
    batch(guided, "clean.jsonl", code=0)
    assert plain(guided.rows("out.jsonl")) == plain(guided.rows("clean.jsonl"))


def test_rows_that_fail_again_are_dead_letters_again(guided: Project) -> None:
    job = batch(guided, "out.jsonl", "--limit", "4", code=1)["job_id"]
    assert guided.run("dlq", "redrive", job, code=1).out == "2 rows ok, 2 failed\n"
    found = guided.run("dlq", "list", "--json", code=0).json["letters"]
    assert [(one["input_id"], one["attempts"]) for one in found] in ([("q0", 2), ("q3", 2)], [("q3", 2), ("q0", 2)])
