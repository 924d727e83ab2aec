"""Pools on a real Ray: from zero by what waits, back without losing a step, and a run that only a kill can end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.chaos.nodes import ENVIRONMENT, Nodes, three_nodes
from tests.cluster.conftest import BOUND, ROOT, CommandLine

from retinue.host.settings import load_settings
from retinue.ingress.connecting import connect
from retinue.runs.contracts import Branch, Status

HERE = Path(__file__).parent
SETTINGS = {
    "modules": ["yard"],
    "default_model": "builtin:extractive",
    "telemetry": {"emit_structured_events": False},
    "actors": {"workers": 1, "cancel_grace": 1, "pools": {"*": {"max": 3, "grow_after": 1, "shrink_after": 2}}},
}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CommandLine, Nodes]]:
    """A project with a runtime on four nodes, of which the last has two cranes."""
    folder = tmp_path_factory.mktemp("yard")
    shutil.copy(HERE / "yard.py", folder)
    (folder / "retinue.yaml").write_text(json.dumps(SETTINGS))
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with three_nodes() as nodes:
        nodes.offer(resources={"crane": 2})
        line = CommandLine(folder, environ | {**ENVIRONMENT, "RAY_ADDRESS": nodes.address})
        line.run("up")
        yield line, nodes
        line.close()


@pytest.fixture(autouse=True)
def closed_gates(yard: tuple[CommandLine, Nodes]) -> None:
    for name in ("open", "log"):
        (yard[0].folder / name).unlink(missing_ok=True)


def told(line: CommandLine) -> list[tuple[str, int]]:
    """The steps that have begun, with their processes."""
    log = line.folder / "log"
    rows = [row.split() for row in log.read_text().splitlines()] if log.exists() else []
    return [(name, int(pid)) for name, pid in rows]


def pool_of(line: CommandLine, prefix: str) -> dict[str, Any]:
    """What `retinue status` says of a pool; nothing before the hosts have said that there is one."""
    return next((dict(pool) for pool in line.ask("status")["pools"] if pool["name"].startswith(prefix)), {})


def until(right: Callable[[], Any], what: str) -> Any:
    """Wait until something is so; its value."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        found = right()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {BOUND} s")


def begin(line: CommandLine, count: int) -> list[tuple[str, int]]:
    """The first steps, as soon as that many have begun."""
    until(lambda: len(told(line)) >= count, f"{count} steps began")
    return told(line)


def submit(line: CommandLine, target: str, *inputs: Any) -> list[str]:
    """Accept runs that the runtime hosts; their ids."""

    async def accept() -> list[str]:
        async with connect(settings=load_settings(line.folder), start=False) as client:
            return [(await client.submit(target, value)).run_id for value in inputs]

    return asyncio.run(accept())


def wait(line: CommandLine, *run_ids: str) -> list[Branch]:
    """How these runs ended."""

    async def ended() -> list[Branch]:
        async with connect(settings=load_settings(line.folder), start=False) as client:
            return [await client.wait(run_id, BOUND) for run_id in run_ids]

    return asyncio.run(ended())


@pytest.mark.timeout(300)
@pytest.mark.promise("B5", "H4")
def test_a_pool_grows_from_nothing_as_far_as_there_are_cranes_and_goes_back_to_nothing(
    yard: tuple[CommandLine, Nodes],
) -> None:
    line, nodes = yard
    before = until(lambda: pool_of(line, "crane1-"), "the pool is known")
    assert (before["serving"], before["starting"], before["low"], before["high"]) == (0, 0, 0, 3)
    runs = submit(line, "lift", "a", "b", "c")
    begun = begin(line, 2)
    pids = {pid for _, pid in begun}
    assert len(pids) == 2, "a crane is for one run"
    assert {psutil.Process(pid).ppid() for pid in pids} == {nodes.raylets()[-1]}, "where the cranes are"
    until(lambda: pool_of(line, "crane1-")["note"], "the third is explained")
    full = pool_of(line, "crane1-")
    assert (full["serving"], full["starting"], full["queued"]) == (2, 1, 1)
    assert "until a node has room" in full["note"]
    os.kill(line.ask("status")["pid"], signal.SIGKILL)
    line.run("up")
    until(lambda: pool_of(line, "crane1-").get("serving") == 2, "a new supervisor has adopted them")
    assert {actor.get("pid") for actor in line.ask("status")["actors"] if actor["name"].startswith("crane1-")} >= pids
    (line.folder / "open").touch()
    assert [branch.value for branch in wait(line, *runs)] == [[f"{name}-first", f"{name}-second"] for name in "abc"]
    until(lambda: not any(pool_of(line, "crane1-")[state] for state in ("serving", "starting", "leaving")), "emptied")
    assert len(told(line)) == 6, "every step once"


@pytest.mark.timeout(300)
@pytest.mark.promise("B5", "C3")
def test_a_drained_actor_loses_no_step_and_repeats_none(yard: tuple[CommandLine, Nodes]) -> None:
    line, _ = yard
    [run_id] = submit(line, "lift", "d")
    [(_, pid)] = begin(line, 1)
    [name] = until(
        lambda: [actor["name"] for actor in line.ask("status")["actors"] if actor.get("pid") == pid], "it is known"
    )
    assert line.json("drain", name)["draining"] == [name]
    until(lambda: pool_of(line, "crane1-")["leaving"], "it takes no run any more")
    assert psutil.pid_exists(pid), "the step in flight is finished first"
    (line.folder / "d-first").touch()
    steps = begin(line, 2)
    assert [step for step, _ in steps] == ["d-first", "d-second"]
    assert steps[1][1] != pid
    until(lambda: not psutil.pid_exists(pid), "the drained actor is gone")
    (line.folder / "open").touch()
    [branch] = wait(line, run_id)
    assert branch.value == ["d-first", "d-second"] and len(told(line)) == 2


@pytest.mark.timeout(300)
@pytest.mark.promise("B5", "C1")
def test_a_dedicated_run_that_does_not_heed_its_cancel_is_killed_with_its_actor(
    yard: tuple[CommandLine, Nodes],
) -> None:
    line, _ = yard
    [run_id] = submit(line, "stubborn", None)
    [(_, pid)] = begin(line, 1)
    line.run("cancel", run_id)
    killed = time.monotonic()
    until(lambda: not psutil.pid_exists(pid), "its actor is dead")
    assert time.monotonic() - killed < 12, "sooner than its silence would be noticed"
    [branch] = wait(line, run_id)
    assert branch.status is Status.canceled
    assert len(told(line)) == 1, "nobody began it again"
    until(lambda: pool_of(line, "dedicated-")["serving"] == 0, "nothing is left")
