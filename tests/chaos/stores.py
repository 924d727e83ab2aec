"""The stores that chaos works on, as they are seen from outside while others write them: a file, or a database.

Short reads on a connection of their own, through SQLite or PostgreSQL alone; a row is never written.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import apsw
import psycopg
from tests.doubles.postgres import PostgresServer, programs_folder

from retinue.store.postgres.opening import connect

Kind = Literal["sqlite", "postgres"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNREADABLE = (apsw.Error, psycopg.Error)
"""What a look may raise while a fault is about."""
_PATIENCE = 5.0


class Seen(Protocol):
    """A store from outside."""

    kind: Kind

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Any short read, with `?` for values. One of UNREADABLE."""
        ...

    def now(self) -> float:
        """The moment (s) on the clock by which hosts show themselves."""
        ...

    def keep(self, folder: Path) -> None:
        """Copy the whole store into a folder, as evidence."""
        ...


class FileSeen:
    """A SQLite store; only SQLite may touch its files."""

    kind: Kind = "sqlite"

    def __init__(self, data_folder: Path) -> None:
        self._path = str(data_folder / "store.db")

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """See Seen."""
        connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def now(self) -> float:
        """See Seen."""
        return time.monotonic()

    def keep(self, folder: Path) -> None:
        """See Seen."""
        self.ask("VACUUM INTO ?", str(folder / "evidence.db"))

    def shrink(self) -> None:
        """Empty the write-ahead log, whose pages would be used again: from now on every commit needs room."""
        connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(5_000)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


class DatabaseSeen:
    """A PostgreSQL store, and the server that faults are done to. A server that is away is waited for, for a while."""

    kind: Kind = "postgres"

    def __init__(self, url: str, server: PostgresServer) -> None:
        self._url = url
        self.server = server

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """See Seen."""
        until = time.monotonic() + _PATIENCE
        while True:
            with suppress(psycopg.OperationalError):
                return self._ask(query, values)
            if time.monotonic() > until:
                return self._ask(query, values)
            time.sleep(0.1)

    def now(self) -> float:
        """See Seen."""
        return float(self.ask("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")[0][0])

    def keep(self, folder: Path) -> None:
        """See Seen."""
        command = [str(programs_folder() / "pg_dump"), "--file", str(folder / "evidence.sql"), self._url]
        subprocess.run(command, check=True, timeout=120)

    def sessions(self) -> list[int]:
        """The process ids of the server's processes that serve the store."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        return [pid for (pid,) in self.ask(query)]

    def end_sessions(self) -> int:
        """Have the server end every connection to the store but this one; how many there were."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        return int(self.ask(query)[0][0])

    def _ask(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with connect(self._url, _PATIENCE) as connection:
            return connection.execute(query.replace("?", "%s"), values).fetchall()
