"""A runtime on PostgreSQL: bound to no folder, spread over the nodes, and back elsewhere when one is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.chaos.nodes import ENVIRONMENT, Nodes, three_nodes
from tests.cluster.conftest import ROOT, CommandLine
from tests.cluster.test_pools import begin, submit, told, until, wait
from tests.doubles.places import Places

HERE = Path(__file__).parent
SECRET = "s3cr3t-of-the-database"


@pytest.fixture
def shared(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[CommandLine, Nodes]]:
    """A project on PostgreSQL with a runtime on three nodes; its password is in the environment of all."""
    monkeypatch.setenv("YARD_PASSWORD", SECRET)
    with places.new("postgres") as place:
        assert place.url is not None
        shutil.copy(HERE / "yard.py", tmp_path)
        url = place.url.replace("@", ":${YARD_PASSWORD}@")
        pools = {"*": {"shrink_after": 2}}
        settings = {"modules": ["yard"], "store": url, "actors": {"workers": 2, "lease_seconds": 5, "pools": pools}}
        (tmp_path / "retinue.yaml").write_text(json.dumps(settings))
        with three_nodes() as nodes:
            nodes.offer(resources={"crane": 1})
            environ = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": nodes.address}
            monkeypatch.setenv("RAY_ADDRESS", nodes.address)
            line = CommandLine(tmp_path, environ)
            yield line, nodes
            line.close()


def raylets_of(line: CommandLine) -> dict[str, int]:
    """The raylet above each living host and the supervisor."""
    said = line.ask("status")
    pids = {actor["name"]: actor["pid"] for actor in said["actors"] if actor["state"] == "serving"}
    found = {}
    for name, pid in (pids | {"supervisor": said["pid"]}).items():
        try:
            found[name] = psutil.Process(pid).ppid()
        except psutil.NoSuchProcess:
            continue
    return found


def lose_supervisor(line: CommandLine, nodes: Nodes, raylet: int) -> None:
    """A node is lost: the supervisor's, or, where that has Ray's head or the crane, another and the supervisor's
    process."""
    supervisor = line.ask("status")["pid"]
    places = [index for index in (0, 1) if nodes.raylets()[1 + index] == raylet]
    nodes.lose(places[0] if places else 0)
    if not places:
        os.kill(supervisor, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(supervisor), "the supervisor is gone")


@pytest.mark.timeout(300)
@pytest.mark.promise("B3", "C3", "K2")
def test_a_runtime_on_a_shared_store_outlives_its_supervisor_and_a_node(shared: tuple[CommandLine, Nodes]) -> None:
    line, nodes = shared
    line.run("up")
    assert not (line.folder / ".retinue" / "runtime.lock").exists(), "no folder is claimed"
    until(lambda: len(raylets_of(line)) == 5, "the supervisor, three hosts and the traces serve")
    where = raylets_of(line)
    assert len({where[name] for name in ("run-0", "worker-0", "worker-1")}) == 3, "spread"
    assert where["traces"] == where["supervisor"]

    crane = nodes.raylets()[3]  # what is lifted below needs that node
    drained = next(name for name in ("worker-0", "worker-1") if where[name] != crane)
    [worker] = [actor for actor in line.ask("status")["actors"] if actor["name"] == drained]
    leaving = line.json("drain", worker["node_id"][:12])["draining"]
    assert drained in leaving
    until(lambda: not psutil.pid_exists(worker["pid"]), "the drained actor is gone")
    until(lambda: len(raylets_of(line)) == 5, "another took its place")
    left, where = where[drained], raylets_of(line)
    assert left not in [raylet for name, raylet in where.items() if name.startswith(("run-", "worker-"))]

    [run_id] = submit(line, "lift", "a")
    begin(line, 1)
    lose_supervisor(line, nodes, where["supervisor"])
    until(lambda: len(found := raylets_of(line)) >= 5 and set(found.values()) <= set(nodes.raylets()), "all are back")
    (line.folder / "open").touch()
    [branch] = wait(line, run_id)
    assert branch.value == ["a-first", "a-second"] and len(told(line)) == 2
    rows = line.json("sql", "select agent, status from runs")
    assert {"agent": "lift", "status": "completed"} in rows
    logs = [path for path in nodes.session.rglob("*") if path.suffix in (".log", ".out", ".err")]
    assert logs and [path for path in logs if SECRET in path.read_text(errors="replace")] == []
