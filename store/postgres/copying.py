"""The ends of a copy in a PostgreSQL database: a transaction that sees one moment, and a store that nobody opens before
it is whole.

While it is filled its schema is one that no version knows, so that whoever has it open writes no more. Knows neither
what is copied nor how it is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from retinue.runs.errors import InvalidInput, SchemaMismatch, StoreBusy
from retinue.store.copying import BEGUN, DONE, HOSTS, NEWEST, TABLES, Row, Table
from retinue.store.leasing import find_dead
from retinue.store.liveness import boot_id
from retinue.store.objects import resolve
from retinue.store.postgres.dialect import migrations
from retinue.store.postgres.keys import KeyTable
from retinue.store.postgres.opening import FILLING, connect, identity, migrate, schema_of
from retinue.store.postgres.pen import translate
from retinue.store.postgres.pool import Pool

_COPYING = 4_611_686_018_427_387_901
"""The advisory lock of whoever copies into a database."""
_ROWS = 100
_FEW = 4
"""How many rows are asked for at once, and how many large ones."""
_PATIENCE = 10.0
_SILENT = 60.0
"""Seconds after which a host elsewhere that says nothing does not count as one that uses the store."""
_NUMBERED = ("groups", "requests", "events", "alerts", "capability_sessions", "sandboxes", "memories")
_BLOBS = Table("blobs", ("address",), lasting=True)
_KEYS = Table("keys", ("tenant_id",))
_SLOWEST = 120.0
"""The patience (s) of a copy with the server, where a page may be large; `_OPTIONS` are not meant to be so long."""
_OPTIONS = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30min"
_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_Connection = psycopg.Connection[Any]


class PostgresEnd:
    """Implements `copying.Source`."""

    def __init__(self, url: str, connection: _Connection, keys: KeyTable) -> None:
        self.name = f"postgresql://{identity(url)}"
        self.keys = keys
        self._connection = connection

    @property
    def incarnation(self) -> str:
        """See Source."""
        found = _note(self._connection, "incarnation")
        assert found is not None
        return found

    def alive(self) -> int:
        """See Source. Hosts elsewhere count until they have been silent for a minute."""
        query = (
            "SELECT host_id, pid, pid_started, boot_id, extract(epoch FROM clock_timestamp())::float8 - beat"
            f" FROM {HOSTS} WHERE state = 'alive'"
        )
        rows = self._connection.cursor(binary=True).execute(query).fetchall()
        here = [row for row in rows if row[3] == boot_id()]
        heard = [row for row in rows if row[3] != boot_id() and row[4] < _SILENT]
        return len(heard) + len(here) - len(find_dead(here, boot_id(), None, 0.0))

    def columns(self, table: Table) -> tuple[str, ...]:
        """See End."""
        return tuple(sorted(self._types(table)))

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        """See End."""
        query = f"SELECT {_names(columns)} FROM {table.name} ORDER BY {_names(table.key)}"
        with self._connection.transaction(), self._connection.cursor("rows") as cursor:
            cursor.itersize = _FEW if table is _BLOBS else _ROWS
            cursor.execute(query, binary=True)
            yield from cursor

    def blobs(self) -> Iterator[Row]:
        """See End."""
        return self.rows(_BLOBS, ("address", "sealed"))

    def _types(self, table: Table) -> dict[str, str]:
        query = (
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        )
        return dict(self._connection.execute(query, (table.name,)).fetchall())


class PostgresTarget(PostgresEnd):
    """Implements `copying.Target`."""

    def __init__(self, url: str, connection: _Connection, keys: KeyTable) -> None:
        super().__init__(url, connection, keys)
        self.begun = _note(connection, BEGUN)
        self.done = _note(connection, DONE)

    def begin(self, incarnation: str, emptied: Sequence[Table]) -> None:
        """See Target."""
        with self._connection.transaction():
            self._connection.execute("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE")
            if self.begun is None:
                self._refuse_what_is_used()
                self._connection.execute("INSERT INTO meta (name, value) VALUES (%s, %s)", (BEGUN, incarnation))
            self._connection.execute("UPDATE meta SET value = %s WHERE name = 'schema'", (str(FILLING),))
            own = ("schema", "incarnation", BEGUN)
            self._connection.execute("DELETE FROM meta WHERE name != ALL(%s)", (list(own),))
            names = ", ".join(table.name for table in (*emptied, _KEYS) if table.name != "meta")
            self._connection.execute(f"TRUNCATE {names}")
        self.begun = incarnation

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See Target."""
        types = self._types(table)
        places = ", ".join(f"%s::{types[name]}[]" for name in columns)
        query = f"INSERT INTO {table.name} ({_names(columns)}) SELECT * FROM unnest({places}) ON CONFLICT DO NOTHING"
        self._connection.execute(query, [list(column) for column in zip(*rows, strict=True)])

    def put_blobs(self, blobs: Sequence[Row]) -> None:
        """See Target."""
        self.insert(_BLOBS, ("address", "sealed"), blobs)

    def finish(self) -> None:
        """See Target."""
        with self._connection.transaction():
            newest = f"FROM ({NEWEST}) AS found (newest) WHERE newest > 0"
            self._connection.execute(f"SELECT setval('journal_seq', newest) {newest}")
            self._connection.execute("SELECT setval('runs_num', max(num)) FROM runs")
            for name in _NUMBERED:
                sequence = f"pg_get_serial_sequence('{name}', 'num')"
                self._connection.execute(f"SELECT setval({sequence}, max(num)) FROM {name}")
            fresh = "md5(gen_random_uuid()::text)"
            self._connection.execute(f"UPDATE meta SET value = {fresh} WHERE name = 'incarnation'")
            self._connection.execute("UPDATE meta SET value = %s WHERE name = 'schema'", (str(len(migrations())),))
            self._connection.execute("UPDATE meta SET name = %s WHERE name = %s", (DONE, BEGUN))
        self._connection.execute("ANALYZE")

    def _refuse_what_is_used(self) -> None:
        for table in (*TABLES[1:], _KEYS, _BLOBS):
            if self._connection.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone():
                raise InvalidInput(f"{self.name} holds a store already (table {table.name}): name an empty database")
        if alive := self.alive():
            raise StoreBusy(f"hosts use {self.name} ({alive} alive): stop them first, or name an empty database")


@contextmanager
def postgres_source(url: str, key: str | None = None) -> Iterator[PostgresEnd]:
    """The store of a database as of now. `key` opens its keys, and is a reference, as a password in `url` is."""
    with _told(url), connect(url, _SLOWEST, _OPTIONS) as connection, closing(Pool(url, 1, _PATIENCE)) as pool:
        found = schema_of(connection)
        if found == 0:
            raise InvalidInput(f"the database {identity(url)} has no store: nothing is to be copied")
        if found == FILLING:
            raise InvalidInput(f"the store {identity(url)} is being filled by a copy: let that one end first")
        if found != len(migrations()):
            known = len(migrations())
            raise SchemaMismatch(f"the store {identity(url)} has schema {found}, this version knows {known}: update")
        connection.execute(_MOMENT)
        yield PostgresEnd(url, connection, _keys(pool, key))


@contextmanager
def postgres_target(url: str, key: str | None = None) -> Iterator[PostgresTarget]:
    """An empty database, or one that a copy has begun or finished. `key` wraps its keys."""
    with _told(url), connect(url, _SLOWEST, _OPTIONS) as connection, closing(Pool(url, 1, _PATIENCE)) as pool:
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (_COPYING,))
        except psycopg.errors.LockNotAvailable:
            raise StoreBusy(f"another process copies into {identity(url)}: wait until it has ended") from None
        if schema_of(connection) != FILLING:
            migrate(url, _PATIENCE)
        target = PostgresTarget(url, connection, _keys(pool, key))
        if target.done is not None:
            connection.execute(_MOMENT)
        yield target


def _keys(pool: Pool, key: str | None) -> KeyTable:
    return KeyTable(pool, None if key is None else resolve(key, "store_key"))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors of the database as the store's callers know them."""
    try:
        yield
    except psycopg.Error as error:
        said = translate(error)
        raise type(said)(f"{said} (store {identity(url)})") from None


def _note(connection: _Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE name = %s", (name,)).fetchone()
    return None if row is None else str(row[0])


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
