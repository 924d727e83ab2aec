"""Sandboxes in the trace tables: moves, programs, hosts they wanted; never what a program has written."""

from __future__ import annotations

import pytest
from tests.unit.traces.books import Book
from tests.unit.traces.conftest import Open, contents, drain
from tests.unit.traces.journeys import boxing


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
