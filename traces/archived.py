"""Queries over an archive: the files that a query needs are copied here, and stand as the tables it names.

Owns which files a query needs. For whoever reaches the place and not the process that has the tables.
"""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from retinue.runs.errors import InvalidInput, StoreError
from retinue.traces.archive import ArchiveSettings, Part, Shelf, at, read_note
from retinue.traces.file import PARTS, QUIET, SCHEMA, FileSettings
from retinue.traces.query import Query, answer

_WORD = re.compile(r"\w+")
_VIEW = re.compile(r"CREATE VIEW (\w+) AS(.*?);\n", re.DOTALL)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Days:
    """The days (UTC) that are asked about, both included; None leaves an end open."""

    since: date | None = None
    until: date | None = None

    def __contains__(self, day: str) -> bool:
        found = date.fromisoformat(day)
        return (self.since is None or found >= self.since) and (self.until is None or found <= self.until)


def ask_archive(archive: ArchiveSettings, query: Query, days: Days, settings: FileSettings) -> pa.Table:
    """Answer a query from the archive, on this machine; needs room on its disk for the files in question.

    InvalidInput when there is no archive, and what `answer` raises; StoreError when a file cannot be had.
    """
    note = read_note(archive)
    if note is None:
        raise InvalidInput(f"there is no archive of traces in {archive.shelf.place}/{at(archive, '')} yet")
    most = int(note.shape.rpartition("/")[2])
    wanted = named_in(query.sql)
    with (
        TemporaryDirectory(prefix="retinue-archive-") as folder,
        closing(_instance(Path(folder), settings)) as connection,
    ):
        for part in PARTS[:-1]:
            connection.execute((SCHEMA / f"{part}.sql").read_text("utf-8"))
        for table in sorted(wanted & set(note.tables)):
            counts = {day: count for day, count in note.tables[table].items() if day in days}
            parts = [
                Part(table, day, number, 0, 0) for day in sorted(counts) for number in range(-(-counts[day] // most))
            ]
            files = [_fetch(archive.shelf, at(archive, part.path), Path(folder) / part.path) for part in parts]
            if files:
                _stand_in(connection, table, files)
        connection.execute((SCHEMA / f"{PARTS[-1]}.sql").read_text("utf-8"))
        connection.execute("SET lock_configuration = true")
        return answer(connection, query)


def named_in(sql: str) -> set[str]:
    """The names that a query uses, and those that the views among them do."""
    views = dict(_VIEW.findall((SCHEMA / f"{PARTS[-1]}.sql").read_text("utf-8")))
    found: set[str] = set()
    left = [sql]
    while left:
        fresh = {word.lower() for word in _WORD.findall(left.pop())} - found
        found |= fresh
        left += [views[name] for name in fresh & set(views)]
    return found


def _instance(folder: Path, settings: FileSettings) -> duckdb.DuckDBPyConnection:
    """In memory, with access to one folder."""
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "memory_limit": settings.memory,
        "python_enable_replacements": False,
        "threads": settings.threads,
    }
    connection = duckdb.connect(config=config)
    connection.execute(QUIET)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute(f"SET allowed_directories = [{_text(folder)}]")
    connection.execute("SET enable_external_access = false")
    return connection


def _stand_in(connection: duckdb.DuckDBPyConnection, table: str, files: list[Path]) -> None:
    """Let files stand for a table, with its columns."""
    described = connection.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [table]).fetchall()
    columns = ", ".join(f'"{name}"' for (name,) in described)
    listed = ", ".join(map(_text, files))
    connection.execute(f"DROP TABLE {table}")
    try:
        connection.execute(
            f"CREATE VIEW {table} AS SELECT {columns} FROM read_parquet([{listed}], union_by_name = true)"
        )
    except duckdb.Error as error:
        raise StoreError(
            f"table {table} of the archive was written by another version of Retinue: {error}. The runtime writes it "
            "anew when it has been updated"
        ) from error


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _fetch(shelf: Shelf, path: str, target: Path) -> Path:
    found = shelf.head(path)
    if found is None:
        raise StoreError(
            f"the archive counts {path}, and it is not there: remove its archive.json, and it is written anew"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with shelf.open(found) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
    return target
