"""The trace tables as the rest of Retinue sees them: opened, fed, asked and closed in one place.

Owns the threads: one that writes, a few that answer, so that the event loop never waits for DuckDB. Knows
the journal only as a `Source`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from retinue.runs.errors import StoreError
from retinue.traces.archive import Archive, ArchiveSettings
from retinue.traces.export import Export, OtlpSettings
from retinue.traces.file import FileSettings
from retinue.traces.projection import Lag, Projector, Source
from retinue.traces.query import Query, ask
from retinue.traces.redaction import Redactor
from retinue.traces.threads import in_thread

QUERIES = 4
"""Queries answered at the same time; others wait for their turn."""


class Traces:
    """The tables in `folder`, fed from `source`.

    `project` may be called by one task, `export` by another, `query` by any number. `otlp` names an endpoint
    that spans are exported to, `archive` a place that the rows are kept in as Parquet. Raises ConfigError at once when
    the exporter is not installed.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        redactor: Redactor,
        otlp: OtlpSettings | None = None,
        settings: FileSettings | None = None,
        archive: ArchiveSettings | None = None,
    ) -> None:
        self._writer = ThreadPoolExecutor(1, "traces-writer")
        self._readers = ThreadPoolExecutor(QUERIES, "traces-query")
        self._projector = Projector(source, folder, redactor, settings or FileSettings(), self._writer)
        self._folder = folder
        self._export = Export(folder, otlp) if otlp else None
        self._archive = Archive(folder, archive) if archive else None
        self._archivist = ThreadPoolExecutor(1, "traces-archive")
        self._closed = False

    async def open(self) -> None:
        """Open the tables; creates the folder. Raises StoreBusy when another process has them."""
        await in_thread(self._writer, self._folder.mkdir, parents=True, exist_ok=True)
        await self._projector.open()

    async def project(self, limit: int = 1_000) -> int:
        """Project up to `limit` frames of the journal; returns how many, 0 when none waits.

        Big batches are cheap and small ones are not: when it returned 0, wait a second before the next call.
        Raises StoreFull and StoreError; call again later, nothing is lost.
        """
        if self._closed:
            raise StoreError(f"the trace tables in {self._folder} are closed; open them again to project")
        return await self._projector.project(limit)

    async def query(self, sql: str, timeout: float = 30.0, rows: int | None = None) -> pa.Table:
        """Answer one SELECT within `timeout` seconds, at most `rows` rows. InvalidInput, StoreError."""
        return await ask(self._projector.file, Query(sql, timeout, rows), self._readers)

    async def export(self, limit: int = 512) -> int:
        """Export up to `limit` spans that were not exported yet; returns how many, 0 when none waits.

        Raises ExportFailed when the endpoint does not take them; call again later, they are sent again.
        """
        if self._export is None:
            return 0
        return await self._export.step(self._projector.file, self._projector.incarnation, limit, self._readers)

    @property
    def archives_every(self) -> float | None:
        """Seconds between two calls of `archive`; None when there is no archive."""
        return None if self._archive is None else self._archive.every

    async def archive(self) -> int:
        """Bring the archive up to the tables; returns how many files were written.

        StoreError: call again later. ConfigError: it is another store's. A call that is cancelled ends after the file
        it is at, and is the last one.
        """
        if self._archive is None or self._closed:
            return 0
        step, file = self._archive.step, self._projector.file
        work = asyncio.ensure_future(in_thread(self._archivist, step, file, self._projector.incarnation))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._archive.stop()
            await asyncio.wait([work])
            raise

    def lag(self) -> Lag:
        """How far the tables are."""
        return self._projector.lag()

    async def close(self) -> None:
        """Stop queries and export, close the file, end the threads. Harmless when closed already."""
        if self._closed:
            return
        self._closed = True
        if self._archive is not None:
            self._archive.stop()
        if self._export is not None:
            await in_thread(self._readers, self._export.close)
        await self._projector.close()
        self._writer.shutdown(wait=False)
        self._readers.shutdown(wait=False)
        self._archivist.shutdown(wait=False)

    async def __aenter__(self) -> Traces:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
