"""A small discrete-event kernel: a clock, processes, pools of servers, bells and a log with group commit.

A process is a generator. It yields seconds to sleep, or a thing to wait for: a `Pool` (a place in it), a `Bell` (its
ringing), a `Log` (its next flush), an `All`. Everything is in order of time and, at one time, of request, so one seed
gives one history. Knows nothing of what is simulated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random
from types import GeneratorType
from typing import Protocol

SLICE = 0.005
"""Seconds of CPU at a time: who needs more lets others in between, as a scheduler does."""


class Awaited(Protocol):
    """What a process may yield beside seconds."""

    def wait(self, process: Process) -> bool:
        """True: the process may go on at once. Else it is taken on and started again when the time has come."""
        ...


Process = Generator["float | Awaited", None, None]


class Simulation:
    """The clock, what is due, and the one source of chance."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._due: list[tuple[float, int, Process | Callable[[], None]]] = []
        self._asked = 0

    def call(self, delay: float, action: Process | Callable[[], None]) -> None:
        """Call a function, or go on with a process, in `delay` seconds."""
        self._asked += 1
        heappush(self._due, (self.now + delay, self._asked, action))

    def start(self, process: Process) -> None:
        """Begin a process now."""
        self.call(0.0, process)

    def run(self, until: float, enough: Callable[[], bool] | None = None) -> None:
        """Let time pass until `until`, until nothing is due, or until `enough` says so."""
        while self._due and self._due[0][0] <= until and not (enough is not None and enough()):
            self.now, _, action = heappop(self._due)
            if isinstance(action, GeneratorType):
                self._step(action)
            else:
                action()
        if enough is None:
            self.now = until

    def _step(self, process: Process) -> None:
        for wanted in process:
            if isinstance(wanted, float):
                self.call(wanted, process)
                return
            if not wanted.wait(process):
                return


class Pool:
    """`servers` places; who waits is served in order. Yield it to get a place, then `give` it back.

    `busy` counts seconds of busy places and `waited` seconds in the queue, both since the last `reset`.
    """

    def __init__(self, simulation: Simulation, servers: int) -> None:
        self.servers = servers
        self._simulation = simulation
        self._free = servers
        self._queue: deque[tuple[Process, float]] = deque()
        self._changed = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._changed = self._since = self._simulation.now
        self.busy = self.waited = self.queued = 0.0
        self.served = 0

    def wait(self, process: Process) -> bool:
        """See Awaited."""
        self._count()
        if not self._free:
            self._queue.append((process, self._simulation.now))
            return False
        self._free -= 1
        self.served += 1
        return True

    def give(self) -> None:
        """Give a place back; the first in the queue has it at once."""
        self._count()
        if not self._queue:
            self._free += 1
            return
        process, since = self._queue.popleft()
        self.served += 1
        self.waited += self._simulation.now - since
        self._simulation.call(0.0, process)

    def use(self, seconds: float) -> Process:
        """Hold a place for so long, in slices."""
        while seconds > 0:
            turn = min(seconds, SLICE)
            yield self
            yield turn
            self.give()
            seconds -= turn

    @property
    def utilisation(self) -> float:
        """Share of all places that was busy since the last reset."""
        self._count()
        passed = self._simulation.now - self._since
        return self.busy / (self.servers * passed) if passed else 0.0

    @property
    def mean_queue(self) -> float:
        """How many waited, on average over time, since the last reset."""
        self._count()
        passed = self._simulation.now - self._since
        return self.queued / passed if passed else 0.0

    @property
    def mean_wait(self) -> float:
        """Seconds that one waited on average since the last reset."""
        return self.waited / self.served if self.served else 0.0

    def _count(self) -> None:
        passed = self._simulation.now - self._changed
        if not passed:
            return
        self.busy += passed * (self.servers - self._free)
        self.queued += passed * len(self._queue)
        self._changed = self._simulation.now


class Bell:
    """Wakes who waits for it; a ringing that nobody waits for is kept, once."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._waiting: deque[Process] = deque()
        self._rung = False

    def wait(self, process: Process) -> bool:
        """See Awaited."""
        if self._rung:
            self._rung = False
            return True
        self._waiting.append(process)
        return False

    def ring(self) -> None:
        """Wake the first who waits."""
        if self._waiting:
            self._simulation.call(0.0, self._waiting.popleft())
        else:
            self._rung = True


class Log:
    """A write-ahead log: one flush at a time takes all that were waiting when it began (group commit)."""

    def __init__(self, simulation: Simulation, flush: float, bandwidth: float) -> None:
        self._simulation = simulation
        self._flush_seconds = flush
        self._bandwidth = bandwidth
        self._waiting: list[Process] = []
        self._bytes = 0.0
        self._flushing = False
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._since = self._simulation.now
        self.busy = self.written = 0.0
        self.flushes = self.commits = 0

    def write(self, size: float) -> None:
        """Put bytes into the log; they are flushed with whoever waits next."""
        self._bytes += size

    def wait(self, process: Process) -> bool:
        """See Awaited."""
        self._waiting.append(process)
        if not self._flushing:
            self._flush()
        return False

    @property
    def utilisation(self) -> float:
        """Share of the time since the last reset in which it was being flushed."""
        passed = self._simulation.now - self._since
        return min(1.0, self.busy / passed) if passed else 0.0

    def _flush(self) -> None:
        self._flushing = True
        members, size = self._waiting, self._bytes
        self._waiting, self._bytes = [], 0.0
        seconds = self._flush_seconds + size / self._bandwidth
        self.busy += seconds
        self.written += size
        self.flushes += 1
        self.commits += len(members)
        self._simulation.call(seconds, lambda: self._flushed(members))

    def _flushed(self, members: list[Process]) -> None:
        for process in members:
            self._simulation.call(0.0, process)
        self._flushing = False
        if self._waiting:
            self._flush()


class All:
    """Processes side by side; yield it to wait until all have ended."""

    def __init__(self, simulation: Simulation, *processes: Process) -> None:
        self._bell = Bell(simulation)
        self._open = len(processes)
        for process in processes:
            simulation.start(self._run(process))

    def wait(self, process: Process) -> bool:
        """See Awaited."""
        return self._bell.wait(process)

    def _run(self, process: Process) -> Process:
        yield from process
        self._open -= 1
        if not self._open:
            self._bell.ring()
