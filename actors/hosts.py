"""Hosts as Ray actors: a process that serves a pool of runs on an event loop of its own.

Caches of durable state: killed at any moment, they are replaced and lose nothing. Ray's calls are only for
life and death; work is pulled from the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import ray

from retinue.host.alerting import AlertDesk, alerting
from retinue.host.collector import calm_collector
from retinue.host.composition import load_project, make_host, open_store
from retinue.host.hosting import Host, HostShape
from retinue.host.settings import Settings
from retinue.policy.live import LiveGate
from retinue.runs.errors import ConfigError

_LOG = logging.getLogger("retinue.actors")


class RunHost:
    """The body of RunActor and WorkerActor; `kind` tells which, `pools` what it leases."""

    def __init__(self, settings_json: str, kind: str, pools: list[str], capacity: int, once: bool) -> None:
        self._settings = Settings.model_validate_json(settings_json)
        if not self._settings.folder.is_dir():
            raise ConfigError(
                f"node {socket.gethostname()} has no folder {self._settings.folder}: the project has to be at the same "
                "path on every node (in the image, a shared folder, or Ray's working_dir)"
            )
        self._kind = kind
        self._shape = HostShape(tuple(pools), capacity, self._settings.actors.lease_seconds, once=once)
        self._declared: dict[str, Any] = {}
        self._draining = False
        self._ended = False
        # Where no process keeps traces, those that host top-level runs take turns.
        self._alerts = kind == "run" and not self._settings.telemetry.emit_structured_events
        self._host: Host | None = None
        self._gate: LiveGate | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = start_thread(self._serve(), f"retinue-{kind}")

    def ping(self) -> dict[str, Any]:
        """Alive: who it is and how much it holds; `declared` are the pools that the project's definitions need.

        `rules` are the digest of those in force and what is wrong with newer ones. `holds` names the run of an actor
        that is for one run; `ended` says that it is no use any more.
        """
        host = self._host
        return {
            "kind": self._kind,
            "pid": os.getpid(),
            "node": socket.gethostname(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "active": host.active if host else 0,
            "finished": host.finished if host else 0,
            "idle": host.idle if host else 0.0,
            "holds": host.holds if host and self._shape.once else [],
            "declared": self._declared if host else None,
            "rules": self._gate.in_force if self._gate else None,
            "ended": self._ended,
        }

    def drain(self) -> None:
        """Take no run any more, finish the steps in flight, give the runs back; then `ping` says that it has ended."""
        self._draining = True
        if self._host is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._host.drain)

    def serve_also(self, pools: list[str]) -> None:
        """Take what is queued in pools that nobody serves: it ends here, or is passed on."""
        if self._host is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._host.serve_also, pools)

    def stop(self) -> None:
        """Give back the leases and end the process's work; returns when it has."""
        if self._host is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._host.stop)
        self._thread.join(timeout=10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        project = load_project(self._settings)
        store = open_store(self._settings)
        actor_id = ray.get_runtime_context().get_actor_id()
        self._declared = {name: needs.to_json() for name, needs in project.registry.pools.items()}
        self._gate = project.gate
        self._host = make_host(project, store, self._shape, self._kind, actor_id)
        if self._draining:
            self._host.drain()
        calm_collector()
        async with alerting(AlertDesk(self._settings, store)) if self._alerts else nullcontext():
            await self._host.serve()
        await store.close()
        self._ended = True


def start_thread(work: Coroutine[Any, Any, None], name: str) -> threading.Thread:
    """Run a coroutine on a loop of its own; if it fails, the process ends, so that it is replaced."""

    def serve() -> None:
        try:
            asyncio.run(work)
        except Exception:
            _LOG.exception("%s failed; its process ends and is replaced", name)
            os._exit(1)

    thread = threading.Thread(target=serve, name=name, daemon=True)
    thread.start()
    return thread
