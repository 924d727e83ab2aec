"""Connecting: a client of a project, with whatever hosts its runs: this process, the runtime that lives, or a new one.

Knows Ray only through `actors`, and only when a process is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from retinue.host.composition import load_project
from retinue.host.inline import inline_host
from retinue.host.opening import open_store
from retinue.host.presence import RuntimeInfo, runtime_of
from retinue.host.projecting import ask
from retinue.host.settings import Settings, load_settings
from retinue.ingress.client import Ask, Client
from retinue.runs.errors import RetinueError
from retinue.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from retinue.actors.runtime import Attachment

_LOG = logging.getLogger("retinue.ingress")
_WATCH = 1.0
_WATCH_SHARED = 5.0
"""Seconds between two looks for a runtime: one of a shared store costs a connection."""


@asynccontextmanager
async def connect(
    project: Path | None = None, *, local: bool = False, start: bool = True, settings: Settings | None = None
) -> AsyncIterator[Client]:
    """A client of the project in `project` (default: the current folder or one above it).

    `local`: runs are hosted in this process, without Ray. Otherwise the live runtime of the data folder, or of the
    store that machines share, is joined, or one is started that ends with the block. `start=False`: only control,
    nothing is hosted. Raises ConfigError, StoreBusy.
    """
    settings = settings or load_settings(project)
    async with AsyncExitStack() as stack:
        store = open_store(settings)
        stack.push_async_callback(store.close)
        runtime = await asyncio.to_thread(runtime_of, settings)
        client = _client(settings, store, runtime, stack) if not local else await _local(settings, store, stack)
        stack.push_async_callback(client.close)
        if start and not local and runtime is not None:
            standing_in = asyncio.create_task(_stand_in(client, stack))
            stack.push_async_callback(_end, standing_in)
        elif start and not local:
            load_project(settings)
            client.use(await _attach(settings, None, stack))
        yield client


def _client(settings: Settings, store: Store, runtime: RuntimeInfo | None, stack: AsyncExitStack) -> Client:
    keeps = runtime is not None and settings.telemetry.emit_structured_events
    return Client(settings, store, "runs", _ask_later(settings, runtime, stack) if runtime and keeps else None)


async def _local(settings: Settings, store: Store, stack: AsyncExitStack) -> Client:
    project = load_project(settings)
    alone = await asyncio.to_thread(runtime_of, settings) is None
    pool, traces = await stack.enter_async_context(inline_host(project, store, alone=alone))
    client = Client(settings, store, pool, partial(ask, traces, store) if traces else None)
    client.__dict__["project"] = project
    return client


async def _stand_in(client: Client, stack: AsyncExitStack) -> None:
    """When the runtime that was joined is gone (its driver died with it), start one in its place, however often
    that fails."""
    shared = client.settings.store is not None
    while True:
        await asyncio.sleep(_WATCH_SHARED if shared else _WATCH)
        try:
            if await asyncio.to_thread(runtime_of, client.settings) is not None:
                continue
            client.use(await _attach(client.settings, None, stack))
        except RetinueError as error:
            _LOG.warning("the runtime is gone and no other could be started yet: %s", error)
        else:
            return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _attach(settings: Settings, runtime: RuntimeInfo | None, stack: AsyncExitStack) -> Attachment:
    from retinue.actors.runtime import attached  # Ray costs a second: only what needs it pays

    return await stack.enter_async_context(attached(settings, runtime, start=runtime is None))


def _ask_later(settings: Settings, runtime: RuntimeInfo, stack: AsyncExitStack) -> Ask:
    """Connect to the runtime's Ray only when the trace tables are asked: all else goes through the store."""
    attachments: list[Attachment] = []

    async def ask(sql: str, timeout: float, rows: int | None = None) -> pa.Table:
        if not attachments:
            attachments.append(await _attach(settings, runtime, stack))
        return await attachments[0].query(sql, timeout, rows)

    return ask
