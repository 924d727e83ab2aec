"""A connection to PostgreSQL as the store's operations use one. Knows no operation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen

from retinue.store.postgres.dialect import translate

_COLUMNS = "unnest("


class Patient(psycopg.Connection[Any]):
    """A connection that waits `longest` (s) for an answer, and is closed when there was none: OperationalError.

    What limits a statement at the server is of no use when it is the server that stands still.
    """

    longest = 30.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See psycopg."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval, self.longest)
        except psycopg.OperationalError:
            if time.monotonic() - began >= self.longest:
                self.pgconn.finish()
            raise


class Rows:
    """The rows of a statement; none where it gives none. Inside a pipeline they come when they are asked for."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def fetchone(self) -> Any:
        """The next row, or None."""
        return self._cursor.fetchone() if self._gives() else None

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return self._cursor.fetchall() if self._gives() else []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def _gives(self) -> bool:
        return self._cursor.description is not None


class PostgresConnection:
    """Implements `engine.Connection`. Outside of `BEGIN` each statement is a transaction of its own."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, statement: str, values: Any = (), /) -> Rows:
        """See Connection."""
        return self.run(translate(statement), values)

    def run(self, statement: str, values: Any = ()) -> Rows:
        """Execute what is in PostgreSQL's words already."""
        cursor = self.raw.cursor(binary=True)
        cursor.execute(statement, values)
        return Rows(cursor)

    def executemany(self, statement: str, rows: Iterable[Any], /) -> None:
        """See Connection. One statement, where it takes columns instead of a row."""
        own = translate(statement)
        if _COLUMNS in own:
            columns = [list(column) for column in zip(*rows, strict=True)]
            if columns:
                self.raw.execute(own, columns)
        else:
            self.raw.cursor().executemany(own, rows)

    @property
    def busy(self) -> bool:
        """Whether a transaction is open."""
        return self.raw.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def pipelined(self) -> AbstractContextManager[Any]:
        """Statements in this block go out together: one way to the server and back."""
        return self.raw.pipeline()
