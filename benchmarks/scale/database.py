"""The database of the model: cores, log, the rows of fan-outs; and the journal's reader, the projector.

Knows transactions as CPU, bytes and rows to lock, not what is in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.scale.costs import Costs
from benchmarks.scale.events import All, Log, Pool, Process, Simulation
from benchmarks.scale.shapes import Shape

GATHER = 0.5
"""Seconds the projector waits when it found less than a batch, as in host/projecting.py."""
FRAMES = 1_000


@dataclass(frozen=True, slots=True)
class Transaction:
    """What has to be done: CPU seconds of `client` and `server`, bytes of log, round trips, rows to lock for it all."""

    server: float
    client: float = 0.0
    size: float = 0.0
    trips: int = 1
    rows: Sequence[int] = ()


class Client(Protocol):
    """Who sends a transaction."""

    def spend(self, seconds: float) -> Process:
        """Use CPU of the client's."""
        ...


class Database:
    """One server."""

    def __init__(self, simulation: Simulation, costs: Costs, shape: Shape, rows: int) -> None:
        self.cores = Pool(simulation, shape.db_cores)
        self.log = Log(simulation, shape.flush, costs.log_bandwidth)
        self.rows = [Pool(simulation, 1) for _ in range(rows)]
        self.hints = 0
        self._waking = False
        self._again = False
        self._simulation = simulation
        self._costs = costs
        self._shape = shape

    def notify(self, listeners: int) -> Process:
        """Tell all sessions that listen. One that has not come round to the hint before hears of both at once."""
        yield self._shape.round_trip
        yield from self.cores.use(self._costs.db_notify)
        if self._waking:
            self._again = True
        else:
            self._simulation.start(self._wake(listeners))

    def _wake(self, listeners: int) -> Process:
        """Sessions that listen come round to it on all cores, and again if there was more meanwhile."""
        self._waking = self._again = True
        width = min(listeners, self.cores.servers)
        part = listeners * self._costs.db_listener / width
        while self._again:
            self._again = False
            yield All(self._simulation, *(self.cores.use(part) for _ in range(width)))
            self.hints += 1
        self._waking = False

    def transact(self, wanted: Transaction, client: Client | None = None) -> Process:
        """One transaction. Its columns are put together before it goes out; its locks last until the commit."""
        if client is not None:
            yield from client.spend(wanted.client)
        yield self._shape.round_trip / 2
        if not self._shape.late:
            yield from self._lock(wanted)
        yield from self.cores.use(wanted.server)
        for _ in range(wanted.trips - 1):
            yield self._shape.round_trip
            if client is not None:
                yield from client.spend(self._costs.client_trip)
            yield from self.cores.use(self._costs.db_trip)
        if self._shape.late:
            yield from self._lock(wanted)
        self.log.write(wanted.size)
        yield self.log
        for row in wanted.rows:
            self.rows[row].give()
        yield self._shape.round_trip / 2

    def _lock(self, wanted: Transaction) -> Process:
        for row in wanted.rows:
            yield self.rows[row]


@dataclass
class Frames:
    """The journal as the projector sees it: frames written and projected, and since when the oldest waits."""

    simulation: Simulation
    written: int = 0
    projected: int = 0
    busy: float = 0.0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, count: int) -> None:
        """A transaction has put frames into the journal."""
        if count:
            self.written += count
            self._marks.append((self.simulation.now, self.written))

    def project(self, seconds: float) -> Process:
        """For ever: batches of so many seconds a frame, and a pause when less than a batch was found."""
        while True:
            count = min(FRAMES, self.written - self.projected)
            if count:
                yield count * seconds
                self.busy += count * seconds
                self.projected += count
                while self._marks and self._marks[0][1] <= self.projected:
                    self._marks.popleft()
            if count < FRAMES:
                yield GATHER

    @property
    def lag(self) -> float:
        """Age in seconds of the oldest frame that has not been projected."""
        return self.simulation.now - self._marks[0][0] if self._marks else 0.0
