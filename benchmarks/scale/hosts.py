"""A host process of the model: its loop, its writers, its leases and its duty of tending.

The loop spends CPU on each commit of a run; a writer gathers what waits into one transaction and has one in flight.
Knows its cluster as what is shared: the queue, the database, the counts.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from benchmarks.scale.database import Transaction
from benchmarks.scale.events import Bell, Pool, Process
from benchmarks.scale.shapes import Run

if TYPE_CHECKING:
    from benchmarks.scale.cluster import Cluster

MOST = 2_000
"""Operations of one transaction, as in store/writer.py."""
TEND = 1.0
"""Seconds between two looks at the other hosts, as in host/hosting.py."""


class Host:
    """One process. `python` is what its threads share: one of them at a time."""

    def __init__(self, cluster: Cluster, cores: Pool) -> None:
        self.cores = cores
        self.python = Pool(cluster.simulation, 1)
        self.active = 0
        self._cluster = cluster
        self._ready: list[Run] = []
        self._outbox: deque[Run] = deque()
        self._rung, self._posted = Bell(cluster.simulation), Bell(cluster.simulation)
        self.leasing = 0
        self._telling = Bell(cluster.simulation)
        cluster.simulation.start(self._loop())
        cluster.simulation.start(self._tell())
        cluster.simulation.call(cluster.simulation.random.random() * cluster.shape.look, self._look())
        for _ in range(cluster.shape.lanes):
            cluster.simulation.start(self._writer())
        cluster.simulation.call(cluster.simulation.random.random() * TEND, self._tend())

    @property
    def room(self) -> int:
        """How many more runs it would take."""
        return self._cluster.shape.capacity - self.active - self.leasing

    def begin(self, run: Run, delay: float = 0.0) -> None:
        """A run goes on here: its next commit is ready after `delay` and, where a step is one commit, the model."""
        work = self._cluster.work
        self.active += 1
        self._after(delay + (work.latency if work.commits == 1 and run.left else 0.0), run)

    def look(self) -> None:
        """Lease with the next transaction, if something waits and there is room."""
        self._posted.ring()

    def spend(self, seconds: float) -> Process:
        """CPU of this process, on a core of its node."""
        yield self.python
        yield from self.cores.use(seconds)
        self.python.give()

    def _loop(self) -> Process:
        costs = self._cluster.costs
        while True:
            if not self._ready:
                yield self._rung
                continue
            runs, self._ready = self._ready, []
            yield from self.spend(costs.loop_round + costs.loop_step * len(runs))
            self._outbox.extend(runs)
            self._posted.ring()

    def _writer(self) -> Process:
        """Commit what waits, then lease what there is room for: two transactions, as in store/postgres/pen.py."""
        cluster = self._cluster
        while True:
            runs = [self._outbox.popleft() for _ in range(min(MOST, len(self._outbox)))]
            if runs:
                yield from cluster.database.transact(self._appends(runs), self)
                cluster.counts.transactions += 1
                cluster.frames.add(len(runs))
                for run in runs:
                    self._committed(run)
            leased = [cluster.queued.popleft() for _ in range(max(0, min(self.room, len(cluster.queued))))]
            if leased:
                self.leasing += len(leased)
                yield from cluster.database.transact(self._lease(len(leased)), self)
                self.leasing -= len(leased)
                self._tell_of_little()
                for run in leased:
                    self.begin(run)
            if not runs and not leased:
                cluster.note_hungry(self)
                yield self._posted

    def _appends(self, runs: list[Run]) -> Transaction:
        """The transaction of some commits; where runs end, it locks their parents and settles with them."""
        cluster, costs, shape = self._cluster, self._cluster.costs, self._cluster.shape
        ending = [run for run in runs if not run.left]
        server = costs.db_commit + len(runs) * costs.db_append + len(ending) * costs.db_settle
        client = costs.client_commit + len(runs) * costs.client_append
        trips = shape.settle_trips if ending else 1
        return Transaction(server, client, len(runs) * costs.log_bytes, trips, cluster.rows_of(ending))

    def _lease(self, count: int) -> Transaction:
        costs = self._cluster.costs
        server = costs.db_lease + count * costs.db_lease_run
        client = costs.client_commit + count * costs.client_append
        return Transaction(server, client, count * costs.log_bytes / 2, self._cluster.shape.lease_trips)

    def tell(self) -> None:
        """This process has committed what others may wait for."""
        self._telling.ring()

    def _tell_of_little(self) -> None:
        """A lease and a round of tending queue nothing, yet they are told of."""
        if self._cluster.shape.tells_all:
            self.tell()

    def _tell(self) -> Process:
        """One hint for all that was told in a tick, as in store/postgres/hints.py."""
        cluster = self._cluster
        while True:
            yield self._telling
            yield from cluster.database.notify(len(cluster.hosts))
            yield cluster.shape.tick

    def _look(self) -> Process:
        """After a hint: is anything queued, and is there news? Two small reads."""
        cluster, costs = self._cluster, self._cluster.costs
        seen = -1
        while True:
            if seen != cluster.database.hints:
                seen = cluster.database.hints
                yield from self.spend(2 * costs.client_look)
                yield 2 * cluster.shape.round_trip
                yield from cluster.database.cores.use(2 * costs.db_look)
            yield cluster.shape.look

    def _committed(self, run: Run) -> None:
        """A commit is on disk: the run ends, parks, or goes on with its next one."""
        cluster, work = self._cluster, self._cluster.work
        cluster.counts.commits += 1
        if not run.left:
            self.active -= 1
            cluster.end(run)
            return
        run.left -= 1
        ended_step = run.left % work.commits == 0
        cluster.counts.steps += ended_step
        if run.left == run.parks_at:
            self.active -= 1
            cluster.park(run)
        else:
            calls = bool(run.left) and ended_step if work.commits == 1 else not ended_step
            self._after(work.latency if calls else 0.0, run)

    def _after(self, delay: float, run: Run) -> None:
        if delay:
            self._cluster.simulation.call(delay, lambda: self._go_on(run))
        else:
            self._go_on(run)

    def _go_on(self, run: Run) -> None:
        self._ready.append(run)
        self._rung.ring()

    def _tend(self) -> Process:
        """Show that it lives, queue what is due, look at the others."""
        cluster, costs = self._cluster, self._cluster.costs
        while True:
            others = len(cluster.hosts) if cluster.shape.judges else 0
            server = costs.db_tend + others * costs.db_host_row
            client = costs.client_tend + others * costs.loop_host_row
            yield from cluster.database.transact(Transaction(server, client, costs.log_bytes), self)
            self._tell_of_little()
            yield TEND
