"""Group commit: one thread per process that gathers what its coroutines write into one transaction.

Below it: a SQLite connection and the writers' lock. Above it: operations, functions of the connection.
Each operation runs under a savepoint, so a bad one harms only itself. If the whole transaction is lost
(SQLite rolls back on a full disk), the batch fails as one and nothing of it was applied. The thread never
dies of an operation and the lock is released whatever happens.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from retinue.runs.errors import RetinueError, SchemaMismatch, StoreBusy, StoreError, StoreFull
from retinue.runs.hostloop import host_loop
from retinue.store.lock import WriterLock
from retinue.store.rows import one

T = TypeVar("T")
Operation = Callable[[apsw.Connection], Any]
_MOST = 2_000
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class _Job:
    operation: Operation
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    prepare: Callable[[], None] | None = None
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the writing connection. `submit` may be called from any event loop; results come back to it."""

    def __init__(self, connect: Callable[[], apsw.Connection], lock: WriterLock | None, schema: int) -> None:
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection = connect()
        self._lock = lock
        self._schema = schema
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="retinue-writer", daemon=True)
        self._thread.start()

    def submit(
        self, operation: Callable[[apsw.Connection], T], prepare: Callable[[], None] | None = None
    ) -> asyncio.Future[T]:
        """Queue an operation; the future resolves when its transaction is on disk. Order is kept.

        `prepare` runs in the writer's thread before the transaction begins: files that rows will name.
        """
        if self._closed:
            raise StoreError("the store is closed; open it again to write")
        loop = host_loop()
        job = _Job(operation, loop.create_future(), loop, prepare)
        self._queue.put(job)
        return job.future

    def close(self) -> None:
        """Finish what is queued, then stop the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _serve(self) -> None:
        connection = self._connection
        try:
            while (batch := self._gather()) is not None:
                self._commit(connection, batch)
                _hand_back(batch)
        finally:
            connection.close()

    def _gather(self) -> list[_Job] | None:
        job = self._queue.get()
        if job is None:
            return None
        batch = [job]
        while len(batch) < _MOST:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)
                break
            batch.append(job)
        return batch

    def _commit(self, connection: apsw.Connection, batch: list[_Job]) -> None:
        for job in batch:
            _prepare(job)
        locked = False
        try:
            if self._lock is not None:
                self._lock.acquire()
                locked = True
            connection.execute("BEGIN IMMEDIATE")
            self._check_schema(connection)
            for job in batch:
                _apply(connection, job)
            connection.execute("COMMIT")
        except Exception as error:  # the batch fails as one: the writer must outlive every fault
            _roll_back(connection)
            translated = _translate(error)
            for job in batch:
                job.error = job.error or translated
        finally:
            if self._lock is not None and locked:
                self._lock.release()

    def _check_schema(self, connection: apsw.Connection) -> None:
        found = one(connection, "PRAGMA user_version")[0]
        if found != self._schema:
            raise SchemaMismatch(
                f"the store has schema {found} and this process writes schema {self._schema}: "
                "restart it with the version of Retinue that migrated the store"
            )


def _prepare(job: _Job) -> None:
    try:
        if job.prepare is not None:
            job.prepare()
    except Exception as error:  # the member fails, the thread lives
        job.error = _translate(error)


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back while an operation ran."""


def _apply(connection: apsw.Connection, job: _Job) -> None:
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
    if isinstance(cause, apsw.FullError) or (isinstance(cause, OSError) and cause.errno in _NO_ROOM):
        return StoreFull("the disk of the store is full: nothing was written; free space and resume")
    if isinstance(cause, apsw.BusyError):
        return StoreBusy("another process kept the store locked for too long; `retinue doctor` names it")
    if isinstance(cause, apsw.IOError | OSError):
        return StoreError(f"the disk of the store failed: {cause}; nothing was acknowledged; repair it and resume")
    if isinstance(cause, apsw.Error):
        return StoreError(f"the store refused an operation: {cause}")
    return cause


def _hand_back(batch: list[_Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in batch:
        by_loop[job.loop].append(job)
    for loop, jobs in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.cancelled():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
