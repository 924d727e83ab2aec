"""A cluster of the model: hosts around one database, the queue between them, and the parents that fill it.

Owns what hosts share and the whole life of a run: made, queued, held, parked, ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from benchmarks.scale.costs import Costs
from benchmarks.scale.database import Database, Frames, Transaction
from benchmarks.scale.events import Bell, Pool, Process, Simulation
from benchmarks.scale.hosts import Host
from benchmarks.scale.shapes import Counts, Run, Shape, Work

CHUNK = 1_000
"""Children made in one transaction."""


class Cluster:
    """Everything of one simulation. `prefilled`: it begins in the middle, with every host full."""

    def __init__(self, costs: Costs, shape: Shape, work: Work, seed: int = 1, prefilled: bool = False) -> None:
        self.costs, self.shape, self.work = costs, shape, work
        self.simulation = Simulation(seed)
        self.database = Database(self.simulation, costs, shape, work.groups)
        self.frames = Frames(self.simulation)
        self.counts = Counts()
        self.queued: deque[Run] = deque()
        self._hungry: dict[Host, None] = {}
        self.made = self.ended = self.parked = 0
        self.hosts: list[Host] = []
        self.feeders: list[Feeder] = []
        for cores in self._cores_of_nodes():
            self.hosts += [Host(self, cores) for _ in range(shape.processes)]
        if prefilled:
            self._fill()
        self.feeders += [Feeder(self, group) for group in range(work.groups)]
        if not work.groups and work.total is not None:
            self.queue([self.new_run(0) for _ in range(work.total)])
        self.simulation.start(self.frames.project(costs.projector_frame / shape.projectors))

    @property
    def held(self) -> int:
        """Runs in a process."""
        return sum(host.active for host in self.hosts)

    def new_run(self, group: int) -> Run:
        """A run with all its commits before it."""
        self.made += 1
        half = self.work.steps // 2 * self.work.commits
        parks = self.simulation.random.random() < self.work.parks
        return Run(self.made, group, self.work.steps * self.work.commits, half if parks else -1)

    def queue(self, runs: Sequence[Run]) -> None:
        """Runs wait for a host; as many hosts look as they can fill."""
        self.queued.extend(runs)
        found = 0
        while found < len(runs) and self._hungry:
            host = next(iter(self._hungry))
            del self._hungry[host]
            found += max(0, host.room)
            host.look()

    def note_hungry(self, host: Host) -> None:
        """A host has nothing to write and would lease."""
        self._hungry[host] = None

    def rows_of(self, ending: Sequence[Run]) -> list[int]:
        """The parents' rows that ending runs lock, in an order that all keep."""
        return sorted({run.group for run in ending}) if self.feeders and self.shape.locks else []

    def end(self, run: Run) -> None:
        """A run has ended; its parent hears of it, or another one takes its place."""
        self.counts.ended += 1
        self.ended += 1
        if self.feeders:
            self.feeders[run.group].child_ended()
        elif self.work.total is None:
            self.queue([self.new_run(run.group)])

    def park(self, run: Run) -> None:
        """A run waits and is held by nobody until somebody answers."""
        self.parked += 1
        self.counts.parked += 1
        run.parks_at = -1
        wait = self.simulation.random.expovariate(1 / self.work.wait)
        self.simulation.call(wait, self._answer(run, self.simulation.now))

    def reset(self) -> None:
        """Count from now on."""
        self.counts = Counts()
        nodes = {id(host.cores): host.cores for host in self.hosts}
        for pool in (self.database.cores, *self.database.rows, *nodes.values(), *(host.python for host in self.hosts)):
            pool.reset()
        self.database.log.reset()
        self.frames.busy = 0.0

    def _cores_of_nodes(self) -> list[Pool]:
        if self.shape.shared:
            return [self.database.cores] * self.shape.nodes
        return [Pool(self.simulation, self.shape.node_cores) for _ in range(self.shape.nodes)]

    def _fill(self) -> None:
        """Every place has a run somewhere in its life."""
        random, work = self.simulation.random, self.work
        for host in self.hosts:
            for _ in range(self.shape.capacity):
                run = self.new_run(random.randrange(max(1, work.groups)))
                run.left -= random.randrange(run.left)
                host.begin(run, random.random() * work.latency)

    def _answer(self, run: Run, since: float) -> Process:
        """Somebody's answer: a transaction of a client's that queues the run."""
        self.counts.parked_seconds += self.simulation.now - since
        wanted = Transaction(self.costs.db_commit + self.costs.db_append, size=self.costs.log_bytes)
        yield from self.database.transact(wanted)
        self.parked -= 1
        self.queue([run])
        self.simulation.random.choice(self.hosts).tell()


class Feeder:
    """The parent of a fan-out: it keeps a window of children, made in chunks by the process that has the parent."""

    def __init__(self, cluster: Cluster, group: int) -> None:
        self._cluster, self._group = cluster, group
        self._host = cluster.hosts[group % len(cluster.hosts)]
        self._bell = Bell(cluster.simulation)
        work, places = cluster.work, cluster.shape.capacity * len(cluster.hosts)
        self._left = None if work.total is None else (work.total + group) // work.groups
        self._window = 2 * places // work.groups
        self._open = 0
        if cluster.made:
            self._open = self._window
            cluster.queue([cluster.new_run(group) for _ in range(self._window - places // work.groups)])
        cluster.simulation.start(self._feed())

    def child_ended(self) -> None:
        """The parent is woken when a quarter of the window is gone."""
        self._open -= 1
        if self._open <= self._window * 3 // 4:
            self._bell.ring()

    def _feed(self) -> Process:
        cluster, costs, shape = self._cluster, self._cluster.costs, self._cluster.shape
        while self._left is None or self._left > 0:
            count = min(CHUNK, self._window - self._open, CHUNK if self._left is None else self._left)
            if count <= 0:
                yield self._bell
                continue
            self._open += count
            yield from self._host.spend(count * costs.loop_step)
            server = costs.db_commit + count * costs.db_spawn
            client = costs.client_commit + count * costs.client_spawn
            row = [self._group] if shape.locks else []
            wanted = Transaction(server, client, count * 2 * costs.log_bytes, shape.lease_trips, row)
            yield from cluster.database.transact(wanted, self._host)
            cluster.frames.add(count)
            cluster.queue([cluster.new_run(self._group) for _ in range(count)])
            self._host.tell()
            if self._left is not None:
                self._left -= count
