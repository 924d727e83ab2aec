"""The Supervisor: keeps the children that are declared alive, and the data folder claimed.

Detached and named; Ray restarts it for ever. It keeps nothing that it cannot find again: children are named
too, and a restarted supervisor adopts those that live.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from retinue.actors.hosts import RunHost
from retinue.actors.placement import spread
from retinue.actors.tracing import TraceKeeper
from retinue.host.presence import Presence, RuntimeInfo
from retinue.host.settings import Settings
from retinue.runs.errors import StoreBusy
from retinue.store.liveness import boot_id, current_owner, owner_of

_LOG = logging.getLogger("retinue.actors")
SUPERVISOR = "supervisor"
_EVERY = 1.0
_PING_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """A child as data: its name, its class, what it is made with, and how often it may be replaced.

    More than `intensity` replacements within `period` seconds are spread out instead of being made at once.
    """

    name: str
    factory: type[Any]
    arguments: tuple[Any, ...]
    intensity: int = 10
    period: float = 60.0


def children_of(settings: Settings) -> list[Child]:
    """The process tree of a runtime."""
    plain = settings.model_dump_json()
    runs = [Child(f"run-{n}", RunHost, (plain, "run", ["runs"])) for n in range(settings.actors.runs)]
    workers = [Child(f"worker-{n}", RunHost, (plain, "worker", ["workers"])) for n in range(settings.actors.workers)]
    traces = [Child("traces", TraceKeeper, (plain,))] if settings.telemetry.emit_structured_events else []
    return [*runs, *workers, *traces]


@dataclass(slots=True)
class _Kept:
    child: Child
    handle: ActorHandle[Any]
    place: int
    asked: Any = None
    asked_at: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)
    replaced: deque[float] = field(default_factory=deque)


class Keeper:
    """The body of the supervisor actor."""

    def __init__(self, settings_json: str, address: str, head_pid: int | None) -> None:
        self._settings = Settings.model_validate_json(settings_json)
        self._presence = Presence(self._settings.data_folder)
        self._refused: str | None = None
        self._stopping = threading.Event()
        owner = current_owner()
        self._info = RuntimeInfo(
            address=address,
            namespace=ray.get_runtime_context().namespace,
            pid=owner.pid,
            started=owner.started,
            boot_id=boot_id(),
            node=socket.gethostname(),
            head_pid=head_pid,
            head_started=None if head_pid is None else owner_of(head_pid).started,
        )
        try:
            self._presence.claim(self._info)
        except StoreBusy as error:
            self._refused = str(error)
            return
        declared = enumerate(children_of(self._settings))
        self._kept = [_Kept(child, _start(child, number), number) for number, child in declared]
        self._thread = threading.Thread(target=self._watch, name="retinue-supervisor", daemon=True)
        self._thread.start()

    def ready(self) -> str | None:
        """None when it has the data folder, else who has it."""
        return self._refused

    def status(self) -> dict[str, Any]:
        """Who it is and what its children said last."""
        return {
            "pid": os.getpid(),
            "node": self._info.node,
            "address": self._info.address,
            "namespace": self._info.namespace,
            "actors": [{"name": kept.child.name, **kept.seen} for kept in self._kept],
        }

    def stop(self) -> None:
        """Stop the children, hosts before traces, and let the folder go."""
        self._stopping.set()
        self._thread.join(timeout=5)
        for kept in self._kept:
            if kept.child.factory is RunHost:
                _end(kept.handle)
        for kept in self._kept:
            if kept.child.factory is not RunHost:
                _end(kept.handle)
        self._presence.leave()

    def _watch(self) -> None:
        while not self._stopping.wait(_EVERY):
            for kept in self._kept:
                try:
                    self._look_after(kept)
                except (ray.exceptions.RayError, ValueError) as error:
                    _LOG.warning("%s cannot be looked after now: %s", kept.child.name, error)

    def _look_after(self, kept: _Kept) -> None:
        if kept.asked is None:
            kept.asked, kept.asked_at = kept.handle.ping.remote(), time.monotonic()
        done, _ = ray.wait([kept.asked], timeout=0)
        if not done:
            if time.monotonic() - kept.asked_at > _PING_TIMEOUT:
                _LOG.warning("%s does not answer; it is killed and replaced", kept.child.name)
                ray.kill(kept.handle)
                kept.asked_at = time.monotonic()
            return
        asked, kept.asked = kept.asked, None
        try:
            kept.seen = ray.get(asked)
        except ray.exceptions.RayError as error:
            self._replace(kept, error)

    def _replace(self, kept: _Kept, error: Exception) -> None:
        now = time.monotonic()
        while kept.replaced and now - kept.replaced[0] > kept.child.period:
            kept.replaced.popleft()
        if len(kept.replaced) >= kept.child.intensity:
            _LOG.error("%s died %d times in %.0f s; waiting", kept.child.name, len(kept.replaced), kept.child.period)
            return
        kept.replaced.append(now)
        kept.seen = {}
        _LOG.warning("%s is gone and is replaced: %s", kept.child.name, str(error).splitlines()[0])
        ray.kill(kept.handle)  # a node that is silent but not yet given up by Ray would keep its name
        kept.place += 1
        kept.handle = _start(kept.child, kept.place)


def _start(child: Child, place: int) -> ActorHandle[Any]:
    """Make a child on the next node of this machine, or find it when it lives."""
    make = ray.remote(child.factory).options(
        name=child.name,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=8,
        scheduling_strategy=spread(place),
    )
    handle: ActorHandle[Any] = make.remote(*child.arguments)
    return handle


def _end(handle: ActorHandle[Any]) -> None:
    try:
        ray.get(handle.stop.remote(), timeout=40)
        handle.__ray_terminate__.remote()
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        _LOG.warning("a child did not stop by itself: %s", error)
        ray.kill(handle)
