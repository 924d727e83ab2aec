"""Where on a Ray cluster the actors of a runtime may live: on any node of this machine, on no other.

An embedded store is one machine's, and several Ray nodes may share that machine. Knows no actor.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NODE_ID = "ray.io/node-id"


def nodes_here() -> list[str]:
    """Ids of the living Ray nodes of this machine, in a fixed order; never empty, since this process is on one."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    found = on_machine(nodes, socket.gethostname(), own_addresses())
    return found or [ray.get_runtime_context().get_node_id()]


def on_machine(nodes: Iterable[Mapping[str, Any]], hostname: str, addresses: Collection[str]) -> list[str]:
    """Of Ray's node records the living ones of one machine: its name and one of its addresses, both must fit."""
    return sorted(
        node["NodeID"]
        for node in nodes
        if node["Alive"] and node["NodeManagerHostname"] == hostname and node["NodeManagerAddress"] in addresses
    )


def own_addresses() -> set[str]:
    """Every network address of this machine."""
    return {found.address for interface in psutil.net_if_addrs().values() for found in interface}


def spread(number: int) -> NodeAffinitySchedulingStrategy:
    """For the `number`th start of an actor: the nodes of this machine in turn, as they live now."""
    nodes = nodes_here()
    return NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=False)


def anywhere_here() -> dict[str, str]:
    """A label selector for the nodes that this machine has now: Ray may restart an actor on any that is left."""
    return {_NODE_ID: f"in({','.join(nodes_here())})"}
