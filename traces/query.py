"""Analysts' SQL: one statement, read only, bounded in time and rows, given back as an Arrow table.

Owns what a query may do and how its errors read. Runs beside the projection in the process that has the
file, or on the file itself when no process has it. Knows neither journal nor rows' meanings.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import duckdb
import pyarrow as pa

from retinue.runs.errors import InvalidInput, StoreError
from retinue.traces.file import NAME, FileSettings, TraceFile, connect
from retinue.traces.threads import in_thread

READS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
AGAIN = 0.05
"""Seconds between interrupts of a query that has to stop."""
TRUNCATED = b"truncated"
"""Key in the metadata of a table's schema when the row cap left rows out."""


class QueryTimeout(InvalidInput):
    """The query took longer than it was allowed to and was stopped."""


@dataclass(frozen=True, slots=True)
class Query:
    """One statement with its bounds: seconds, and rows (None: all)."""

    sql: str
    seconds: float = 30.0
    rows: int | None = None


async def ask(file: TraceFile, query: Query, threads: Executor) -> pa.Table:
    """Answer a query beside the projection.

    Raises InvalidInput (with DuckDB's own words) and QueryTimeout. A cancelled caller stops the query.
    """
    with file.reader() as reader:
        work = asyncio.ensure_future(in_thread(threads, answer, reader, query))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                reader.interrupt()
                await asyncio.wait([work], timeout=AGAIN)
            raise


def ask_file(folder: Path, query: Query, settings: FileSettings | None = None) -> pa.Table:
    """Answer a query on the file itself, while no process has it open for writing.

    Raises StoreBusy when one has, InvalidInput when there are no traces yet, and what `ask` raises.
    """
    path = folder / NAME
    if not path.is_file():
        raise InvalidInput(f"there are no traces in {folder}: run something first, or name another folder")
    connection = connect(path, settings or FileSettings(), read_only=True)
    try:
        return answer(connection, query)
    finally:
        connection.close()


def answer(connection: duckdb.DuckDBPyConnection, query: Query) -> pa.Table:
    """Answer a query on a connection that nothing else uses; blocks at most `query.seconds`."""
    statement = _one_read(connection, query.sql)
    done = Event()
    watch = Thread(target=_stop_in_time, args=(connection, query.seconds, done), daemon=True)
    watch.start()
    try:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        return _fetch(connection.sql(statement), query.rows)
    except duckdb.InterruptException as error:
        raise QueryTimeout(
            f"the query was stopped after {query.seconds:g} seconds; narrow it (a time range, one agent, one "
            "run) or allow more time"
        ) from error
    except (duckdb.FatalException, duckdb.InternalException, duckdb.ConnectionException) as error:
        raise StoreError(f"the trace tables cannot answer: {error}") from error
    except duckdb.Error as error:
        raise InvalidInput(f"the query cannot be answered. {error}") from error
    finally:
        done.set()
        watch.join()


def _stop_in_time(connection: duckdb.DuckDBPyConnection, seconds: float, done: Event) -> None:
    """Interrupt when the time is over, and again: an interrupt between two steps of a query has no effect."""
    while not done.wait(seconds):
        connection.interrupt()
        seconds = AGAIN


def _one_read(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The statement, if it is exactly one and reads."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise InvalidInput(f"the query is not SQL that DuckDB understands. {error}") from error
    if len(statements) != 1:
        raise InvalidInput(f"the query holds {len(statements)} statements; give exactly one")
    if statements[0].type not in READS:
        raise InvalidInput(
            f"the trace tables are read only, and this is {_article(statements[0].type.name)} statement; "
            "give a SELECT, DESCRIBE, SUMMARIZE or EXPLAIN"
        )
    return str(statements[0].query)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def _fetch(relation: duckdb.DuckDBPyRelation, rows: int | None) -> pa.Table:
    table = readable(relation if rows is None else relation.limit(rows + 1)).to_arrow_table()
    if rows is None or table.num_rows <= rows:
        return table
    return table.slice(0, rows).replace_schema_metadata({TRUNCATED: b"true"})


def readable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """VARIANT columns as JSON text: Arrow has no VARIANT that its readers understand."""
    if not any("VARIANT" in str(kind) for kind in relation.types):
        return relation
    # By position: two columns may have the same name.
    parts = (
        f"#{place}{'::JSON' if 'VARIANT' in str(kind) else ''} AS {_quoted(name)}"
        for place, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1)
    )
    return relation.project(", ".join(parts))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
