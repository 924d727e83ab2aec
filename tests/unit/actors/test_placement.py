"""Which Ray nodes are of this machine, and what Ray is told about where an actor may live."""

from __future__ import annotations

from typing import Any

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retinue.actors.placement import host_options, on_machine, outside, own_addresses, unmet, within
from retinue.runs.resources import Resources

NODES = [f"{n:056x}" for n in range(3)]
ANYTHING = Resources()
SSD = Resources(labels={"disk": "ssd"})
CRANE = Resources(cpus=1, custom={"crane": 1}, memory="1GiB", runtime_env={"pip": ["torch"]})


def node(name: str, hostname: str = "here", address: str = "192.0.2.7", alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "NodeManagerHostname": hostname, "NodeManagerAddress": address}


def offering(name: str, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return node(name) | {"Labels": labels or {}, "Resources": {"CPU": 2.0, "memory": 2.0**30, **resources}}


def placed_on(options: dict[str, Any]) -> str:
    strategy = options["scheduling_strategy"]
    assert isinstance(strategy, NodeAffinitySchedulingStrategy) and not strategy.soft
    return strategy.node_id


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


@pytest.mark.promise("B3", "B5")
def test_what_reserves_nothing_is_placed_by_turns_or_together() -> None:
    nodes = [offering(name) for name in NODES]
    spread = [placed_on(host_options(ANYTHING, "spread", turn, nodes, {})) for turn in range(4)]
    assert spread == [*NODES, NODES[0]]
    assert {placed_on(host_options(ANYTHING, "pack", turn, nodes, {})) for turn in range(4)} == {NODES[0]}


@pytest.mark.promise("B5")
def test_a_label_chooses_among_the_nodes_that_live_and_waits_for_one_that_does_not() -> None:
    nodes = [offering(NODES[0]), offering(NODES[1], {"disk": "ssd"}), offering(NODES[2], {"disk": "hdd"})]
    assert placed_on(host_options(SSD, "spread", 5, nodes, {})) == NODES[1]
    waiting = host_options(SSD, "spread", 5, nodes[:1], {})
    assert (waiting["label_selector"], waiting["scheduling_strategy"]) == ({"disk": "ssd"}, "SPREAD")


@pytest.mark.promise("B5")
def test_what_reserves_something_is_ray_s_to_place_and_an_embedded_store_keeps_it_on_this_machine() -> None:
    nodes = [offering(name) for name in NODES[:2]]
    free = host_options(CRANE, "pack", 0, nodes, {})
    assert free == {
        "num_cpus": 1,
        "num_gpus": 0,
        "memory": 2**30,
        "resources": {"crane": 1},
        "runtime_env": {"pip": ["torch"]},
        "scheduling_strategy": "DEFAULT",
    }
    bound = host_options(CRANE, "spread", 0, nodes, within(nodes))
    assert bound["label_selector"] == {"ray.io/node-id": f"in({NODES[0]},{NODES[1]})"}
    assert bound["scheduling_strategy"] == "SPREAD"


@pytest.mark.promise("B5")
def test_a_drained_node_is_left_out_and_one_that_is_yet_to_come_is_not() -> None:
    left = host_options(Resources(gpus=1, labels={"disk": "ssd"}), "spread", 0, [], outside([offering(NODES[0])]))
    assert left["label_selector"] == {"disk": "ssd", "ray.io/node-id": f"!in({NODES[0]})"}
    assert outside([]) == {}


@pytest.mark.promise("B5")
def test_what_no_node_offers_is_named() -> None:
    plain, ssd = offering(NODES[0]), offering(NODES[1], {"disk": "ssd"})
    assert unmet(CRANE, [plain, offering(NODES[2], crane=1.0)]) is None
    assert unmet(CRANE, [plain, ssd]) == "1 crane"
    assert unmet(Resources(gpus=1, labels={"disk": "ssd"}), [plain, ssd]) == "1 gpus"
    assert unmet(Resources(cpus=4, memory="8GiB"), [plain]) == "4 cpus, 8 GiB of memory"


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("ssd", True), ("!ssd", False), ("in(hdd, ssd)", True), ("!in(hdd,ssd)", False), ("hdd", False), ("!hdd", True)],
)
def test_labels_are_matched_as_ray_does(wanted: str, fits: bool) -> None:
    found = unmet(Resources(labels={"disk": wanted}), [offering(NODES[0], {"disk": "ssd"})])
    assert (found is None) == fits
