"""The DuckDB file: its settings, its tables, and the one way in which rows get into it.

Owns opening, creating and appending; a batch's rows and its ledger line are one transaction. Knows neither
the journal nor what rows mean. One process has the file open for writing, or many have it for reading.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Condition
from typing import Any

import duckdb
import pyarrow as pa

from retinue.runs.errors import StoreBusy, StoreError, StoreFull, UnknownName
from retinue.traces.redaction import Redactor, clean

log = logging.getLogger(__name__)

NAME = "traces.duckdb"
PARTS = ("runs", "steps", "decisions", "sessions", "sandboxes", "ledger", "views")
CLOSE_SECONDS = 10.0
SCHEMA = Path(__file__).parent / "schema"

Row = dict[str, Any]
"""A row by column name; a column left out is null. Times are Unix microseconds, money is micro-dollars."""

Build = Callable[[list[Any], Redactor], pa.Array]


QUIET = "SET enable_progress_bar = false"
"""Else DuckDB draws on stdout where Python has no script (a notebook, `python -c`): between the lines of our JSON."""


@dataclass(frozen=True, slots=True)
class FileSettings:
    """How much of the machine the trace tables may use. `memory` is a DuckDB size such as `1GB`."""

    memory: str = "1GB"
    threads: int = 2
    checkpoint: str = "256MB"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the journal is projected: the store's incarnation, the newest frame, that frame's hash."""

    incarnation: str
    seq: int
    digest: str
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a table become Arrow columns, and the statement that inserts them."""

    columns: tuple[tuple[str, Build], ...]
    insert: str


class Damaged(StoreError):
    """The file cannot be read any more, or other definitions made it; it is rebuilt from the journal."""


class TraceFile:
    """The file, open for writing.

    `append` and `lookup` are called from one thread; readers may be used from other threads meanwhile.
    After a StoreError close it and open another: the instance may be beyond use.
    """

    def __init__(self, path: Path, redactor: Redactor, settings: FileSettings) -> None:
        self._redactor = redactor
        self._readers: list[duckdb.DuckDBPyConnection] = []
        self._idle = Condition()
        self._root = connect(path, settings)
        try:
            if not _tables(self._root):
                create(self._root)
            self._writer = self._root.cursor()
            self._schema = schema_digest()
            self._shapes = {table: _shape(self._root, table) for table in _tables(self._root)}
        except BaseException:
            self._root.close()
            raise

    def cursor(self) -> Cursor | None:
        """The newest line of the ledger; None in a new file. Damaged when other definitions made the file."""
        found = self._writer.execute(
            "SELECT incarnation, seq, digest, at_ns, schema FROM ingest ORDER BY seq DESC LIMIT 1"
        ).fetchall()
        if not found:
            return None
        *cursor, schema = found[0]
        if schema != self._schema:
            raise Damaged("the trace tables were made by another version of Retinue")
        return Cursor(*cursor)

    def append(self, rows: dict[str, list[Row]], cursor: Cursor, frames: int, entries: int) -> None:
        """Insert the rows and move the cursor, both or neither. Raises StoreFull or StoreError."""
        line = {
            "incarnation": cursor.incarnation,
            "schema": self._schema,
            "seq": cursor.seq,
            "digest": cursor.digest,
            "at_ns": cursor.at_ns,
            "frames": frames,
            "entries": entries,
        }
        try:
            self._writer.begin()
            for table, batch in (rows | {"ingest": [line]}).items():
                self._insert(table, batch)
            self._writer.commit()
        except duckdb.Error as error:
            raise refusal(error) from error

    def lookup(self, sql: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
        """Rows of a query by the projection itself, over the given Arrow tables as well."""
        for name, table in tables.items():
            self._writer.register(name, table)
        try:
            return self._writer.execute(sql).fetchall()
        finally:
            for name in tables:
                self._writer.unregister(name)

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own for one query."""
        reader = self._root.cursor()
        with self._idle:
            self._readers.append(reader)
        try:
            yield reader
        finally:
            reader.close()
            with self._idle:
                self._readers.remove(reader)
                self._idle.notify_all()

    def close(self) -> None:
        """Close, ending the queries that run; what was committed stays. Harmless when closed already.

        DuckDB keeps the file open while any connection has it, so the queries are waited for.
        """
        with self._idle:
            deadline = time.monotonic() + CLOSE_SECONDS
            while self._readers and time.monotonic() < deadline:
                for reader in self._readers:
                    reader.interrupt()  # again and again: one that has not begun yet does not hear it
                self._idle.wait(timeout=0.05)
            if self._readers:
                log.warning("%d queries did not end; the trace tables close when they do", len(self._readers))
        self._writer.close()
        self._root.close()

    def _insert(self, table: str, batch: list[Row]) -> None:
        shape = self._shapes[table]
        if unknown := set(batch[0]) - {name for name, _ in shape.columns}:
            raise UnknownName(f"table {table} has no column {', '.join(sorted(unknown))}")
        columns = {name: build([row.get(name) for row in batch], self._redactor) for name, build in shape.columns}
        self._writer.register("batch", pa.table(columns))
        try:
            self._writer.execute(shape.insert)
        finally:
            self._writer.unregister("batch")


def connect(path: Path, settings: FileSettings, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file, locked down: no other files, no extensions, no settings to change.

    Raises StoreBusy while another process has it, Damaged when it cannot be read.
    """
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "checkpoint_threshold": settings.checkpoint,
        "enable_external_access": False,
        "memory_limit": settings.memory,
        "python_enable_replacements": False,
        "threads": settings.threads,
    }
    try:
        connection = duckdb.connect(path, read_only=read_only, config=config)
    except duckdb.Error as error:
        raise _unopened(path, error) from error
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute(QUIET)
    connection.execute("SET lock_configuration = true")
    return connection


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables and views, all or none."""
    connection.begin()
    for part in PARTS:
        connection.execute((SCHEMA / f"{part}.sql").read_text("utf-8"))
    connection.commit()


def schema_digest() -> str:
    """Hash of the table definitions; a file made by others is rebuilt, since it can be."""
    texts = "".join((SCHEMA / f"{part}.sql").read_text("utf-8") for part in PARTS)
    return blake2b(texts.encode(), digest_size=16).hexdigest()


def refusal(error: duckdb.Error) -> StoreError:
    """What a failed write means to its caller."""
    text = str(error)
    if isinstance(error, duckdb.FatalException) or "No space left" in text or "disk" in text.lower():
        return StoreFull(
            f"the trace tables could not be written: {text}. Free space on their disk; they go on "
            "by themselves where they stopped, nothing is lost"
        )
    return StoreError(f"the trace tables refused a batch of the journal: {text}")


def _unopened(path: Path, error: duckdb.Error) -> StoreError:
    text = str(error)
    if "Could not set lock" in text:
        return StoreBusy(
            f"another process has the trace tables {path} open: query them through the running runtime, or "
            f"end the process that has them. DuckDB says: {text}"
        )
    if any(word in text for word in ("not a valid DuckDB", "Corrupt", "checksum", "version number")):
        return Damaged(f"the trace tables {path} cannot be read: {text}")
    return StoreError(f"the trace tables {path} cannot be opened: {text}")


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
    return sorted(name for (name,) in found)


def _shape(connection: duckdb.DuckDBPyConnection, table: str) -> Shape:
    described = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table],
    ).fetchall()
    masked = _masked_columns()
    columns = tuple((name, _build(kind, (table, name) in masked)) for name, kind in described)
    values = ", ".join(_value(name, kind) for name, kind in described)
    return Shape(columns, f"INSERT INTO {table} SELECT {values} FROM batch")


def _value(name: str, kind: str) -> str:
    """How a staged column is read: a plain cast of text would make a VARIANT of type text."""
    if kind == "VARIANT":
        return f'"{name}"::JSON::VARIANT'
    if kind == "DECIMAL(18,6)":
        return f'("{name}"::DECIMAL(18,0) * 0.000001::DECIMAL(7,6))::DECIMAL(18,6)'
    return f'"{name}"::JSON' if kind == "JSON" else f'"{name}"'


def _masked_columns() -> set[tuple[str, str]]:
    """Columns that the definitions call redacted: (table, column)."""
    masked: set[tuple[str, str]] = set()
    table = ""
    for line in _lines():
        if line.startswith("CREATE TABLE"):
            table = line.split()[2]
        elif line.endswith(", redacted"):
            masked.add((table, line.split()[0]))
    return masked


def _lines() -> Iterable[str]:
    for part in PARTS:
        yield from (SCHEMA / f"{part}.sql").read_text("utf-8").splitlines()


def _build(kind: str, masked: bool) -> Build:
    if kind in {"VARIANT", "JSON"}:
        return lambda values, redactor: redactor.documents(values)
    if masked and kind == "VARCHAR":
        return lambda values, redactor: redactor.texts(_column(values, pa.string()).to_pylist())
    if masked:
        return lambda values, redactor: _column([_masked(value, redactor) for value in values], _ARROW["VARCHAR[]"])
    arrow = _ARROW[kind]
    return lambda values, redactor: _column(values, arrow)


def _masked(value: list[Any] | None, redactor: Redactor) -> list[str] | None:
    return None if value is None else [redactor.text(str(clean(part))) for part in value]


def _column(values: list[Any], arrow: pa.DataType) -> pa.Array:
    """Facts are free-form: a value that its column cannot hold becomes text or null, harming only itself."""
    try:
        return pa.array(values, arrow)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        return pa.array([_fit(value, arrow) for value in values], arrow)


def _fit(value: Any, arrow: pa.DataType) -> Any:
    value = clean(value)
    try:
        return None if value is None else pa.scalar(value, arrow).as_py()
    except (pa.ArrowException, OverflowError):
        return str(value) if pa.types.is_string(arrow) else None


_ARROW = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DECIMAL(18,6)": pa.int64(),
    "DOUBLE": pa.float64(),
    "INTEGER": pa.int32(),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    "VARCHAR": pa.string(),
    "VARCHAR[]": pa.list_(pa.string()),
}
