"""Which Ray nodes are of this machine."""

from __future__ import annotations

from typing import Any

import pytest

from retinue.actors.placement import on_machine, own_addresses


def node(name: str, hostname: str = "here", address: str = "192.0.2.7", alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "NodeManagerHostname": hostname, "NodeManagerAddress": address}


@pytest.mark.promise("B3")
def test_only_living_nodes_with_our_name_and_one_of_our_addresses_are_ours() -> None:
    nodes = [
        node("c"),
        node("a", address="127.0.0.1"),
        node("dead", alive=False),
        node("other machine", hostname="there", address="192.0.2.8"),
        node("namesake", address="192.0.2.8"),
        node("behind another bridge", hostname="there"),
    ]
    assert on_machine(nodes, "here", {"127.0.0.1", "192.0.2.7"}) == ["a", "c"]


def test_a_machine_knows_its_own_addresses() -> None:
    assert "127.0.0.1" in own_addresses()
