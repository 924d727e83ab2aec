"""The ends of a copy in a data folder: a snapshot to read from, and a store that has its name only when it is whole.

The file of a live store is copied in a process of its own, as for a backup, and read from there: no read of the store
itself is long. Knows neither what is copied nor how it is compared.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from retinue.runs.errors import InvalidInput, StoreBusy, StoreError, StoreFull
from retinue.store.backup import FILE, NOTE, snapshot
from retinue.store.copying import BEGUN, DONE, HOSTS, NEWEST, TABLES, Row, Table
from retinue.store.folders import FolderObjects
from retinue.store.leasing import find_dead
from retinue.store.liveness import Owner, boot_id, current_owner, is_alive
from retinue.store.lock import WriterLock
from retinue.store.opening import connect, migrate
from retinue.store.rows import many, one
from retinue.store.sealing import KeyFolder, sync_folder

_DRAFT = f"{FILE}.copying"
_LOCK = "copying.lock"
_SNAPSHOT = "snapshot"
_FOLLOWED = ("journal", "deltas", "dead_letters")


class SqliteEnd:
    """Implements `copying.Source`; `connection` is to a file of which nobody else writes."""

    def __init__(self, folder: Path, connection: apsw.Connection) -> None:
        self.name = f"sqlite:{folder}"
        self.keys = KeyFolder(folder / "keys")
        self._folder = folder
        self._connection = connection

    @property
    def incarnation(self) -> str:
        """See Source."""
        return str(one(self._connection, "SELECT value FROM meta WHERE name = 'incarnation'")[0])

    def alive(self) -> int:
        """See Source. All hosts are of this machine."""
        query = f"SELECT host_id, pid, pid_started, boot_id, beat FROM {HOSTS} WHERE state = 'alive'"
        hosts: list[Any] = many(self._connection, query)
        return len(hosts) - len(find_dead(hosts, boot_id(), None, 0.0))

    def columns(self, table: Table) -> tuple[str, ...]:
        """See End."""
        return tuple(sorted(row[1] for row in many(self._connection, f'PRAGMA table_info("{table.name}")')))

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        """See End."""
        return iter(
            self._connection.execute(f"SELECT {_names(columns)} FROM {table.name} ORDER BY {_names(table.key)}")
        )

    def blobs(self) -> Iterator[Row]:
        """See End. What is being written has another name."""
        for where, folders, names in os.walk(self._folder / "blobs"):
            folders.sort()
            for name in sorted(names):
                if "." not in name:
                    yield name, (Path(where) / name).read_bytes()


class SqliteTarget(SqliteEnd):
    """Implements `copying.Target` over a draft of the store's file."""

    def __init__(self, folder: Path, connection: apsw.Connection) -> None:
        super().__init__(folder, connection)
        self._blobs = FolderObjects(folder / "blobs")
        self.begun = self._note(BEGUN)
        self.done = self._note(DONE)

    def begin(self, incarnation: str, emptied: Sequence[Table]) -> None:
        """See Target. A draft without its mark was made a moment ago."""
        if self.begun is None and (kept := next(self.keys.tenants(), None)) is not None:
            raise InvalidInput(f"{self.keys} has a key of tenant {kept!r} and no store: name a folder without keys")
        with self._connection:
            for table in emptied:
                self._connection.execute(f"DELETE FROM {table.name} WHERE {_kept_notes(table)}")
            self._connection.execute("DELETE FROM meta WHERE name = ?", (DONE,))
            self._connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (BEGUN, incarnation))
        shutil.rmtree(self._folder / "keys", ignore_errors=True)
        self.begun = incarnation

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See Target."""
        places = ", ".join("?" * len(columns))
        with self._connection:
            query = f"INSERT OR IGNORE INTO {table.name} ({_names(columns)}) VALUES ({places})"
            self._connection.executemany(query, rows)

    def put_blobs(self, blobs: Sequence[Row]) -> None:
        """See Target."""
        for address, sealed in blobs:
            path = f"{address[:2]}/{address}"
            if self._blobs.head(path) is None:
                self._blobs.put(path, sealed)

    def finish(self) -> None:
        """See Target. The draft gets the store's name when this end is closed."""
        newest = one(self._connection, NEWEST)[0]
        with self._connection:
            for name in _FOLLOWED if newest else ():
                self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, newest))
            self._connection.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'incarnation'")
            self._connection.execute("UPDATE meta SET name = ? WHERE name = ?", (DONE, BEGUN))
        self.done, self.begun = self.begun, None

    def _note(self, name: str) -> str | None:
        found = many(self._connection, "SELECT value FROM meta WHERE name = ?", (name,))
        return found[0][0] if found else None


@contextmanager
def sqlite_source(folder: Path, scratch: Path | None = None) -> Iterator[SqliteEnd]:
    """The store of a data folder as of now; the snapshot of its file is kept in `scratch` (or there) meanwhile."""
    with _told(folder), _snapshot(folder, scratch or folder) as connection:
        yield SqliteEnd(folder, connection)


@contextmanager
def sqlite_target(folder: Path) -> Iterator[SqliteTarget]:
    """A data folder without a store, or with one that a copy has begun or finished."""
    with _told(folder), _alone(folder):
        file, draft = folder / FILE, folder / _DRAFT
        if file.exists():
            with _snapshot(folder, folder) as connection:
                there = SqliteTarget(folder, connection)
                if there.done is None:
                    raise InvalidInput(f"data folder {folder} has a store: name one that has none")
                draft.unlink(missing_ok=True)
                yield there
            return
        with _opened(draft, folder / f"{_DRAFT}.lock") as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            target = SqliteTarget(folder, connection)
            target.begun, target.done = target.begun or target.done, None  # nobody has opened what has no name
            yield target
            whole = target.done is not None
            connection.execute("PRAGMA journal_mode = DELETE")
        if whole:
            _name(draft, file)


def _name(draft: Path, file: Path) -> None:
    """Let the store be found, unless somebody has made one meanwhile."""
    try:
        os.link(draft, file)
    except FileExistsError:
        raise InvalidInput(
            f"{file} was made while the copy was: remove it when nobody needs it, and copy again"
        ) from None
    sync_folder(file.parent)
    draft.unlink()


@contextmanager
def _snapshot(folder: Path, scratch: Path) -> Iterator[apsw.Connection]:
    """A copy of the store's file, in this version's schema."""
    if not (folder / FILE).is_file():
        raise InvalidInput(f"data folder {folder} has no store: nothing is to be copied")
    for left in scratch.glob(f"{_SNAPSHOT}.*.*"):
        _, pid, started = left.name.split(".", 2)
        if not is_alive(Owner(int(pid), float(started))):
            shutil.rmtree(left)
    draft = scratch / "{}.{}.{}".format(_SNAPSHOT, *current_owner())
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        if (folder / NOTE).is_file():
            shutil.copyfile(folder / FILE, draft / FILE)  # a backup, which nobody has open
        else:
            snapshot(folder, draft)
        with _opened(draft / FILE, draft / "store.lock") as connection:
            yield connection
    finally:
        shutil.rmtree(draft)


@contextmanager
def _opened(path: Path, lock_file: Path) -> Iterator[apsw.Connection]:
    """A file that only this process opens, made or brought to this version's schema."""
    lock = WriterLock(lock_file)
    try:
        migrate(path, lock)
    finally:
        lock.close()
        lock_file.unlink()
    connection = connect(path)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else copies into this folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreBusy(f"another process copies into {folder}: wait until it has ended") from None
        yield
        (folder / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Errors of the database and of the disk as the store's callers know them."""
    try:
        yield
    except apsw.FullError:
        raise StoreFull(f"the disk of {folder} is full: free space and copy again") from None
    except apsw.Error as error:
        raise StoreError(f"the store in {folder} cannot be copied: {error}") from None
    except OSError as error:
        raise StoreError(f"the data folder {folder} cannot be copied: {error}; repair it and copy again") from None


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _kept_notes(table: Table) -> str:
    """What is emptied of a table: of the notes, all that are not the store's own."""
    return f"name NOT IN ('schema', 'incarnation', '{BEGUN}', '{DONE}')" if table == TABLES[0] else "true"
