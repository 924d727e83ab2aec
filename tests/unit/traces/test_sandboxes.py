"""Sandboxes in the trace tables: moves, programs, hosts they wanted; never what a program has written."""

from __future__ import annotations

import pytest
from tests.unit.traces.books import Book, Run
from tests.unit.traces.conftest import Open, contents, drain
from tests.unit.traces.journeys import boxing

from retinue.runs.contracts import ErrorInfo


def book() -> Book:
    made = Book()
    for _ in boxing(made, "run-0", 0):
        pass
    return made


@pytest.mark.promise("E2", "I1")
async def test_moves_and_execs_are_rows(open_traces: Open) -> None:
    traces = await open_traces(book())
    await drain(traces)
    moves = (await traces.query("SELECT * FROM sandbox_moves ORDER BY seq, ordinal")).to_pylist()
    assert [move["event"] for move in moves] == ["opened", "lost_exec", "closed"]
    assert (moves[1]["operation"], moves[1]["cause"]) == ("sandbox.exec", "sandbox.exec was cut off")
    [box] = (await traces.query("SELECT * FROM sandboxes")).to_pylist()
    assert (box["sandbox_id"], box["status"], box["generation"], box["event"]) == ("box-run-0", "closed", 2, "closed")
    assert (box["confinement"], box["omitted"]) == ('{"network":"enforced"}', ["cache"])
    lost, first, second, third = (await traces.query("SELECT * FROM sandbox_execs ORDER BY seq, ordinal")).to_pylist()
    assert (lost["lost"], lost["result"], lost["tool"]) == (True, None, "sandbox.exec")
    assert lost["argv"] == first["argv"] and first["argv"][0] == "curl"
    assert (first["exit_code"], first["limits"], first["stdout_bytes"], first["micros"]) == (7, ["timeout"], 13, 1_500)
    assert (first["place"], first["generation"], first["replayable"], first["cwd"]) == ("box-run-0", 1, False, "src")
    assert (second["argv"], second["error_code"]) == (["sh", "-c", "make"], "lost_exec")
    assert (third["argv"], third["signal"], third["exit_code"]) == (["python3", "-"], 9, None)


@pytest.mark.promise("E2")
async def test_a_program_that_was_canceled_or_refused_is_a_row_and_a_projects_own_shell_is_none(
    open_traces: Open,
) -> None:
    made = Book()
    run = Run(made, "run-0", target="coder").accept().lease(0)
    cut = run.intent("call", "sandbox.exec", "0/a#0", {"sandbox": "box-1", "argv": ["sleep", "9"]}, source="sandbox")
    gone = run.intent("call", "shell", "0/b#0", {"command": "ls", "cwd": ".."}, source="sandbox", turn=0)
    own = run.intent("call", "shell", "0/c#0", {"command": "ls"}, source="native", turn=0)
    error = ErrorInfo(reason="tool_failure", code="sandbox_path", message="leads out")
    run.write(cut, gone, own, run.outcome(own, {"exit_code": 0}), run.outcome(gone, None, "error", error=error))
    run.write(run.outcome(cut, None, "canceled"))
    traces = await open_traces(made)
    await drain(traces)
    rows = (await traces.query("SELECT * FROM sandbox_execs ORDER BY seq, ordinal")).to_pylist()
    assert [(row["key"], row["result"], row["error_code"]) for row in rows] == [
        ("0/b#0", "error", "sandbox_path"),
        ("0/a#0", "canceled", None),
    ]
    assert (rows[1]["place"], rows[1]["argv"]) == ("box-1", ["sleep", "9"])


@pytest.mark.promise("E2")
async def test_hosts_that_programs_wanted_are_decisions_of_the_gate(open_traces: Open) -> None:
    traces = await open_traces(book())
    await drain(traces)
    asked = await traces.query("SELECT host, outcome, resource FROM policy_decisions WHERE stage = 'egress'")
    assert asked.to_pylist() == [{"host": "files.example:443", "outcome": "deny", "resource": "coder"}]


@pytest.mark.promise("I6")
async def test_what_a_program_wrote_and_secrets_of_its_arguments_are_in_no_table(open_traces: Open) -> None:
    traces = await open_traces(book())
    await drain(traces)
    everything = repr(await contents(traces))
    assert "what it wrote" not in everything and "hunter2hunter2" not in everything
    assert "me:[redacted]" in everything
