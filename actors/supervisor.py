"""The Supervisor: keeps the crew that is declared, follows the queues with it, and holds the data folder.

Detached and named; Ray restarts it for ever. It keeps nothing that it cannot find again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from retinue.actors.crew import Crew
from retinue.actors.hosts import start_thread
from retinue.actors.pools import Line
from retinue.host import clock
from retinue.host.opening import open_store
from retinue.host.presence import Presence, RuntimeInfo
from retinue.host.settings import Settings
from retinue.runs.contracts import Status
from retinue.runs.control import QueueState
from retinue.runs.errors import StoreBusy, StoreError
from retinue.store.liveness import boot_id, current_owner, owner_of
from retinue.store.store import Store

_LOG = logging.getLogger("retinue.actors")
SUPERVISOR = "supervisor"
_EVERY = 1.0
_BESIDES = 2.0
"""Seconds that a canceled run has beyond its grace before its actor is killed: it may end by itself."""


class Keeper:
    """The body of the supervisor actor."""

    def __init__(self, settings_json: str, address: str, head_pid: int | None, roams: bool) -> None:
        self._settings = Settings.model_validate_json(settings_json)
        # One that may be on any node has no folder of its own: its name in Ray is its claim.
        self._presence = None if roams else Presence(self._settings.data_folder)
        self._refused: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._first_seen: dict[str, float] = {}
        self._canceled: dict[str, float] = {}
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
            if self._presence is not None:
                self._presence.claim(self._info)
        except StoreBusy as error:
            self._refused = str(error)
            return
        self._crew = Crew(self._settings, bound=not roams)
        self._crew.begin()
        self._thread = start_thread(self._watch(), "retinue-supervisor")

    def ready(self) -> str | None:
        """None when it has the data folder, else who has it."""
        return self._refused

    def status(self) -> dict[str, Any]:
        """Who it is, what its children said last, and what waits for them."""
        return {
            "pid": os.getpid(),
            "node": self._info.node,
            "address": self._info.address,
            "namespace": self._info.namespace,
            **self._crew.status(),
        }

    def drain(self, name: str) -> list[str]:
        """Drain an actor, a pool or a node; the names of the actors that leave. At once: they take their time."""
        return self._crew.drain(name)

    def stop(self) -> None:
        """Stop the children, hosts before traces, and let the folder go."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=5)
        self._crew.stop()
        if self._presence is not None:
            self._presence.leave()

    async def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        store: Store | None = None
        while not self._stopping.is_set():
            await asyncio.to_thread(self._crew.look_after)
            store = await self._follow(store)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _EVERY)
        if store is not None:
            await store.close()

    async def _follow(self, store: Store | None) -> Store | None:
        """Let the pools follow their queues; a store that cannot be read leaves them as they are."""
        try:
            store = opened = store or open_store(self._settings)
            await asyncio.to_thread(self._crew.scale, self._lines(await opened.queues()))
            await self._end_canceled(opened)
        except (StoreError, ray.exceptions.RayError) as error:
            _LOG.warning("the pools stay as they are: %s", error)
        return store

    def _lines(self, queues: Sequence[QueueState]) -> dict[str, Line]:
        """How long each queue has waited: since its oldest run was made, or, where all of its runs have begun before,
        since they have been seen here."""
        seen, now = time.monotonic(), clock.now_ns()
        self._first_seen = {state.pool: self._first_seen.get(state.pool, seen) for state in queues}
        lines = {}
        for state in queues:
            made = state.oldest_at
            age = seen - self._first_seen[state.pool] if made is None else max(now - made, 0) / 1e9
            lines[state.pool] = Line(state.queued, age)
        return lines

    async def _end_canceled(self, store: Store) -> None:
        """Kill the actor of a run that has it for itself and does not end within the grace after its cancel."""
        now, alone = time.monotonic(), self._crew.alone()
        self._canceled = {run_id: since for run_id, since in self._canceled.items() if run_id in alone}
        for run_id in alone:
            record = await store.get(run_id)
            if record.cancel is None or record.status is not Status.in_progress:
                continue
            since = self._canceled.setdefault(run_id, now)
            if now - since > self._settings.actors.cancel_grace + _BESIDES:
                self._crew.kill_holder(run_id)
