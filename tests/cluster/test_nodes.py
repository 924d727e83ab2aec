"""Several Ray nodes of one machine: actors are spread over them, and come back elsewhere when one is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.chaos.nodes import ENVIRONMENT, Nodes, three_nodes
from tests.cluster.conftest import CommandLine

from retinue.host.presence import find_runtime
from retinue.store.sqlite import SqliteStore

pytestmark = pytest.mark.long
"""Chaos and the shared store lose nodes in every round."""

QUESTION = "Since which version does Opera Android support the CSS selector `:modal`?"


@pytest.fixture(scope="module")
def nodes(standing: CommandLine) -> Iterator[Nodes]:
    """Three nodes; the runtime on them is stopped first, since `down` needs them."""
    with three_nodes() as nodes:
        standing.environ |= {**ENVIRONMENT, "RAY_ADDRESS": nodes.address}
        yield nodes
        standing.run("down")


def parent(pid: int) -> int:
    """Of an actor the raylet of its node; 0 when it is gone."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return 0


async def hosts_on(store: SqliteStore, raylets: list[int]) -> dict[str, int]:
    """Host id to raylet of the hosts that live on these nodes."""
    found = {host_id: parent(pid) for host_id, _, pid, *_ in await store.hosts()}
    return {host_id: raylet for host_id, raylet in found.items() if raylet in raylets}


async def three_hosts(folder: Path, raylets: list[int]) -> dict[str, int]:
    """The hosts, as soon as all three serve on living nodes."""
    store = SqliteStore(folder)
    try:
        async with asyncio.timeout(60):
            while True:
                found = await hosts_on(store, raylets)
                if len(found) >= 3:
                    return found
                await asyncio.sleep(0.1)
    finally:
        await store.close()


@pytest.mark.timeout(240)
@pytest.mark.promise("B3", "C3")
@pytest.mark.rule("R8")
def test_actors_live_on_every_node_of_the_machine_and_survive_the_loss_of_two(
    standing: CommandLine, nodes: Nodes
) -> None:
    standing.run("up")
    folder = standing.folder / ".retinue"
    spread = asyncio.run(three_hosts(folder, nodes.raylets()))
    assert len(set(spread.values())) == 3, "one actor on each node"

    for index in (0, 1):
        nodes.lose(index)
        found = asyncio.run(three_hosts(folder, nodes.raylets()))
        assert not set(found.values()) - set(nodes.raylets())
    assert "72" in standing.run("run", "researcher", QUESTION)


@pytest.mark.timeout(240)
@pytest.mark.promise("A7", "B3")
def test_a_command_that_meets_a_supervisor_on_its_way_back_does_not_stop_the_runtime(
    standing: CommandLine, nodes: Nodes
) -> None:
    standing.run("up")
    folder = standing.folder / ".retinue"
    runtime = find_runtime(folder)
    assert runtime is not None
    os.kill(runtime.pid, signal.SIGKILL)
    assert "72" in standing.run("run", "researcher", QUESTION)
    assert find_runtime(folder) is not None
