"""Where on a Ray cluster the actors of a runtime may live, and what Ray is told about it.

An embedded store is one machine's, and several Ray nodes may share that machine: its actors are bound to them. A
store that is a server is reached from any node. Knows no actor.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retinue.runs.resources import Resources, amounts, in_words

_NODE_ID = "ray.io/node-id"
_RAY_NAMES = {"cpus": "CPU", "gpus": "GPU", "memory": "memory"}
Node = Mapping[str, Any]
"""A node as Ray describes it."""


def nodes_for(bound: bool) -> list[Node]:
    """The living nodes that actors may be on, in a fixed order: all, or (bound) those of this machine.

    Never empty, since this process is on one.
    """
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in sorted(nodes, key=lambda node: str(node["NodeID"])) if node["Alive"]]
    if not bound:
        return alive
    here = on_machine(alive, socket.gethostname(), own_addresses()) or [ray.get_runtime_context().get_node_id()]
    return [node for node in alive if node["NodeID"] in here]


def on_machine(nodes: Iterable[Node], hostname: str, addresses: Collection[str]) -> list[str]:
    """Of Ray's node records the living ones of one machine: its name and one of its addresses, both must fit."""
    return sorted(
        node["NodeID"]
        for node in nodes
        if node["Alive"] and node["NodeManagerHostname"] == hostname and node["NodeManagerAddress"] in addresses
    )


def names_of(node: Node) -> tuple[str, str]:
    """What a person may call a node: its host name and its id in Ray."""
    return str(node["NodeManagerHostname"]), str(node["NodeID"])


def own_addresses() -> set[str]:
    """Every network address of this machine."""
    return {found.address for interface in psutil.net_if_addrs().values() for found in interface}


def supervisor_options(bound: bool) -> dict[str, Any]:
    """For the supervisor: Ray may restart it on any node that is left of this machine, or of the cluster."""
    return {"num_cpus": 0} | ({"label_selector": within(nodes_for(True))} if bound else {})


def beside(node_id: str) -> dict[str, Any]:
    """For an actor that belongs on a node that is known to live."""
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def within(nodes: Sequence[Node]) -> dict[str, str]:
    """A label selector for these nodes and no others."""
    return {_NODE_ID: f"in({','.join(str(node['NodeID']) for node in nodes)})"}


def outside(nodes: Sequence[Node]) -> dict[str, str]:
    """A label selector for any node but these, such as one that is yet to come."""
    return {_NODE_ID: f"!in({','.join(str(node['NodeID']) for node in nodes)})"} if nodes else {}


def host_options(
    needs: Resources,
    placement: Literal["spread", "pack"],
    turn: int,
    nodes: Sequence[Node],
    selector: Mapping[str, str],
) -> dict[str, Any]:
    """For the `turn`th start of a host on one of these nodes, or on one to come that the selector admits.

    What reserves nothing is placed by turns (spread) or on the first node that fits (pack), since Ray would place it
    at random; what reserves something is Ray's to place, since only Ray knows what is free.
    """
    options = _reserved(needs)
    fitting = [node for node in nodes if not _unmet_on(node, needs)]
    if not needs.reserves and fitting:
        node = fitting[turn % len(fitting) if placement == "spread" else 0]
        return options | {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}
    if needs.labels or selector:
        options["label_selector"] = {**needs.labels, **selector}
    return options | {"scheduling_strategy": "SPREAD" if placement == "spread" else "DEFAULT"}


def unmet(needs: Resources, nodes: Sequence[Node]) -> str | None:
    """What no single one of these nodes offers, even with nothing running on it; None when one offers all."""
    if not nodes or not all(_unmet_on(node, needs) for node in nodes):
        return None
    closest = min((_unmet_on(node, needs) for node in nodes), key=len)
    return ", ".join(closest)


def _reserved(needs: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.memory:
        options["memory"] = int(needs.memory)
    if needs.custom:
        options["resources"] = dict(needs.custom)
    if needs.runtime_env:
        options["runtime_env"] = dict(needs.runtime_env)
    return options


def _unmet_on(node: Node, needs: Resources) -> list[str]:
    total, labels = node["Resources"], node["Labels"]
    missing = [
        in_words(name, amount)
        for name, amount in amounts(needs).items()
        if amount > total.get(_RAY_NAMES.get(name, name), 0)
    ]
    return missing + [
        f"label {key}={value}" for key, value in needs.labels.items() if not _fits(labels.get(key), value)
    ]


def _fits(label: str | None, wanted: str) -> bool:
    """Whether a node's label is what is wanted: a value, `!value`, `in(a,b)` or `!in(a,b)`."""
    positive = wanted.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", positive)
    values = [value.strip() for value in listed[1].split(",")] if listed else [positive]
    return (label in values) != wanted.startswith("!")
