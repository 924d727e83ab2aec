"""The runtime under fire: three nodes, its actors, its disk; how to find a process, and when all is well again.

Owns no fault and no load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from tests.chaos.look import HostSeen, Look
from tests.chaos.nodes import Nodes
from tests.chaos.stores import UNREADABLE
from tests.chaos.waves import Waves
from tests.chaos.world import LEASE, World

PATIENCE = 90.0
"""Seconds after which a runtime that is not well again is a finding."""
_POLL = 0.2


@dataclass(slots=True)
class Scene:
    """What faults act upon. `said` are findings of the faults themselves, `lost` hosts whose runs must move on."""

    world: World
    nodes: Nodes
    waves: Waves
    look: Look
    chance: random.Random
    said: list[str] = field(default_factory=list)
    lost: list[HostSeen] = field(default_factory=list)
    struck: float = field(default_factory=time.monotonic)

    def strike(self) -> None:
        """The worst of a fault happens now: recovery counts from here."""
        self.struck = time.monotonic()

    async def host(self, kind: str) -> HostSeen:
        """A living host of a kind, as soon as there is one."""
        found = await until(lambda: self.look.hosts(kind), PATIENCE)
        if not found:
            raise TimeoutError(f"no {kind} host for {PATIENCE:.0f} s")
        return self.chance.choice(self.look.hosts(kind) or found)

    def supervisor(self) -> int | None:
        """The process of the supervisor, while it lives."""
        return next((process.pid for process in self.nodes.actors("Keeper")), None)

    def traces(self) -> list[psutil.Process]:
        """The process of the TraceActor, if it lives."""
        return self.nodes.actors("TraceKeeper")

    async def up(self) -> None:
        """Start the runtime on the nodes."""
        for attempt in (1, 2):
            code, out, err = await self.waves.call("up", "--json")
            if code == 0:
                return
            if attempt == 2:
                raise RuntimeError(f"`retinue up` ended with {code}: {out} {err[-2000:]}")

    async def well_again(self) -> float | None:
        """Wait until every actor lives and no run of a lost host is left behind; seconds since the strike, or None."""
        if not await until(self._is_well, PATIENCE):
            return None
        self.lost.clear()
        return time.monotonic() - self.struck

    def how(self) -> str:
        """How things stand, for a message."""
        hosts = [(host.kind, host.pid) for host in self.look.hosts()]
        left = [self.look.left_behind(host) for host in self.lost]
        return f"hosts {hosts}, supervisor {self.supervisor()}, traces {self.traces()}, left behind {left}"

    def _is_well(self) -> bool:
        actors = self.world.settings.actors
        kinds = [host.kind for host in self.look.hosts()]
        return (
            kinds.count("run") >= actors.runs
            and kinds.count("worker") >= actors.workers
            and self.supervisor() is not None
            and bool(self.traces())
            and self.look.silence() < LEASE
            and not any(self.look.left_behind(host) for host in self.lost)
        )


async def until(is_so: Callable[[], object], seconds: float) -> object:
    """Ask until the answer is something; what it was in the end. A store that cannot be read is no answer."""
    end = time.monotonic() + seconds
    while True:
        answer: object = None
        with contextlib.suppress(*UNREADABLE):
            answer = is_so()
        if answer or time.monotonic() > end:
            return answer
        await asyncio.sleep(_POLL)


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False when there is no such process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
