"""The inline host: runs are hosted in the caller's process, without Ray, on the same store.

Alone it serves every pool, whatever the pool's runs need, keeps the traces and raises alerts; beside a live runtime
it takes only runs submitted to its own pool and leaves the rest to the runtime, which takes over what is left of that
pool when it has gone. Knows no Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from retinue.host import clock
from retinue.host.alerting import AlertDesk, alerting
from retinue.host.composition import Project, make_host, open_traces
from retinue.host.hosting import HostShape
from retinue.host.projecting import project_until
from retinue.runs.errors import StoreError
from retinue.runs.resources import guest_pool
from retinue.store.store import Store
from retinue.traces.room import Traces

_LOG = logging.getLogger("retinue.host")
_PATIENCE = 5.0


@asynccontextmanager
async def inline_host(project: Project, store: Store, *, alone: bool) -> AsyncIterator[tuple[str, Traces | None]]:
    """A serving host: the pool that runs should be submitted to, and the traces if it keeps them.

    When the host cannot go on, the task that is inside is cancelled and leaves with the host's error, StoreFull
    for one: nobody waits for runs that nobody carries on.
    """
    host_id = clock.new_run_id()
    own_pool = "runs" if alone else guest_pool(host_id)
    pools = ("runs", "workers", *project.registry.pools) if alone else (own_pool,)
    actors = project.settings.actors
    shape = HostShape(pools, actors.capacity, actors.lease_seconds, patience=_PATIENCE)
    host = make_host(project, store, shape, "inline" if alone else "guest", host_id=host_id)
    serving = asyncio.create_task(host.serve())
    serving.add_done_callback(partial(_interrupt, asyncio.current_task()))
    keeps = alone and project.settings.telemetry.emit_structured_events
    traces = await _traces(project, store) if keeps else None
    stopping = asyncio.Event()
    projecting = asyncio.create_task(project_until(stopping, traces)) if traces else None
    desk = AlertDesk(project.settings, store, (lambda: traces.lag().seq) if traces else None)
    try:
        async with alerting(desk) if alone else nullcontext():
            yield own_pool, traces
    finally:
        host.stop()
        if projecting is not None and traces is not None:
            stopping.set()
            await projecting
            await traces.close()
        await serving


def _interrupt(inside: asyncio.Task[None] | None, serving: asyncio.Task[None]) -> None:
    if inside is not None and not serving.cancelled() and serving.exception() is not None:
        inside.cancel()


async def _traces(project: Project, store: Store) -> Traces | None:
    traces = open_traces(project.settings, store)
    try:
        await traces.open()
    except StoreError as error:
        _LOG.warning("traces are not kept by this process: %s", error)
        await traces.close()
        return None
    return traces
