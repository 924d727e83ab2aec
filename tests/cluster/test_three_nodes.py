"""A batch on three nodes with PostgreSQL gives what one machine with the embedded store gives, though a node is killed.

The larger measurement, with a network cut, is `make three-nodes` (benchmarks/cluster).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
import yaml
from benchmarks.cluster.equality import differences, report_in
from benchmarks.cluster.projects import rows_of
from tests.chaos.checker import check
from tests.chaos.history import History, Wave, groups_by, read_lines, runs_by
from tests.chaos.nodes import ENVIRONMENT, three_nodes
from tests.cluster.conftest import BOUND, CommandLine
from tests.doubles.places import Places

from retinue.host import clock

ROWS = 100
BATCH = ("batch", "research", "--input", "questions.jsonl", "--limit", str(ROWS), "--json")
ACTORS = {"runs": 1, "workers": 3, "capacity": 16, "lease_seconds": 3}


def some_rows(output: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until so many rows are written."""
    deadline = time.monotonic() + BOUND
    while not output.exists() or len(output.read_text("utf-8").splitlines()) < count:
        assert process.poll() is None, f"the batch ended with {process.returncode}: {process.communicate()}"
        assert time.monotonic() < deadline, f"not {count} rows within {BOUND} s"
        time.sleep(0.1)


def story(url: str, job_id: str, output: Path) -> History:
    """What the store on PostgreSQL and the output say, for the judge."""
    ids = tuple(str(row["id"]) for row in rows_of(output.with_name("questions.jsonl"))[:ROWS])
    with psycopg.connect(url) as connection:

        def execute(statement: str) -> list[tuple[object, ...]]:
            return connection.execute(statement).fetchall()

        wave = Wave(job_id, ids, read_lines(output))
        return History(runs_by(execute), groups_by(execute), waves=(wave,), accepted=(job_id,), now=clock.now_ns())


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.promise("C3", "K2")
def test_three_nodes_give_what_one_machine_gives_though_a_node_is_killed(research: CommandLine, places: Places) -> None:
    # The note of sources is a write that no log of effects holds.
    research.environ["RETINUE_ENABLE_BACKGROUND_UPDATES"] = "false"
    research.run(*BATCH, "--output", "alone.jsonl", "--local")
    folder = shutil.copytree(research.folder, research.folder.with_name("spread"))
    output = folder / "spread.jsonl"
    with places.new("postgres") as place, three_nodes() as nodes:
        assert place.url is not None
        environ = research.environ | ENVIRONMENT | {"RAY_ADDRESS": nodes.address}
        line = CommandLine(folder, {name: value for name, value in environ.items() if "WORKERS" not in name})
        settings = folder / "retinue.yaml"
        more = {"store": place.url, "actors": ACTORS, "telemetry": {"emit_structured_events": False}}
        settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | more))
        process = line.start(*BATCH, "--output", output.name)
        some_rows(output, process, 10)
        nodes.lose(0)
        out, err = process.communicate(timeout=BOUND)
        assert process.returncode == 0, f"{out}\n{err}"
        assert not differences(rows_of(output), rows_of(research.folder / "alone.jsonl"))
        assert check(story(place.url, report_in(out)["job_id"], output)) == []
