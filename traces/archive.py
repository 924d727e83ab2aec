"""The trace tables as Parquet in a shared place: files for each table and day, which outlive the node and its file.

Owns names, the note of what is there, and what is written when. Knows a place only as a `Shelf`, and no reader.

The rows of a table and a day are always the same in the same order, by the journal's, and only more come: part n holds
rows n * `rows` and on. So whoever writes a part writes the same, a full part is never written again, and a note that
counts rows says all. A part is there, whole, before the note counts it; a death in between costs writing it again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, BinaryIO, Protocol

import duckdb

from retinue.runs.errors import ConfigError, StoreError
from retinue.traces.file import QUIET, TraceFile, schema_digest
from retinue.traces.query import readable

NOTE = "archive.json"
ROWS = 500_000
_BATCH = 2_048
_NOTED = 100
"""Parts after which the note is written in between: what it counts is not written again."""
_MEMORY = "512MB"
_FORMAT = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE_BYTES '32MB'"
"""Row groups are built in memory, and a row may hold a long prompt."""


class Kept(Protocol):
    """A file of a shelf: its path there, and its size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


class Shelf(Protocol):
    """A place for files; blocking, every call bounded. Raises StoreError when it does not answer."""

    @property
    def place(self) -> str: ...

    def put(self, path: str, content: bytes) -> None: ...

    def upload(self, path: str, file: Path) -> None: ...

    def get(self, path: str) -> bytes | None: ...

    def head(self, path: str) -> Kept | None: ...

    def open(self, found: Any) -> BinaryIO: ...

    def list(self, folder: str) -> Iterable[Kept]: ...

    def delete(self, path: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """Files below `prefix` of `shelf`, looked after every so many seconds, of at most `rows` rows."""

    shelf: Shelf
    prefix: str
    every: float = 900.0
    rows: int = ROWS


@dataclass(slots=True)
class Note:
    """What an archive holds: rows by table and day, of which store, made how, up to which frame of the journal."""

    incarnation: str
    shape: str
    seq: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, indent=1).encode()


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `start` to `end` of a table and a day (UTC)."""

    table: str
    day: str
    number: int
    start: int
    end: int

    @property
    def path(self) -> str:
        """Its name below the prefix."""
        return f"table={self.table}/day={self.day}/part-{self.number:05d}.parquet"


Copy = Callable[[Part, Path], None]
"""Writes the rows of a part into a local file."""


class Archive:
    """Keeps an archive up with a file. One at a time, in one thread; many archives of one store agree.

    Guarantee: what the note counts is there. Failure case: two writers at once, one of them left behind; the one that
    is ahead finds its last files of another size, and writes them again.
    """

    def __init__(self, folder: Path, settings: ArchiveSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._shelf = settings.shelf
        self._shape = f"{schema_digest()}/{settings.rows}"
        self._written: dict[str, int] = {}
        self._stopping = Event()

    @property
    def every(self) -> float:
        """Seconds between two steps."""
        return self._settings.every

    def stop(self) -> None:
        """Let a step that is under way end after its part."""
        self._stopping.set()

    def step(self, file: TraceFile, incarnation: str) -> int:
        """Write what the file has and the archive has not; returns how many parts. StoreError: try again later.

        Nothing is written while the file is behind the archive: it is being made anew from the journal.
        """
        for left in self._folder.glob("archive-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        note = read_note(self._settings) or Note(incarnation, self._shape)
        if note.incarnation != incarnation:
            raise ConfigError(
                f"traces.archive: {self._where(NOTE)} belongs to another store ({note.incarnation}, this is "
                f"{incarnation}): name another prefix, or remove what is there"
            )
        renew = note.shape != self._shape
        try:
            with file.reader() as reader, closing(_copier(self._folder)) as copier:
                seq, counts = _counts(reader)
                if seq < note.seq:
                    return 0
                known = Note(incarnation, self._shape) if renew else note
                due = list(self._due(known, counts))
                written = self._write_all(known, due, partial(copy_part, reader, copier), seq, renew)
        except duckdb.Error as error:
            raise StoreError(f"the archive of traces could not be written: {error}; it goes on by itself") from error
        if renew and not self._stopping.is_set():
            self._clear(known)
        return written

    def _due(self, note: Note, counts: dict[str, dict[str, int]]) -> Iterator[Part]:
        """The parts to write: those with rows that are not counted, and those that somebody else has written over."""
        lost = self._overwritten()
        most = self._settings.rows
        for table, days in sorted(counts.items()):
            for day, count in sorted(days.items()):
                known = note.tables.get(table, {}).get(day, 0)
                for number in range(-(-count // most)):
                    part = Part(table, day, number, number * most, min((number + 1) * most, count))
                    if part.end > known or part.path in lost:
                        yield part

    def _overwritten(self) -> set[str]:
        """Of the files of the last step those that are not as they were written."""
        found = {path: self._shelf.head(self._at(path)) for path in self._written}
        lost = {path for path, kept in found.items() if kept is None or kept.size != self._written[path]}
        self._written = {}
        return lost

    def _write_all(self, note: Note, parts: list[Part], copy: Copy, seq: int, anew: bool) -> int:
        """Write the parts, and the note that counts them; returns how many were written.

        What is made `anew`, in another way, is counted when all of it is there: until then the old note holds.
        """
        for written, part in enumerate(parts):
            if self._stopping.is_set():
                return written
            self._write(part, copy)
            days = note.tables.setdefault(part.table, {})
            days[part.day] = max(days.get(part.day, 0), part.end)
            if not anew and (written + 1) % _NOTED == 0:
                self._put(note)
        note.seq = seq
        if parts:
            self._put(note)
        return len(parts)

    def _put(self, note: Note) -> None:
        self._shelf.put(self._at(NOTE), note.dump())

    def _write(self, part: Part, copy: Copy) -> None:
        with TemporaryDirectory(prefix="archive-", dir=self._folder) as folder:
            target = Path(folder) / "part.parquet"
            copy(part, target)
            self._shelf.upload(self._at(part.path), target)
            self._written[part.path] = target.stat().st_size

    def _clear(self, note: Note) -> None:
        """Remove the files of an archive that was made in another way, when all of it is there anew."""
        most = self._settings.rows
        named = {
            self._at(Part(table, day, number, 0, 0).path)
            for table, days in note.tables.items()
            for day, count in days.items()
            for number in range(-(-count // most))
        }
        for kept in list(self._shelf.list(self._at(""))):
            if kept.path.startswith(self._at("table=")) and kept.path not in named:
                self._shelf.delete(kept.path)

    def _at(self, path: str) -> str:
        return at(self._settings, path)

    def _where(self, path: str) -> str:
        return f"{self._shelf.place.rstrip('/')}/{self._at(path)}"


def at(settings: ArchiveSettings, path: str) -> str:
    """A path of the archive as its shelf knows it."""
    prefix = settings.prefix.strip("/")
    return f"{prefix}/{path}".rstrip("/") if prefix else path


def read_note(settings: ArchiveSettings) -> Note | None:
    """What the archive holds; None when there is none. StoreError when it cannot be read."""
    found = settings.shelf.get(at(settings, NOTE))
    if found is None:
        return None
    try:
        return Note(**json.loads(found))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{settings.shelf.place}/{at(settings, NOTE)} is no note of an archive ({error}): remove it, and all of "
            "it is written anew"
        ) from None


def copy_part(reader: duckdb.DuckDBPyConnection, copier: duckdb.DuckDBPyConnection, part: Part, target: Path) -> None:
    """Write a part as a local Parquet file, some thousand rows in memory at a time."""
    begin = datetime.combine(date.fromisoformat(part.day), datetime.min.time(), UTC)
    rows = reader.sql(
        f"SELECT * FROM {part.table} WHERE time >= TIMESTAMPTZ '{begin.isoformat()}'"
        f" AND time < TIMESTAMPTZ '{(begin + timedelta(days=1)).isoformat()}'"
        f" LIMIT {part.end - part.start} OFFSET {part.start}"
    )
    columns = ", ".join(_cast(name, str(kind)) for name, kind in zip(rows.columns, rows.types, strict=True))
    copier.register("part", readable(rows).to_arrow_reader(_BATCH))
    try:
        name = str(target).replace("'", "''")
        copier.execute(f"COPY (SELECT {columns} FROM part) TO '{name}' ({_FORMAT})")
    finally:
        copier.unregister("part")


def _copier(folder: Path) -> duckdb.DuckDBPyConnection:
    """An instance for files only: the one that analysts' queries share may touch none."""
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / "archive-spill"),
        "threads": 1,
    }
    copier = duckdb.connect(config=config)
    copier.execute(QUIET)
    copier.execute(
        "SET preserve_insertion_order = false"
    )  # row groups by bytes ask for it; one thread keeps it even so
    copier.execute("SET TimeZone = 'UTC'")
    return copier


def _cast(name: str, kind: str) -> str:
    if kind == "VARIANT":
        return f'"{name}"::JSON::VARIANT AS "{name}"'
    return f'"{name}"::JSON AS "{name}"' if kind == "JSON" else f'"{name}"'


def _counts(reader: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, dict[str, int]]]:
    """The newest frame projected, and the rows of each table by day, as of one moment."""
    tables = reader.execute(
        "SELECT table_name FROM duckdb_columns() WHERE column_name = 'time' AND NOT internal"
        " AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE NOT internal)"
    ).fetchall()
    query = " UNION ALL ".join(
        f"SELECT '{table}', CAST(time AS DATE)::VARCHAR, count(*) FROM {table} GROUP BY ALL" for (table,) in tables
    )
    reader.begin()
    try:
        [(seq,)] = reader.execute("SELECT coalesce(max(seq), 0) FROM ingest").fetchall()
        found: dict[str, dict[str, int]] = {}
        for table, day, count in reader.execute(query).fetchall():
            found.setdefault(table, {})[day] = count
        return int(seq), found
    finally:
        reader.rollback()
