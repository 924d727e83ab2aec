"""Opening a SQLite store: connection settings, the version of SQLite itself, migrations.

Knows no entries and no operations.
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

import apsw

from retinue.runs.errors import SchemaMismatch, StoreError, StoreFull
from retinue.store.lock import WriterLock
from retinue.store.rows import one
from retinue.store.statements import migrations

OLDEST_SQLITE = (3, 51, 3)
"""Older ones may corrupt a WAL that is reset under a reader (reported for 3.7.0 to 3.51.2)."""
BUSY_MS = 20_000
"""How long a connection waits for another process's transaction."""
_LOG = logging.getLogger("retinue.store")
CACHE_KIB = 32_000
"""What a connection may keep of the file's pages: a process that writes fills it, and then grows no more."""
LOG_BYTES = 256_000_000
"""Size of the write-ahead log that is an alarm; checkpoints keep it at a tenth of that."""


def connect(path: Path) -> apsw.Connection:
    """A connection with the settings every user of the store needs. Raises StoreError."""
    refuse_old_sqlite(apsw.sqlite_lib_version())
    try:
        connection = apsw.Connection(str(path), statementcachesize=200)
        connection.set_busy_timeout(BUSY_MS)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 4000",
            f"cache_size = -{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except apsw.FullError:
        raise StoreFull(f"the disk of {path} is full: free space and try again") from None
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be opened as a store: {error}; check the folder and its permissions") from None
    return connection


def watch_log(path: Path) -> bool:
    """Warn of a write-ahead log that has outgrown what checkpoints leave: somebody reads without an end."""
    size = path.stat().st_size if path.exists() else 0
    if size > LOG_BYTES:
        _LOG.warning(
            "the log %s has %d MB: a process holds a read of the store open, which keeps the log from being cut; "
            "find it with `lsof %s` and end it",
            path.name,
            size // 1_000_000,
            path,
        )
    return size > LOG_BYTES


def refuse_old_sqlite(version: str) -> None:
    """Raise StoreError for a SQLite library that is known to lose data."""
    if tuple(int(part) for part in version.split(".")[:3]) < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"SQLite {version} can corrupt a store: install apsw with SQLite {wanted} or newer")


def migrate(path: Path, lock: WriterLock) -> str:
    """Bring the file to this version's schema, one transaction a step; returns the store's incarnation."""
    lock.acquire()
    try:
        connection = connect(path)
        try:
            return _migrate(connection, path)
        finally:
            connection.close()
    finally:
        lock.release()


def _migrate(connection: apsw.Connection, path: Path) -> str:
    steps = migrations()
    found = one(connection, "PRAGMA user_version")[0]
    if found > len(steps):
        raise SchemaMismatch(f"{path} has schema {found}, this version knows {len(steps)}: use the newer Retinue")
    for number, step in enumerate(steps[found:], start=found + 1):
        with connection:
            connection.execute(step)
            connection.execute(f"PRAGMA user_version = {number}")
    with connection:
        fresh = uuid.UUID(bytes=apsw.randomness(16)).hex
        connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('incarnation', ?)", (fresh,))
    return str(one(connection, "SELECT value FROM meta WHERE name = 'incarnation'")[0])
