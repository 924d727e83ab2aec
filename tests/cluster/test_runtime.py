"""A runtime that outlives commands: started, joined, asked, refused to a second one, stopped."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tests.cluster.conftest import CommandLine

from retinue.host.presence import find_runtime

QUESTION = "Since which version does Opera Android support the CSS selector `:modal`?"


@pytest.mark.timeout(240)
@pytest.mark.promise("A7", "B3")
def test_a_runtime_whose_supervisor_has_crashed_is_found_and_none_beside_it_is_started(standing: CommandLine) -> None:
    standing.run("up")
    before = find_runtime(standing.folder / ".retinue")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    found = standing.json("status")
    assert {actor["name"] for actor in found["actors"]} == {"run-0", "worker-0", "worker-1", "traces"}
    assert found["address"] == before.address and found["pid"] != before.pid


@pytest.mark.timeout(240)
@pytest.mark.promise("A7", "A9", "B3", "I4", "K2")
def test_a_runtime_serves_many_commands_until_it_is_stopped(standing: CommandLine) -> None:
    started = standing.json("up")
    assert {actor["name"] for actor in started["actors"]} == {"run-0", "worker-0", "worker-1", "traces"}

    run_id = standing.json("run", "researcher", QUESTION, "--background")["run_id"]
    answer = standing.json("wait", run_id)
    assert "72" in json.dumps(answer)

    rows = standing.json("sql", "select agent, actor_id, pid, status from runs order by agent")
    assert {row["agent"] for row in rows} == {"researcher"}
    assert all(row["actor_id"] and row["pid"] for row in rows)

    refused = standing.run("doctor", "--json")
    assert "runtime" in refused
    standing.run("down")
    standing.run("status", code=6)
