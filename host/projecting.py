"""The duty of projection: journal to trace tables and OTLP, for ever, in the process that has the tables.

Gathers for a moment before it projects, since a batch costs the same for one frame as for a thousand. Knows
no Ray and no run in progress.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pyarrow as pa

from retinue.runs.errors import ConfigError, StoreError
from retinue.store.store import Store
from retinue.traces.room import Traces

_LOG = logging.getLogger("retinue.host")
_BATCH = 1_000
_GATHER = 0.5
_AFTER_FAULT = 2.0
_FRESH = 5.0
_LOOK = 0.05
_FIRST_ARCHIVE = 60.0
_FAREWELL = 20.0


async def project_until(stopping: asyncio.Event, traces: Traces) -> None:
    """Project, export and archive whatever there is until told to stop, never in the middle of a batch.

    A fault costs time, not rows, and a slow endpoint delays only the export, a slow place only the archive.
    """
    await asyncio.gather(
        _repeat(traces.project, stopping), _repeat(traces.export, stopping), _archive(traces, stopping)
    )
    if traces.archives_every is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await _told(catch_up(traces))
                await _told(traces.archive())


async def _archive(traces: Traces, stopping: asyncio.Event) -> None:
    """Soon after the start, then now and again."""
    pause = _FIRST_ARCHIVE
    while traces.archives_every is not None and not stopping.is_set():
        try:
            async with asyncio.timeout(min(pause, traces.archives_every)):
                await stopping.wait()
        except TimeoutError:
            await _told(traces.archive())
        pause = traces.archives_every


async def _told(step: Awaitable[int]) -> None:
    """A step of the archive; a fault of it is told of, and the next one meets it again or not."""
    try:
        await step
    except (StoreError, ConfigError) as error:
        _LOG.warning("the archive of traces lags behind: %s", error)


async def _repeat(step: Callable[[int], Awaitable[int]], stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        pause = _GATHER
        try:
            if await step(_BATCH) >= _BATCH:
                continue
        except StoreError as error:
            _LOG.warning("traces lag behind: %s", error)
            pause = _AFTER_FAULT
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stopping.wait()


async def ask(traces: Traces, store: Store, sql: str, timeout: float, rows: int | None = None) -> pa.Table:
    """Answer a query, with at most so many rows, over tables that hold what was in the journal when it came, if that
    takes not too long.
    """
    newest = await store.newest()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FRESH):
            while True:
                if traces.lag().seq >= newest:
                    break
                await asyncio.sleep(_LOOK)
    return await traces.query(sql, timeout, rows)


async def catch_up(traces: Traces) -> int:
    """Project until nothing is left; returns the frames projected."""
    total = 0
    while moved := await traces.project(_BATCH):
        total += moved
    return total
