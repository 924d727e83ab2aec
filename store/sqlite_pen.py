"""The pen of SQLite: one transaction a batch, under the writers' lock.

When an operation fails, all are taken back and applied again, each under a savepoint, so a bad one harms only
itself. If the whole transaction is lost (SQLite rolls back on a full disk), the batch fails as one and nothing of it
was applied. The lock is released whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import apsw

from retinue.runs.errors import RetinueError, SchemaMismatch, StoreBusy, StoreError
from retinue.store import disks
from retinue.store.engine import Job
from retinue.store.lock import WriterLock
from retinue.store.opening import BUSY_MS
from retinue.store.rows import one

_CHECKPOINT = 4_000
"""Pages in the write-ahead log after which the thread copies them into the database."""


class SqlitePen:
    """Implements `engine.Pen`. Any thread may have it, one at a time."""

    def __init__(self, connect: Callable[[], apsw.Connection], lock: WriterLock, schema: int) -> None:
        self._connection = connect()
        self._connection.set_wal_hook(self._note_pages)
        self._pages = 0
        self._patient = True
        self._lock = lock
        self._schema = schema

    @property
    def brisk(self) -> bool:
        """See Pen."""
        return self._pages < _CHECKPOINT

    def commit(self, batch: list[Job], wait: bool) -> bool:
        """See Pen. One transaction."""
        connection = self._connection
        for job in batch:
            job.ready(_translate)
        locked = False
        try:
            locked = self._lock.acquire(wait)
            if not locked or not self._begin(connection, wait):
                return False
            self._check_schema(connection)
            _apply_all(connection, batch)
            connection.execute("COMMIT")
        except Exception as error:  # the batch fails as one: the writer must outlive every fault
            _roll_back(connection)
            translated = _translate(error)
            for job in batch:
                job.error = job.error or translated
        finally:
            if locked:
                self._lock.release()
        return True

    def rest(self) -> None:
        """Checkpoint the write-ahead log. When it fails the log keeps everything, and the next round tries again."""
        if self._pages < _CHECKPOINT:
            return
        with suppress(apsw.Error, OSError):
            self._lock.acquire()
            try:
                self._connection.wal_checkpoint()
                self._pages = 0
            finally:
                self._lock.release()

    def close(self) -> None:
        """See Pen."""
        self._connection.close()

    def _begin(self, connection: apsw.Connection, wait: bool) -> bool:
        if self._patient is not wait:
            connection.set_busy_timeout(BUSY_MS if wait else 0)
            self._patient = wait
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            if wait:
                raise
            return False
        return True

    def _check_schema(self, connection: apsw.Connection) -> None:
        found = one(connection, "PRAGMA user_version")[0]
        if found != self._schema:
            raise SchemaMismatch(
                f"the store has schema {found} and this process writes schema {self._schema}: "
                "restart it with the version of Retinue that migrated the store"
            )

    def _note_pages(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back while an operation ran."""


def _apply_all(connection: apsw.Connection, batch: list[Job]) -> None:
    """Savepoints cost a third of an append, and members are hardly ever bad: they come when one was."""
    try:
        for job in batch:
            if job.error is None:
                job.result = job.operation(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise _TransactionLost from error
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            _apply(connection, job)


def _apply(connection: apsw.Connection, job: Job) -> None:
    """Apply one member so that it harms only itself."""
    if job.error is not None:
        return
    connection.execute("SAVEPOINT member")
    try:
        job.result = job.operation(connection)
    except Exception as error:  # kept as the member's own result; others go on
        if not connection.in_transaction:
            raise _TransactionLost from error
        connection.execute("ROLLBACK TO member")
        job.error = _translate(error)
    connection.execute("RELEASE member")


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _translate(error: BaseException) -> BaseException:
    cause = error.__cause__ if isinstance(error, _TransactionLost) and error.__cause__ else error
    if isinstance(cause, RetinueError):
        return cause
    if isinstance(cause, apsw.FullError) or disks.is_full(cause):
        return disks.full()
    if isinstance(cause, apsw.BusyError):
        return StoreBusy("another process kept the store locked for too long: end what else has store.db open")
    if isinstance(cause, apsw.IOError | OSError):
        return disks.failed(cause)
    if isinstance(cause, apsw.Error):
        return StoreError(f"the store refused an operation: {cause}")
    return cause
