"""Where the data of a test's store is, by the kind of store; who opens a place twice has two stores over the same data,
as two processes do. Knows no test.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from tests.doubles.memory_store import MemoryStore
from tests.doubles.postgres import PostgresServer

from retinue.store.postgres.store import PostgresStore
from retinue.store.sqlite import SqliteStore
from retinue.store.store import Store

KINDS = ("memory", "sqlite", "postgres")
REAL = ("sqlite", "postgres")
"""The kinds that outlive a process, and that many may open."""

AnyStore = MemoryStore | Store


@dataclass(frozen=True)
class Place:
    """A folder, and for PostgreSQL the URL of a database."""

    kind: str
    folder: Path
    url: str | None = None

    def open(self, **given: Any) -> Store:
        """Another store over this place. SQLite's data is in the folder `data`."""
        given = {"patience": 5.0} | given
        if self.kind == "sqlite":
            return SqliteStore(self.folder / "data", **given)
        assert self.kind == "postgres" and self.url is not None, self
        return PostgresStore(self.url, **given)

    def clear(self) -> None:
        """Take away what a store has written here; nobody may have it open."""
        if self.url is None:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            return
        with psycopg.connect(self.url, options="-c lock_timeout=20s") as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in found:
                kept = "WHERE name NOT IN ('schema', 'incarnation') AND name NOT LIKE 'alerts%'"
                connection.execute(f"DELETE FROM {table} {kept if table == 'meta' else ''}")
            if found:
                connection.execute("UPDATE meta SET value = '0' WHERE name LIKE 'alerts%'")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What another process makes this place of: `Place.of(*arguments)`."""
        return (self.kind, str(self.folder), *((self.url,) if self.url else ()))

    @classmethod
    def of(cls, kind: str, folder: str, url: str | None = None) -> Place:
        """The place that another process named."""
        return cls(kind, Path(folder), url)


class Places:
    """Makes new, empty places. The server is asked for only when a place needs it."""

    def __init__(self, folder: Path, server: Callable[[], PostgresServer]) -> None:
        self._folder = folder
        self._server = server
        self._kept: dict[str, Place] = {}

    @contextmanager
    def new(self, kind: str) -> Iterator[Place]:
        """A place of a kind, gone at the end."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            if kind != "postgres":
                yield Place(kind, Path(folder))
                return
            server = self._server()
            url = server.fresh()
            try:
                yield Place(kind, Path(folder), url)
            finally:
                server.drop(url)

    @contextmanager
    def cleared(self, kind: str) -> Iterator[Place]:
        """The same place of a kind each time, with nothing in it: quicker to have than a new one."""
        if kind not in self._kept:
            url = self._server().fresh() if kind == "postgres" else None
            self._kept[kind] = Place(kind, Path(tempfile.mkdtemp(dir=self._folder)), url)
        place = self._kept[kind]
        place.clear()
        yield place
