"""A host process of the model: its loop, its writers, its leases and its duty of tending.

The loop spends CPU on each commit of a run; a writer gathers what waits into one transaction and has one in flight.
Knows its cluster as what is shared: the queue, the database, the counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
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


@dataclass(slots=True)
class Batch:
    """The members of one transaction: commits of runs, runs that it leases, and CPU seconds to send it."""

    runs: list[Run]
    leased: list[Run]
    work: Transaction
    client: float


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
        self._leasing = 0
        self._hinted = -1.0
        cluster.simulation.start(self._loop())
        for _ in range(cluster.shape.lanes):
            cluster.simulation.start(self._writer())
        cluster.simulation.call(cluster.simulation.random.random() * TEND, self._tend())

    @property
    def room(self) -> int:
        """How many more runs it would take."""
        return self._cluster.shape.capacity - self.active - self._leasing

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
        cost = self._cluster.costs.loop_step
        while True:
            if not self._ready:
                yield self._rung
                continue
            runs, self._ready = self._ready, []
            yield from self.spend(cost * len(runs))
            self._outbox.extend(runs)
            self._posted.ring()

    def _writer(self) -> Process:
        cluster = self._cluster
        while True:
            batch = self._gather()
            if batch is None:
                cluster.note_hungry(self)
                yield self._posted
                continue
            yield from cluster.database.transact(batch.work, self.spend(batch.client))
            cluster.counts.transactions += 1
            cluster.frames.add(len(batch.runs))
            self._leasing -= len(batch.leased)
            for run in batch.runs:
                self._committed(run)
            for run in batch.leased:
                self.begin(run)

    def _gather(self) -> Batch | None:
        """What waits, with what it costs; None when nothing does."""
        cluster, costs, shape = self._cluster, self._cluster.costs, self._cluster.shape
        runs = [self._outbox.popleft() for _ in range(min(MOST, len(self._outbox)))]
        leased = [cluster.queued.popleft() for _ in range(max(0, min(self.room, len(cluster.queued))))]
        if not runs and not leased:
            return None
        self._leasing += len(leased)
        ending = [run for run in runs if not run.left]
        members = len(runs) + len(leased)
        cpu = costs.db_commit + len(runs) * costs.db_append / shape.cheaper
        if leased:
            cpu += costs.db_lease + len(leased) * costs.db_lease_run
        if ending and self._tells():
            cpu += costs.db_notify + costs.db_listener * len(cluster.hosts)
        rows = cluster.rows_of(ending)
        settle = len(ending) * costs.db_settle
        work = Transaction(
            cpu + (0.0 if rows else settle), len(runs) * costs.log_bytes, rows, settle / len(rows) if rows else 0.0
        )
        return Batch(runs, leased, work, costs.client_commit + members * costs.client_append / shape.cheaper)

    def _tells(self) -> bool:
        """Whether this transaction is followed by a hint."""
        now, tick = self._cluster.simulation.now, self._cluster.shape.tick
        if tick and now < self._hinted + tick:
            return False
        self._hinted = now
        return True

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
            yield from self.spend(costs.client_commit + others * costs.loop_host_row)
            cpu = 2 * costs.db_commit + others * costs.db_host_row
            yield from cluster.database.transact(Transaction(cpu, costs.log_bytes))
            yield TEND
