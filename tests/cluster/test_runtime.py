"""A runtime that outlives commands: started, joined, asked, refused to a second one, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.cluster.conftest import BOUND, CommandLine

from retinue.host.presence import find_runtime

TOLD = """
import asyncio
from pathlib import Path
from ray._private.utils import publish_error_to_driver
from ray._private.worker import global_worker
from retinue.actors.runtime import attached
from retinue.host.presence import find_runtime
from retinue.host.settings import load_settings

async def main():
    settings = load_settings(Path())
    async with attached(settings, find_runtime(settings.data_folder), start=False):
        for _ in range(25):
            publish_error_to_driver("node_died", "the node n1 has died", gcs_client=global_worker.gcs_client)
            await asyncio.sleep(0.2)
    print("an answer")

asyncio.run(main())
"""
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
@pytest.mark.promise("A7")
def test_what_ray_tells_of_its_nodes_is_no_part_of_an_answer(standing: CommandLine) -> None:
    standing.run("up")
    told = subprocess.run(
        [sys.executable, "-c", TOLD],
        cwd=standing.folder,
        env=standing.environ,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert (told.stdout, "the node n1 has died" in told.stderr) == ("an answer\n", True), told


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
