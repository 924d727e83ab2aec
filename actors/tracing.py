"""The TraceActor: the one process that has the trace tables open; it feeds them, answers queries and raises alerts.

Its cursor is committed with what it derived, so its death costs time, not rows.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pyarrow as pa

from retinue.actors.hosts import start_thread
from retinue.host.alerting import AlertDesk, alerting
from retinue.host.composition import open_store, open_traces
from retinue.host.projecting import ask, catch_up, project_until
from retinue.host.settings import Settings
from retinue.runs.errors import RetinueError
from retinue.store.store import Store
from retinue.traces.room import Traces


class TraceKeeper:
    """The body of TraceActor. Queries come as Ray calls and are answered as Arrow IPC bytes."""

    def __init__(self, settings_json: str) -> None:
        self._settings = Settings.model_validate_json(settings_json)
        self._traces: Traces | None = None
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = start_thread(self._serve(), "retinue-traces")

    def ping(self) -> dict[str, Any]:
        """Alive."""
        return {"kind": "traces", "pid": os.getpid(), "active": int(self._traces is not None), "finished": 0}

    def query(self, sql: str, timeout: float, rows: int | None = None) -> bytes | tuple[str, str]:
        """The answer, at most so many rows, as an Arrow IPC stream, or (error class, message)."""
        if self._traces is None or self._store is None or self._loop is None:
            return "StoreBusy", "the trace tables are being opened: ask again in a moment"
        asked = asyncio.run_coroutine_threadsafe(ask(self._traces, self._store, sql, timeout, rows), self._loop)
        try:
            table = asked.result(timeout + 10)
        except RetinueError as error:
            return type(error).__name__, str(error)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def stop(self) -> None:
        """Project what is left, close the tables."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=30)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        store = open_store(self._settings)
        traces = open_traces(self._settings, store)
        await traces.open()
        self._traces, self._store = traces, store
        async with alerting(AlertDesk(self._settings, store, lambda: traces.lag().seq)):
            await project_until(self._stopping, traces)
        await catch_up(traces)
        await traces.close()
        await store.close()
