"""The embedded store: one SQLite file that every process on the machine opens itself.

WAL, synchronous=FULL: what it acknowledges survives the death of every process and of the machine. Only SQLite may
open SQLite's files: copying them from inside a process that has them open would drop its locks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from retinue.runs.breakers import BreakerPolicy
from retinue.runs.errors import StoreBusy, StoreError
from retinue.runs.limits import NO_QUOTAS, Limits
from retinue.runs.ownership import HostInfo
from retinue.store import leasing
from retinue.store.blobs import FolderBlobs, open_blobs
from retinue.store.engine import Connection, Pen
from retinue.store.frames import FrameCodec
from retinue.store.liveness import boot_id
from retinue.store.lock import WriterLock
from retinue.store.opening import connect, migrate, watch_log
from retinue.store.rows import many, one
from retinue.store.sealing import KeyFolder, Vault
from retinue.store.sqlite_pen import SqlitePen
from retinue.store.statements import migrations
from retinue.store.store import BREAKERS, Store

T = TypeVar("T")
_LONGEST_READ = 10.0
"""Seconds: a reader holds the log of what was written since it began, so none is long."""
_LOOK_EVERY = 100_000
"""Steps of SQLite's machine between two looks at the clock."""


class SqliteStore(Store):
    """The store of one data folder."""

    def __init__(
        self,
        folder: Path,
        *,
        patience: float = 10.0,
        limits: Limits = NO_QUOTAS,
        breakers: BreakerPolicy = BREAKERS,
        blobs: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        vault = Vault(KeyFolder(folder / "keys"))
        place = FolderBlobs(folder / "blobs", vault) if blobs is None else open_blobs(blobs, vault)
        codec = FrameCodec(vault, place)
        super().__init__(SqliteEngine(folder, patience), codec, limits, breakers)


class SqliteEngine:
    """Implements `engine.Engine`: a writing connection for the pen, one for reads, one for looks on the loop."""

    moment = 0.005

    def __init__(self, folder: Path, patience: float) -> None:
        path = folder / "store.db"
        self._folder = folder
        self._lock = WriterLock(folder / "store.lock", patience)
        self.incarnation = migrate(path, self._lock)
        self.pen: Pen = SqlitePen(lambda: connect(path), self._lock, len(migrations()))
        self._reader = connect(path)
        self._read_until = math.inf
        self._reader.set_progress_handler(lambda: time.monotonic() > self._read_until, _LOOK_EVERY)
        self._peek = connect(path)
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retinue-reader")

    async def read(self, read: Callable[[Connection], T]) -> T:
        """See Engine. Interrupted when it takes too long."""

        def guarded() -> T:
            self._read_until = time.monotonic() + _LONGEST_READ
            try:
                return read(self._reader)
            except apsw.InterruptError:
                raise StoreBusy(
                    f"a read of the store in {self._folder} took longer than {_LONGEST_READ:g} s and was ended, since "
                    "readers keep the log from being cut: ask for less at once"
                ) from None
            except apsw.BusyError as error:
                raise StoreBusy(f"the store in {self._folder} stayed locked for too long: {error}") from None
            except apsw.Error as error:
                raise StoreError(f"the store in {self._folder} cannot be read: {error}") from None

        return await asyncio.get_running_loop().run_in_executor(self._readers, guarded)

    async def glance(self, read: Callable[[Connection], T]) -> T:
        """See Engine. At once, on the loop: a few microseconds."""
        return read(self._peek)

    def clock(self, connection: Connection) -> float:
        """See Engine. All processes are on one machine, and its clock never goes back."""
        return time.monotonic()

    async def judge(self, host: HostInfo, own_beat: float | None, lease_seconds: float) -> list[str]:
        """See Engine. Who is silent for too long is killed first: its leases are free when it is gone."""
        watch_log(self._folder / "store.db-wal")
        query = "SELECT host_id, pid, pid_started, boot_id, beat FROM hosts WHERE state = 'alive'"
        rows = await self.read(lambda connection: many(connection, query))
        others = [(id_, pid, *rest) for id_, pid, *rest in rows if id_ != host.host_id]
        return await asyncio.to_thread(leasing.find_dead, others, boot_id(), own_beat, lease_seconds)

    async def has_queued(self, pool: str) -> bool:
        """See Engine."""
        query = "SELECT 1 FROM runs WHERE status = 'queued' AND held = 0 AND pool = ? LIMIT 1"
        return self._peek.execute(query, (pool,)).fetchone() is not None

    async def has_news(self, host_id: str) -> bool:
        """See Engine."""
        query = (
            "SELECT 1 FROM runs WHERE host = (SELECT num FROM hosts WHERE host_id = ?)"
            " AND status = 'in_progress' AND news > seen LIMIT 1"
        )
        return self._peek.execute(query, (host_id,)).fetchone() is not None

    def version(self) -> int:
        """See Engine. Changes with every commit of another connection."""
        return int(one(self._peek, "PRAGMA data_version")[0])

    def close(self) -> None:
        """See Engine."""
        self._readers.shutdown()
        self._reader.close()
        self._peek.close()
        self._lock.close()
