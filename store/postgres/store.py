"""The shared store: a PostgreSQL database that every node of a cluster reaches.

What it acknowledges survives the death of every process and of the server (`synchronous_commit` stays on). Rows are
locked, never the store: hosts on many nodes commit side by side, and readers of the journal stop before the first
transaction that is still open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from retinue.runs.breakers import BreakerPolicy
from retinue.runs.limits import NO_QUOTAS, Limits
from retinue.runs.ownership import HostInfo
from retinue.store import leasing
from retinue.store.blobs import open_blobs
from retinue.store.engine import Connection, Pen
from retinue.store.frames import FrameCodec
from retinue.store.liveness import Owner, boot_id
from retinue.store.objects import resolve
from retinue.store.postgres.connection import Patient, PostgresConnection
from retinue.store.postgres.dialect import migrations
from retinue.store.postgres.hints import Hints
from retinue.store.postgres.keys import BlobTable, KeyTable
from retinue.store.postgres.opening import BY_INDEX, connect, migrate, session_name
from retinue.store.postgres.pen import PostgresPen
from retinue.store.postgres.pool import Pool
from retinue.store.rows import many, one
from retinue.store.sealing import Vault
from retinue.store.store import BREAKERS, Store

T = TypeVar("T")
_READERS = 4
_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = ANY(CAST(? AS text[]))
"""


class PostgresStore(Store):
    """The store of one database. `key` wraps the tenants' keys, and is a reference, as a password in `url` is.

    Large contents are rows too, unless `blobs` names a place (see `store.blobs`).
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        patience: float = 10.0,
        limits: Limits = NO_QUOTAS,
        breakers: BreakerPolicy = BREAKERS,
        blobs: str | None = None,
    ) -> None:
        engine = PostgresEngine(url, patience)
        vault = Vault(KeyTable(engine.pool, None if key is None else resolve(key, "store_key")))
        place = BlobTable(engine.pool, vault) if blobs is None else open_blobs(blobs, vault)
        super().__init__(engine, FrameCodec(vault, place), limits, breakers)


class PostgresEngine:
    """Implements `engine.Engine`: a connection for the pen, a few for reads, one for hints."""

    moment = 0.25

    def __init__(self, url: str, patience: float) -> None:
        self.incarnation = migrate(url, patience)
        dial = partial(connect, url, patience)
        by_index = partial(connect, url, patience, BY_INDEX)
        self.pen: Pen = PostgresPen(by_index, len(migrations()), patience, lambda: self._hints.tell())
        self.pool = Pool(url, _READERS, patience)
        self._readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="retinue-reader")
        self._looked: dict[str, int] = {}
        self._hints = Hints(dial)

    async def read(self, read: Callable[[Connection], T]) -> T:
        """See Engine. Asked again, within the store's patience, when the server has gone away and come back."""

        def work(raw: Patient) -> T:
            return read(PostgresConnection(raw))

        return await asyncio.get_running_loop().run_in_executor(self._readers, self.pool.use, work)

    async def glance(self, read: Callable[[Connection], T]) -> T:
        """See Engine."""
        return await self.read(read)

    def clock(self, connection: Connection) -> float:
        """See Engine. The server's: the nodes' own clocks may differ."""
        return float(one(connection, "SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")[0])

    async def judge(self, host: HostInfo, own_beat: float | None, lease_seconds: float) -> list[str]:
        """See Engine. Hosts of this machine are proven dead; others lose their runs when they are silent.

        Silence is measured up to the judge's own beat before the newest: when nobody could reach the server, nobody
        was silent. What a silent host still writes is refused by its epochs; what its sessions have locked is free
        when they are ended.
        """
        query = "SELECT host_id, pid, pid_started, boot_id, beat FROM hosts WHERE state = 'alive' AND host_id != ?"
        rows = await self.read(lambda connection: many(connection, query, (host.host_id,)))
        here: list[Any] = [row for row in rows if row[3] == boot_id()]
        dead = await asyncio.to_thread(leasing.find_dead, here, boot_id(), own_beat, lease_seconds)
        if own_beat is not None:
            dead += [row[0] for row in rows if row[3] != boot_id() and own_beat - row[4] > lease_seconds]
        names = [session_name(Owner(row[1], row[2]), row[3]) for row in rows if row[0] in dead]
        if names:
            await self.read(lambda connection: many(connection, _END_SESSIONS, (names,)))
        return dead

    async def has_queued(self, pool: str) -> bool:
        """See Engine. Asks only after a hint."""
        if not self._hinted(f"pool {pool}"):
            return False
        query = "SELECT 1 FROM runs WHERE status = 'queued' AND held = 0 AND pool = ? LIMIT 1"
        found = await self.read(lambda connection: bool(many(connection, query, (pool,))))
        if found:
            self._looked.pop(f"pool {pool}", None)
        return found

    async def has_news(self, host_id: str) -> bool:
        """See Engine. There may be some after every hint."""
        return self._hinted(f"host {host_id}")

    def version(self) -> int:
        """See Engine. Grows with hints and with the slow poll."""
        return self._hints.version

    def close(self) -> None:
        """See Engine."""
        self._hints.close()
        self._readers.shutdown()
        self.pool.close()

    def _hinted(self, what: str) -> bool:
        version = self._hints.version
        hinted = self._looked.get(what) != version
        self._looked[what] = version
        return hinted
