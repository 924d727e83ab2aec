"""The database of the model: cores, log, the rows of fan-outs; and the journal's reader, the projector.

Knows transactions as CPU, bytes and rows to lock, not what is in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.scale.costs import Costs
from benchmarks.scale.events import Both, Log, Pool, Process, Simulation
from benchmarks.scale.shapes import Shape

GATHER = 0.5
"""Seconds the projector waits when it found less than a batch, as in host/projecting.py."""
FRAMES = 1_000


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the server has to do: `cpu` seconds, `size` bytes of log, `rows` locked for `row_cpu` seconds each."""

    cpu: float
    size: float
    rows: Sequence[int] = ()
    row_cpu: float = 0.0


class Database:
    """One server."""

    def __init__(self, simulation: Simulation, costs: Costs, shape: Shape, rows: int) -> None:
        self.cores = Pool(simulation, shape.db_cores)
        self.log = Log(simulation, shape.flush, costs.log_bandwidth)
        self.rows = [Pool(simulation, 1) for _ in range(rows)]
        self._simulation = simulation
        self._shape = shape

    def transact(self, wanted: Transaction, client: Process | None = None) -> Process:
        """One pipelined transaction: the client's sending and the server's work overlap; locks last until the commit."""
        yield self._shape.round_trip / 2
        if client is None:
            yield from self._work(wanted)
        else:
            yield Both(self._simulation, client, self._work(wanted))
        self.log.write(wanted.size)
        yield self.log
        for row in wanted.rows:
            self.rows[row].give()
        yield self._shape.round_trip / 2

    def _work(self, wanted: Transaction) -> Process:
        """The locks come first, as what ends may stand anywhere among the members; or last, where the shape says so."""
        if self._shape.settle_last:
            yield from self.cores.use(wanted.cpu)
        for row in wanted.rows:
            yield self.rows[row]
            yield from self.cores.use(wanted.row_cpu)
        if not self._shape.settle_last:
            yield from self.cores.use(wanted.cpu)


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
