"""What a store stands on: a connection, a pen that commits, and the few answers that depend on the database.

The operations of the store are functions of a `Connection` and know no database; an `Engine` is SQLite or
PostgreSQL. Statements are the same by name, and a database that says one otherwise has a file of its own for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from retinue.runs.ownership import HostInfo
from retinue.store.encoding import EncodedAppend

T = TypeVar("T")
Row = tuple[Any, ...]


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Executes statements with `?` or `:name` for values. Inside of an operation it is in a transaction."""

    def execute(self, statement: str, values: Any = (), /) -> Cursor:
        """The rows that a statement gives."""
        ...

    def executemany(self, statement: str, rows: Iterable[Any], /) -> object:
        """A statement for each of the rows; it gives none."""
        ...


@dataclass(slots=True)
class Job:
    """An operation that waits for its transaction. `append`: what it applies, when it is an append to a journal."""

    operation: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    prepare: Callable[[], None] | None = None
    brief: bool = False
    silent: bool = False
    append: EncodedAppend | None = None
    result: Any = None
    error: BaseException | None = None

    def ready(self, translate: Callable[[BaseException], BaseException]) -> None:
        """Do what comes before the transaction. When it fails, only this job has an error, as `translate` names it."""
        try:
            if self.prepare is not None:
                self.prepare()
        except Exception as error:  # the member fails, the thread lives
            self.error = translate(error)


class Pen(Protocol):
    """Commits batches on one connection. One thread at a time has it; it outlives every fault."""

    @property
    def brisk(self) -> bool:
        """Whether an event loop may commit a few brief operations itself, by what is known now."""
        ...

    def commit(self, batch: list[Job], wait: bool) -> bool:
        """Make the batch durable; each job gets its result or its error. Raises nothing.

        False, and nothing is done, when somebody else writes and this is not to wait.
        """
        ...

    def rest(self) -> None:
        """Nothing is queued: time for duties."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Engine(Protocol):
    """A database as the store needs it, opened by one process."""

    incarnation: str
    pen: Pen
    moment: float
    """Seconds for which what `glance` gave may be believed: as long as a host may take to hear any other news."""

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Read on a connection of its own, off the loop, within a bound. StoreBusy, StoreError."""
        ...

    async def glance(self, read: Callable[[Connection], T]) -> T:
        """A read of a few rows, as cheap as the database lets it be."""
        ...

    def clock(self, connection: Connection) -> float:
        """Seconds on the clock by which leases are judged: the same for all processes of the store."""
        ...

    async def judge(self, host: HostInfo, own_beat: float | None, lease_seconds: float) -> list[str]:
        """The hosts that may lose their runs; `own_beat` is the judge's own before the newest, None at first."""
        ...

    async def has_queued(self, pool: str) -> bool:
        """Whether a lease could find something; asked often, so as cheap as can be."""
        ...

    async def has_news(self, host_id: str) -> bool:
        """Whether any run of this host may have news it has not seen; asked often."""
        ...

    def version(self) -> int:
        """A number that changes when any process has committed what others may wait for; some microseconds."""
        ...

    def close(self) -> None:
        """Let go of everything but the pen. Blocking."""
        ...
