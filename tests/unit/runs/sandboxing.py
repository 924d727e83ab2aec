"""Worlds with sandboxes: the double's folders on named nodes, and what the journal says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.doubles.sandboxes import Nodes, files
from tests.doubles.worlds import ALLOW_ALL, World
from tests.unit.runs.conftest import Make

from retinue.runs.contracts import Json
from retinue.runs.definitions import Definition
from retinue.runs.journal import Record
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.sandboxed import sandbox_tools


async def boxed(make: Make, folder: Path, *definitions: Definition, policy: str = ALLOW_ALL) -> tuple[World, Nodes]:
    """A world whose host is on node `a`."""
    world = await make(*definitions, policy=policy)
    nodes = Nodes(folder / "nodes", now=world.clock)
    gateway = CapabilityGateway(Catalog(sandbox_tools(agents=True)), world.services.gate, clock=world.clock)
    world.use(gateway=gateway, sandboxes=nodes.node("a"))
    return world, nodes


async def crash(world: World, nodes: Nodes, node: str = "a") -> None:
    """The owner dies where it stands, and the next one is on this node; nothing is held still any more."""
    await world.crash()
    nodes.hold.clear()
    world.use(sandboxes=nodes.node(node))


async def hold(world: World, nodes: Nodes, moment: str) -> None:
    """Drive until an operation is held still at a moment."""
    nodes.hold.add(moment)
    await world.until(lambda: moment in nodes.held)


async def moves(world: World, run_id: str) -> list[str]:
    """What became of the run's sandboxes, in order."""
    return [str(record.facts["event"]) for record in await told(world, run_id)]


async def told(world: World, run_id: str) -> list[Record]:
    """The records of the run's sandboxes."""
    return [one for one in await world.entries(run_id) if isinstance(one, Record) and one.topic == "sandbox"]


async def holds(world: World, nodes: Nodes, run_id: str, node: str = "a", place: int = 0) -> dict[str, str]:
    """What the run's how-many-th sandbox holds on a node: texts by name."""
    ids: list[str] = []
    for record in await told(world, run_id):
        if record.facts["sandbox_id"] not in ids:
            ids.append(str(record.facts["sandbox_id"]))
    return files(nodes.folder / node / ids[place] / "tree")


def ran(nodes: Nodes) -> list[str]:
    """The programs that were run, in order."""
    return [detail for _, operation, detail in nodes.done if operation == "exec"]


def shell(command: str, **more: Json) -> dict[str, Any]:
    """A decision to run a command."""
    return {"tool_calls": [{"name": "shell", "arguments": {"command": command, **more}}]}
