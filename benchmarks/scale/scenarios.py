"""What is asked of the model: one function for each kind of figure, real or predicted. Seconds, rates, shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.scale.cluster import Cluster
from benchmarks.scale.costs import Costs
from benchmarks.scale.database import Database, Transaction
from benchmarks.scale.events import Pool, Process, Simulation
from benchmarks.scale.shapes import Shape, Work

FOR_EVER = 1e9


def one_machine(costs: Costs, nodes: int = 1, processes: int = 1, cores: int = 2, capacity: int = 256) -> Shape:
    """The machine where real figures come from: everything on its cores, its disk, its loopback."""
    return Shape(
        nodes=nodes,
        round_trip=costs.loopback,
        flush=costs.flush,
        processes=processes,
        capacity=capacity,
        db_cores=cores,
        shared=True,
    )


class Bare:
    """A client that is nothing but a client."""

    def __init__(self, cores: Pool) -> None:
        self._cores = cores

    def spend(self, seconds: float) -> Process:
        """See Client."""
        return self._cores.use(seconds)


def raw_commits(costs: Costs, writers: int, rows: int, settles: bool, cores: int = 2) -> float:
    """Transactions per second of bare writers, each with one of `rows` appends in flight; see probe.py."""
    simulation = Simulation(1)
    shape = one_machine(costs, cores=cores)
    database = Database(simulation, costs, shape, 1)
    done = 0

    def write() -> Process:
        nonlocal done
        wanted = Transaction(
            costs.db_commit + rows * costs.db_append,
            costs.client_commit + rows * costs.client_append,
            rows * costs.log_bytes,
            rows=(0,) if settles else (),
        )
        while True:
            yield from database.transact(wanted, Bare(database.cores))
            done += 1

    for _ in range(writers):
        simulation.start(write())
    simulation.run(1.0)
    warm = done
    simulation.run(5.0)
    return (done - warm) / 4.0


def steps_per_second(costs: Costs, runs: int, steps: int, shape: Shape) -> float:
    """Durable no-op steps per second of `runs` concurrent runs, from the first to the end of the last."""
    cluster = Cluster(costs, replace(shape, capacity=runs), Work(steps, 0.0, total=runs))
    cluster.simulation.run(FOR_EVER, lambda: cluster.ended == runs)
    return runs * steps / cluster.simulation.now


def batch_seconds(costs: Costs, rows: int, latency: float, shape: Shape, steps: int = 1, commits: int = 1) -> float:
    """Seconds of one job of `rows` rows whose model takes `latency` a step."""
    cluster = Cluster(costs, shape, Work(steps, latency, commits, groups=1, total=rows))
    cluster.simulation.run(FOR_EVER, lambda: cluster.ended == rows)
    return cluster.simulation.now


@dataclass(frozen=True)
class Load:
    """What a cluster under load shows: rates per second, shares 0 to 1, seconds.

    `offered`: steps a second if nothing but the model took time; `hosts`: the busiest process; `row_share`: the
    busiest parent's row; `behind`: seconds by which the projector falls back in one.
    """

    nodes: int
    processes: int
    offered: float
    runs: float
    steps: float
    commits: float
    batch: float
    held: int
    parks: float
    db_cpu: float
    log: float
    hosts: float
    row_share: float
    row_wait: float
    projector: float
    behind: float


def in_cluster(costs: Costs, nodes: int) -> Shape:
    """Nodes of two cores and two processes around a server of 16 cores, in one zone, on a network disk."""
    return Shape(nodes, costs.network, costs.disk_flush)


def under_load(costs: Costs, shape: Shape, work: Work, warm: float = 2.0, seconds: float = 2.0) -> Load:
    """A cluster that begins full and is filled up again, counted for `seconds` after `warm`."""
    cluster = Cluster(costs, shape, work, prefilled=True)
    simulation, database, frames = cluster.simulation, cluster.database, cluster.frames
    simulation.run(warm)
    cluster.reset()
    before = frames.lag
    simulation.run(warm + seconds)
    counts, rows = cluster.counts, database.rows
    served = sum(row.served for row in rows)
    return Load(
        nodes=shape.nodes,
        processes=len(cluster.hosts),
        offered=len(cluster.hosts) * shape.capacity / work.latency,
        runs=counts.ended / seconds,
        steps=counts.steps / seconds,
        commits=counts.commits / seconds,
        batch=counts.commits / max(1, counts.transactions),
        held=cluster.held,
        parks=counts.parked / seconds,
        db_cpu=database.cores.utilisation,
        log=database.log.utilisation,
        hosts=max(host.python.utilisation for host in cluster.hosts),
        row_share=max((row.utilisation for row in rows), default=0.0),
        row_wait=sum(row.waited for row in rows) / served if served else 0.0,
        projector=min(1.0, frames.busy / seconds),
        behind=max(0.0, frames.lag - before) / seconds,
    )
