"""The model of a cluster: its kernel keeps the laws of queues, no run is lost or twice, more never gives less, one seed
gives one history, and what it says of this machine is near to what was measured there."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from benchmarks.scale.cluster import Cluster
from benchmarks.scale.costs import FILE, BadCosts, Costs, from_rows, load, merged
from benchmarks.scale.events import All, Log, Pool, Process, Simulation
from benchmarks.scale.probe import line
from benchmarks.scale.run import busy_cluster, one_fan_out, table, used_up, written
from benchmarks.scale.scenarios import (
    batch_seconds,
    in_cluster,
    one_machine,
    raw_commits,
    steps_per_second,
    under_load,
)
from benchmarks.scale.shapes import Shape, Work

RECORDED = json.loads(FILE.with_name("recorded.json").read_text("utf-8"))
TOLERANCE = {"batch_seconds": 0.15, "steps_per_second": 0.5, "raw_commits": 0.6}
DISTURBED = 0.4
"""Share of the machine that others used: up to here a figure counts, and the model's CPU costs are stretched by it.
None: it was not measured, and nothing is stretched."""


@pytest.fixture(scope="module")
def costs() -> Costs:
    return load()


def small(costs: Costs, nodes: int = 2) -> Shape:
    """A cluster that is simulated in no time."""
    return replace(in_cluster(costs, nodes), capacity=16)


def test_a_pool_serves_in_order_and_never_more_than_its_places() -> None:
    simulation = Simulation(1)
    pool, log = Pool(simulation, 2), list[tuple[str, int, float]]()

    def worker(number: int) -> Process:
        yield pool
        log.append(("begin", number, simulation.now))
        yield 1.0
        log.append(("end", number, simulation.now))
        pool.give()

    for number in range(5):
        simulation.start(worker(number))
    simulation.run(10.0)
    assert [number for what, number, _ in log if what == "begin"] == [0, 1, 2, 3, 4]
    assert [at for what, _, at in log if what == "end"] == [1.0, 1.0, 2.0, 2.0, 3.0]
    assert pool.busy == pytest.approx(5.0)
    assert pool.utilisation == pytest.approx(0.25)


def test_a_flush_takes_all_that_waited_when_it_began() -> None:
    simulation = Simulation(1)
    log, done = Log(simulation, 1.0, 1e9), list[float]()

    def commit(delay: float) -> Process:
        yield delay
        yield log
        done.append(simulation.now)

    for delay in (0.0, 0.2, 0.4, 1.5):
        simulation.start(commit(delay))
    simulation.run(10.0)
    assert done == [1.0, 2.0, 2.0, 3.0]
    assert (log.flushes, log.commits) == (3, 4)


def test_side_by_side_takes_as_long_as_the_longer_one() -> None:
    simulation = Simulation(1)
    pool, ends = Pool(simulation, 2), list[float]()

    def both() -> Process:
        yield All(simulation, pool.use(0.3), pool.use(0.2))
        ends.append(simulation.now)

    simulation.start(both())
    simulation.run(1.0)
    assert ends == [pytest.approx(0.3)]


def test_as_many_are_in_a_queue_as_arrive_while_one_waits() -> None:
    """Little's law, L = lambda W; and half a customer waits in an M/M/1 queue that is half busy."""
    simulation = Simulation(7)
    pool, arrived = Pool(simulation, 1), 0

    def served() -> Process:
        yield pool
        yield simulation.random.expovariate(1.0)
        pool.give()

    def arrivals() -> Process:
        nonlocal arrived
        while True:
            yield simulation.random.expovariate(0.5)
            arrived += 1
            simulation.start(served())

    simulation.start(arrivals())
    simulation.run(40_000.0)
    assert pool.mean_queue == pytest.approx(arrived / simulation.now * pool.mean_wait, rel=0.01)
    assert pool.mean_queue == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_every_run_ends_once_with_all_its_commits(costs: Costs, groups: int) -> None:
    work = Work(3, 0.05, commits=2, groups=groups, total=500, parks=0.3, wait=0.1)
    cluster = Cluster(costs, small(costs), work)
    cluster.simulation.run(600.0, lambda: cluster.ended == work.total)
    assert (cluster.made, cluster.ended, cluster.counts.steps) == (500, 500, 1_500)
    assert cluster.counts.commits == 500 * (3 * 2 + 1)
    cluster.simulation.run(cluster.simulation.now + 5.0)
    assert (cluster.made, cluster.ended, cluster.held, cluster.parked, len(cluster.queued)) == (500, 500, 0, 0, 0)


def test_under_load_every_run_is_somewhere(costs: Costs) -> None:
    cluster = Cluster(costs, small(costs), replace(busy_cluster(2), wait=0.2), prefilled=True)
    for moment in (0.3, 0.7, 1.3):
        cluster.simulation.run(moment)
        leasing = sum(host.leasing for host in cluster.hosts)
        assert cluster.made == cluster.ended + cluster.held + cluster.parked + len(cluster.queued) + leasing


def test_as_many_wait_for_a_person_as_begin_to_wait_while_one_waits(costs: Costs) -> None:
    work = Work(4, 0.02, commits=2, parks=0.5, wait=0.5)
    cluster = Cluster(costs, small(costs), work, prefilled=True)
    cluster.simulation.run(5.0)
    cluster.reset()
    seen = []
    for tick in range(400):
        cluster.simulation.run(5.0 + tick * 0.1)
        seen.append(cluster.parked)
    rate = cluster.counts.parked / (cluster.simulation.now - 5.0)
    assert sum(seen) / len(seen) == pytest.approx(rate * 0.5, rel=0.1)


def test_one_seed_gives_one_history_and_another_gives_another(costs: Costs) -> None:
    def end(seed: int) -> float:
        cluster = Cluster(costs, small(costs), Work(3, 0.05, 2, groups=1, total=300, parks=0.3), seed=seed)
        cluster.simulation.run(600.0, lambda: cluster.ended == 300)
        return cluster.simulation.now

    assert end(1) == end(1) != end(2)


def test_more_nodes_never_give_less_until_parents_are_the_limit(costs: Costs) -> None:
    steps = [under_load(costs, small(costs, nodes), busy_cluster(nodes), 1.0, 1.0).steps for nodes in (1, 2, 4, 8)]
    assert all(more >= less * 0.98 for less, more in pairwise(steps))
    assert steps[-1] > 4 * steps[0]


def test_steps_of_one_host_rise_with_its_runs_up_to_what_its_python_can_do(costs: Costs) -> None:
    shape = one_machine(costs)
    rates = [steps_per_second(costs, runs, 40, shape) for runs in (1, 4, 16, 64, 256)]
    assert all(more >= less for less, more in pairwise(rates))
    assert rates[-1] <= 1 / (costs.loop_step + costs.client_append)


def test_a_dearer_part_never_makes_it_faster(costs: Costs) -> None:
    for name in ("db_commit", "db_append", "loop_step", "client_commit", "flush"):
        dearer = replace(costs, **{name: getattr(costs, name) * 4})
        rate = steps_per_second(dearer, 64, 40, one_machine(dearer))
        assert rate <= steps_per_second(costs, 64, 40, one_machine(costs)), name


def test_one_parent_holds_up_more_hosts_longer(costs: Costs) -> None:
    waits = [under_load(costs, small(costs, nodes), one_fan_out(), 1.0, 1.0).row_wait for nodes in (1, 4, 16)]
    assert waits == sorted(waits)
    free = under_load(costs, replace(small(costs, 16), locks=False), one_fan_out(), 1.0, 1.0)
    assert (free.row_wait, used_up(replace(free, hosts=0.5, projector=0.1, db_cpu=0.95))) == (
        0.0,
        ["database CPU (95%)"],
    )


def predicted(costs: Costs, row: dict[str, Any]) -> float:
    """What the model says where a real figure was measured: two cores with everything on them, and perhaps others."""
    costs = stretched(costs, 1 / (1 - (row["others"] or 0.0)))
    match row["kind"]:
        case "steps_per_second":
            return steps_per_second(costs, row["runs"], row["steps"], one_machine(costs))
        case "batch_seconds":
            return batch_seconds(costs, row["rows"], 0.5, one_machine(costs, row["nodes"], capacity=row["capacity"]))
        case _:
            return raw_commits(costs, row["writers"], row["rows"], row["settles"])


def stretched(costs: Costs, factor: float) -> Costs:
    """All costs in CPU seconds times a factor."""
    cpu = [row["name"] for row in json.loads(FILE.read_text("utf-8")) if row["unit"] == "CPU s"]
    return replace(costs, **{name: getattr(costs, name) * factor for name in cpu})


COUNTED = [row for row in RECORDED if (row["others"] or 0.0) <= DISTURBED]


@pytest.mark.parametrize(
    "row",
    COUNTED,
    ids=lambda row: "-".join(str(value) for name, value in row.items() if name not in {"value", "unit", "others"}),
)
def test_the_model_is_near_what_was_measured(costs: Costs, row: dict[str, Any]) -> None:
    ratio = predicted(costs, row) / row["value"]
    allowed = TOLERANCE[row["kind"]]
    assert 1 / (1 + allowed) <= ratio <= 1 + allowed, f"the model says {ratio:.2f} times what was measured"


def test_figures_of_the_engine_were_measured_in_some_calm() -> None:
    assert {row["kind"] for row in COUNTED} >= {"batch_seconds", "steps_per_second"}


def test_every_cost_says_its_unit_and_where_it_is_from() -> None:
    rows = json.loads(FILE.read_text("utf-8"))
    assert from_rows(rows) == load()
    with pytest.raises(BadCosts, match="flush"):
        from_rows([row for row in rows if row["name"] != "flush"])
    with pytest.raises(BadCosts, match="where it is from"):
        from_rows([{**row, "from": ""} for row in rows])
    with pytest.raises(BadCosts, match="no positive number"):
        from_rows([{**row, "value": 0} for row in rows])
    with pytest.raises(BadCosts, match="does not know"):
        from_rows([*rows, {"name": "magic", "value": 1, "unit": "s", "from": "nowhere"}])


def test_measured_costs_take_the_place_of_old_ones() -> None:
    assert merged([{"name": "a"}, {"name": "b", "value": 1}], [{"name": "b", "value": 2}, {"name": "c"}]) == [
        {"name": "a"},
        {"name": "b", "value": 2},
        {"name": "c"},
    ]


def test_a_line_is_found_in_points() -> None:
    assert line([(size, 3.0 + 2.0 * size) for size in (1, 10, 100)]) == (pytest.approx(3.0), pytest.approx(2.0))


def test_a_table_goes_between_its_marks_and_nowhere_else() -> None:
    page = "before\n<!-- t -->\nold\n<!-- end of t -->\nafter"
    text = table(["a", "b"], [["1", "2"]])
    assert written(page, "t", text) == f"before\n<!-- t -->\n{text}\n<!-- end of t -->\nafter"
    with pytest.raises(ValueError, match="no place for the table 'other'"):
        written(page, "other", text)
