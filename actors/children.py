"""The children of a supervisor as data, and how one is made, asked, told to go and ended as a Ray actor."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from retinue.actors.hosts import RunHost
from retinue.actors.pools import RUNS, WORKERS, Pool
from retinue.actors.tracing import TraceKeeper

_LOG = logging.getLogger("retinue.actors")
TRACES = "traces"
_STEMS = {RUNS: "run", WORKERS: "worker"}
_INTENSITY, _PERIOD = 10, 60.0
_END_TIMEOUT = 40


@dataclass(frozen=True, slots=True)
class Child:
    """A child: its name, its class and what it is made with; of a host also its pool and its number there."""

    name: str
    factory: type[Any]
    arguments: tuple[Any, ...]
    pool: str = ""
    number: int = 0


@dataclass(slots=True)
class Deaths:
    """How often something has died of late: more than ten times a minute are spread out."""

    times: deque[float] = field(default_factory=deque)
    error: str = ""

    def note(self, error: Exception) -> None:
        """One more, and of what."""
        self.times.append(time.monotonic())
        self.error = [line.strip() for line in str(error).splitlines() if line.strip()][-1]

    @property
    def many(self) -> bool:
        """Whether it is time to wait."""
        while self.times and time.monotonic() - self.times[0] > _PERIOD:
            self.times.popleft()
        return len(self.times) >= _INTENSITY


@dataclass(slots=True)
class Kept:
    """A child with its handle, what it said last, and whether it has been told to leave.

    `turn` counts its starts, so that the next one is elsewhere; `made_at` and `asked_at` are monotonic.
    """

    child: Child
    handle: ActorHandle[Any]
    turn: int
    made_at: float = field(default_factory=time.monotonic)
    asked: Any = None
    asked_at: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)
    leaving: bool = False
    deaths: Deaths = field(default_factory=Deaths)

    def ask(self) -> bool:
        """Ask whether it lives, or look whether it has answered. True when it has: `seen` is what it said.

        RayError when it is gone.
        """
        if self.asked is None:
            self.asked, self.asked_at = self.handle.ping.remote(), time.monotonic()
        done, _ = ray.wait([self.asked], timeout=0)
        if not done:
            return False
        asked, self.asked = self.asked, None
        self.seen = ray.get(asked)
        return True


def host_child(settings_json: str, pool: Pool, number: int) -> Child:
    """A host of a pool: RunActor for top-level runs, WorkerActor for the rest."""
    kind = "run" if pool.name == RUNS else "worker"
    arguments = (settings_json, kind, [pool.name], pool.capacity, pool.needs.dedicated)
    return Child(f"{_STEMS.get(pool.name, pool.name)}-{number}", RunHost, arguments, pool.name, number)


def trace_child(settings_json: str) -> Child:
    """The keeper of the trace tables."""
    return Child(TRACES, TraceKeeper, (settings_json,))


def known_by(name: str) -> Child | None:
    """The host that has this name, without what it is made with; None for a name that no host has."""
    stem, _, number = name.rpartition("-")
    if not stem or not number.isdigit():
        return None
    pool = {short: pool for pool, short in _STEMS.items()}.get(stem, stem)
    return Child(name, RunHost, (), pool, int(number))


def start(child: Child, options: dict[str, Any]) -> ActorHandle[Any]:
    """Make a child where `options` say, or find it when it lives."""
    make = ray.remote(child.factory).options(
        name=child.name,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=8,
        **options,
    )
    handle: ActorHandle[Any] = make.remote(*child.arguments)
    return handle


def end_all(children: Sequence[Kept]) -> None:
    """Let children stop by themselves, all at once and within a bound; who still waits for a place holds nothing."""
    asked: dict[Any, Kept] = {}
    for kept in children:
        if not kept.seen and kept.child.pool not in (*_STEMS, ""):
            ray.kill(kept.handle)
        else:
            asked[kept.handle.stop.remote()] = kept
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_END_TIMEOUT) if asked else ([], [])
    for answer in (*done, *late):
        handle = asked[answer].handle
        try:
            ray.get(answer, timeout=0)
            handle.__ray_terminate__.remote()
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            _LOG.warning("%s did not stop by itself: %s", asked[answer].child.name, error)
            ray.kill(handle)
