"""The inline host: runs are hosted in the caller's process, without Ray, on the same store.

Alone it serves every pool and keeps the traces; beside a live runtime it takes only runs submitted to its own
pool and leaves the rest to the runtime. Knows no Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from retinue.host.composition import Project, make_host, open_traces
from retinue.host.hosting import HostShape
from retinue.host.projecting import project_for_ever
from retinue.runs.errors import StoreError
from retinue.store.sqlite import SqliteStore
from retinue.traces.room import Traces

_LOG = logging.getLogger("retinue.host")


@asynccontextmanager
async def inline_host(project: Project, store: SqliteStore, *, alone: bool) -> AsyncIterator[tuple[str, Traces | None]]:
    """A serving host: the pool that runs should be submitted to, and the traces if it keeps them."""
    own_pool = "runs" if alone else f"inline-{id(store)}"
    pools = ("runs", "workers") if alone else (own_pool,)
    shape = HostShape(pools, project.settings.actors.capacity, project.settings.actors.lease_seconds)
    host = make_host(project, store, shape, "inline")
    serving = asyncio.create_task(host.serve())
    keeps = alone and project.settings.telemetry.emit_structured_events
    traces = await _traces(project, store) if keeps else None
    projecting = asyncio.create_task(project_for_ever(traces)) if traces else None
    try:
        yield own_pool, traces
    finally:
        host.stop()
        await serving
        if projecting is not None and traces is not None:
            projecting.cancel()
            await asyncio.gather(projecting, return_exceptions=True)
            await traces.close()


async def _traces(project: Project, store: SqliteStore) -> Traces | None:
    traces = open_traces(project.settings, store)
    try:
        await traces.open()
    except StoreError as error:
        _LOG.warning("traces are not kept by this process: %s", error)
        await traces.close()
        return None
    return traces
