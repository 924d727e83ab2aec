"""A store copied into another, table by table, as of one moment of the source, whatever database either is.

Owns what is copied and what is left out, in what state runs arrive, and the comparison at the end. A copy that was
broken off is taken up again, and nobody opens its target before it is whole. Knows no database: `store.sqlite_copying`
and `store.postgres.copying` have the two ends.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from retinue.runs.contracts import Status
from retinue.runs.errors import InvalidInput, StoreBusy, StoreError
from retinue.store.sealing import Keys

Row = tuple[Any, ...]
_PAGE_ROWS = 500
_PAGE_BYTES = 4_000_000
_BITS = 256
_ENDED = frozenset(status.value for status in Status if status.terminal)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of every store. `lasting`: its rows are never changed, so those that are there need no second writing."""

    name: str
    key: tuple[str, ...] = ("num",)
    lasting: bool = False


TABLES = (
    Table("meta", ("name",)),
    Table("runs"),
    Table("groups"),
    Table("journal", ("seq",), lasting=True),
    Table("contents", ("hash",), lasting=True),
    Table("requests"),
    Table("events", lasting=True),
    Table("capability_sessions"),
    Table("sandboxes"),
    Table("snapshot_uses", ("run", "snapshot_id")),
    Table("snapshot_pins", ("tenant_id", "name")),
    Table("dead_letters"),
    Table("deltas", ("seq",), lasting=True),
    Table("buckets", ("scope", "name")),
    Table("breakers", ("name",)),
    Table("alerts"),
    Table("accounts", ("tenant_id", "name")),
    Table("rollouts"),
    Table("memories"),
    Table("memory_terms", ("term", "memory")),
)
"""What is copied, beside keys and blobs. Hosts are not: who owned a run there does not own it here."""
HOSTS = "hosts"
BEGUN, DONE = "copying", "copied"
"""Notes of a target: the incarnation of the store that it is being filled from, or was."""
OWN = frozenset({"schema", "incarnation", "alerts_turn", BEGUN, DONE})
"""Notes in `meta` that are a store's own, as are those of its queues (`lines:...`)."""
NEWEST = (
    "SELECT max(newest) FROM (SELECT max(seq) AS newest FROM journal UNION ALL SELECT max(seq) FROM deltas"
    " UNION ALL SELECT max(num) FROM dead_letters UNION ALL SELECT max(CAST(value AS bigint)) FROM meta"
    " WHERE name IN ('alerts_failed', 'alerts_refused')) AS numbers"
)
"""The greatest number that a follower of the journal, of deltas or of refusals may have seen."""


class End(Protocol):
    """A store as a copy reads it: as of one moment. Blocking. Raises StoreError and its kinds."""

    @property
    def name(self) -> str:
        """For people: no password is in it."""
        ...

    @property
    def keys(self) -> Keys:
        """The tenants' keys, as they are now."""
        ...

    def columns(self, table: Table) -> tuple[str, ...]:
        """The columns of a table, sorted by name."""
        ...

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, in the order of the key; few are in memory at once."""
        ...

    def blobs(self) -> Iterator[Row]:
        """Every blob that is kept with the store itself: (address, sealed bytes)."""
        ...


class Source(End, Protocol):
    """What is copied from."""

    @property
    def incarnation(self) -> str:
        """Which store it is."""
        ...

    def alive(self) -> int:
        """How many hosts use the store and are not proven dead."""
        ...


class Target(End, Protocol):
    """What is copied into. No other copy into it is under way."""

    begun: str | None
    """The incarnation that a copy was begun of which has not ended; None when none was."""
    done: str | None
    """The incarnation that it is a finished copy of; None when it is none."""

    def begin(self, incarnation: str, emptied: Sequence[Table]) -> None:
        """Note whose copy it is, so that nobody else opens it, and empty these tables, the keys and the notes.

        InvalidInput when it holds what no copy has begun.
        """
        ...

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows; those whose key is there stay as they are."""
        ...

    def put_blobs(self, blobs: Sequence[Row]) -> None:
        """Add blobs; those that are there stay."""
        ...

    def finish(self) -> None:
        """Let numbers go on above all that are there, make it an incarnation of its own and let it be opened."""
        ...


@dataclass(slots=True)
class Part:
    """A table, the keys or the blobs: how many rows, and a sum of their hashes that no order changes."""

    name: str
    rows: int = 0
    total: int = 0

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, taken in."""
        for row in rows:
            self.rows += 1
            # Version 2 has no references: equal rows have equal bytes. They are compared within this process only.
            self.total += int.from_bytes(blake2b(marshal.dumps(row, 2), digest_size=_BITS // 8).digest(), "big")
            yield row

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return f"{self.total % (1 << _BITS):064x}"


@dataclass(slots=True)
class Copied:
    """What a copy came to. `again`: the target was whole already and is the same still."""

    source: str
    target: str
    again: bool = False
    held: int = 0
    parts: list[Part] = field(default_factory=list)


def copy(source: Source, target: Target, *, keep_running: bool = False, keys: bool = True) -> Copied:
    """Copy all of a store, or what is left of it to copy; then compare every table on both sides.

    What has not ended is held in the target until a person lets it go on, unless `keep_running`: then nobody may
    be using the source. InvalidInput when the target holds anything else, StoreBusy, StoreError naming the table that
    is not the same.
    """
    if keep_running and (alive := source.alive()):
        raise StoreBusy(
            f"hosts use {source.name} ({alive} alive): stop all of them first, or copy without --keep-running"
        )
    if (target.done or target.begun) not in (None, source.incarnation):
        raise InvalidInput(f"{target.name} is a copy of another store: name an empty one")
    done = Copied(source.name, target.name, again=target.done is not None)
    if not done.again:
        target.begin(source.incarnation, [table for table in TABLES if not table.lasting])
    for table in TABLES:
        done.parts.append(_copy_table(source, target, table, _Arrival(done, keep_running)))
    if keys:
        done.parts.append(_copy_keys(source, target, done))
    done.parts.append(_copy_blobs(source, target, done))
    if not done.again:
        target.finish()
    return done


@dataclass(frozen=True, slots=True)
class _Arrival:
    """In what state rows arrive."""

    done: Copied
    keep_running: bool

    def of(self, table: Table, columns: Sequence[str], rows: Iterable[Row]) -> Iterable[Row]:
        if table.name == "meta":
            return _notes(columns, rows)
        return self._runs(columns, rows) if table.name == "runs" else rows

    def _runs(self, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[Row]:
        """Owned by nobody, and what has not ended is held."""
        status, host, held = (columns.index(name) for name in ("status", "host", "held"))
        for row in rows:
            values = list(row)
            values[host] = None
            if values[status] == Status.in_progress:
                values[status] = Status.queued.value
            if values[status] not in _ENDED:
                values[held] = values[held] if self.keep_running else 1
                self.done.held += values[held]
            yield tuple(values)


def _notes(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[Row]:
    name = columns.index("name")
    return (row for row in rows if row[name] not in OWN and not row[name].startswith("lines:"))


def _copy_table(source: Source, target: Target, table: Table, arrival: _Arrival) -> Part:
    columns = source.columns(table)
    if target.columns(table) != columns:
        raise StoreError(f"table {table.name} has other columns in {target.name} than in {source.name}: update both")
    given, found = Part(table.name), Part(table.name)
    arriving = given.through(arrival.of(table, columns, source.rows(table, columns)))
    for page in _pages(arriving):
        if not arrival.done.again:
            target.insert(table, columns, page)
    there = target.rows(table, columns)
    _exhaust(found.through(_notes(columns, there) if table.name == "meta" else there))
    return _same(given, found, arrival.done)


def _copy_keys(source: Source, target: Target, done: Copied) -> Part:
    given, found = Part("keys"), Part("keys")
    for tenant_id, key, erased in given.through(_keys_of(source)):
        if erased and not done.again:
            target.keys.remember(tenant_id)
        if key and not done.again:
            target.keys.keep(tenant_id, key)
    _exhaust(found.through(_keys_of(target)))
    return _same(given, found, done)


def _keys_of(end: End) -> Iterator[Row]:
    """Of each tenant the key, empty when it was destroyed, and whether one ever was."""
    for tenant_id in end.keys.tenants():
        yield tenant_id, end.keys.load(tenant_id) or b"", end.keys.erased(tenant_id)


def _copy_blobs(source: Source, target: Target, done: Copied) -> Part:
    given, found = Part("blobs"), Part("blobs")
    for page in _pages(given.through(source.blobs())):
        if not done.again:
            target.put_blobs(page)
    _exhaust(found.through(target.blobs()))
    return _same(given, found, done)


def _same(given: Part, found: Part, done: Copied) -> Part:
    if (given.rows, given.digest) == (found.rows, found.digest):
        return given
    counts = f"{given.rows:,} rows in {done.source} and {found.rows:,} in {done.target}"
    if done.again:
        raise InvalidInput(
            f"{done.target} is a finished copy, and one of the two has gone on since: table {given.name} has {counts}, "
            "which are not the same; name an empty store"
        )
    raise StoreError(
        f"table {given.name} is not the same after copying: {counts}; the target stays closed: remove what is in it "
        "and copy again"
    )


def _pages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """So few rows and bytes at once that memory has a bound, but for a single row that is larger."""
    page: list[Row] = []
    size = 0
    for row in rows:
        page.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(page) >= _PAGE_ROWS or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def _exhaust(rows: Iterable[Row]) -> None:
    for _ in rows:
        continue
