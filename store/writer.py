"""Group commit: what the coroutines of a process write is gathered into one transaction.

Below it: a SQLite connection and the writers' lock. Above it: operations, functions of the connection.
Who has the turn takes what is queued, in order, and commits it: the writer's thread, or the event loop itself
when that is sure to be short, since a hand-over between threads costs as much as a commit. When an operation
fails, all are taken back and applied again, each under a savepoint, so a bad one harms only itself. If the whole
transaction is lost (SQLite rolls back on a full disk), the batch fails as one and nothing of it was applied. The
thread never dies of an operation and the lock is released whatever happens.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
import time
from collections import defaultdict, deque
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
_FEW = 16
"""Brief operations that the loop commits itself; more are worth a hand-over to the thread."""
_QUICK = 0.002
"""Seconds: when the last commit took longer, the loop leaves the next one to the thread."""
_CHECKPOINT = 4_000
"""Pages in the write-ahead log after which the thread copies them into the database."""
_BUSY_MS = 20_000
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class _Job:
    operation: Operation
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    prepare: Callable[[], None] | None
    brief: bool
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the writing connection. `submit` may be called from any event loop; results come back to it."""

    def __init__(self, connect: Callable[[], apsw.Connection], lock: WriterLock | None, schema: int) -> None:
        self._queue: deque[_Job] = deque()
        self._turn = threading.Lock()
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._round: asyncio.AbstractEventLoop | None = None
        self._brought = 0
        self._alone = False
        self._connection = connect()
        self._connection.set_wal_hook(self._note_pages)
        self._pages = 0
        self._quick = True
        self._patient = True
        self._lock = lock
        self._schema = schema
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="retinue-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        operation: Callable[[apsw.Connection], T],
        prepare: Callable[[], None] | None = None,
        *,
        brief: bool = False,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future resolves when its transaction is on disk. Order is kept.

        An operation may be applied a second time, on what its first time saw: it does nothing but write rows.
        `prepare` runs in the writer's thread before the transaction begins: files that rows will name.
        A `brief` operation touches a few rows: the loop may commit it itself, when its round is over and has
        brought what can share the transaction; at once, when the round before has brought nothing to share.
        """
        if self._closed:
            raise StoreError("the store is closed; open it again to write")
        loop = host_loop()
        job = _Job(operation, loop.create_future(), loop, prepare, brief and prepare is None)
        self._queue.append(job)
        if not job.brief:
            self._bell.put(True)
            return job.future
        self._brought += 1
        if self._round is not loop:
            self._round = loop
            loop.call_soon(self._end_round)
            if self._alone:
                self._commit_here()
        return job.future

    def close(self) -> None:
        """Finish what is queued, then stop the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._bell.put(False)
            self._thread.join()

    def _serve(self) -> None:
        """The thread: commit whenever the bell rings, until it rings for the end."""
        try:
            going = True
            while going:
                going = self._bell.get()
                with self._turn:
                    while batch := self._gather():
                        self._commit(batch, wait=True)
                        _hand_back(batch)
                    if self._pages >= _CHECKPOINT:
                        self._copy_pages()
        finally:
            self._connection.close()

    def _end_round(self) -> None:
        """The loop: commit what its round has brought, or ring for the thread."""
        self._round = None
        self._alone = self._brought <= 1
        self._brought = 0
        self._commit_here()
        if self._queue:
            self._bell.put(True)

    def _commit_here(self) -> None:
        """Commit on the loop's thread what is queued, if that is short and nobody has to be waited for."""
        short = self._quick and 0 < len(self._queue) <= _FEW and self._pages < _CHECKPOINT
        if not short or not self._turn.acquire(blocking=False):
            return
        try:
            batch = self._gather(brief=True)
            if batch and not self._commit(batch, wait=False):
                self._queue.extendleft(reversed(batch))
                return
        finally:
            self._turn.release()
        _hand_back(batch, host_loop())

    def _gather(self, brief: bool = False) -> list[_Job]:
        """Take from the front of the queue; the caller has the turn."""
        batch: list[_Job] = []
        while self._queue and len(batch) < _MOST and (not brief or self._queue[0].brief):
            batch.append(self._queue.popleft())
        return batch

    def _commit(self, batch: list[_Job], wait: bool) -> bool:
        """One transaction. False, and nothing is done, when another process writes and this is not to wait."""
        connection, started = self._connection, time.perf_counter()
        for job in batch:
            _prepare(job)
        locked = False
        try:
            if self._lock is not None:
                locked = self._lock.acquire(wait)
                if not locked:
                    return False
            if not self._begin(connection, wait):
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
            if self._lock is not None and locked:
                self._lock.release()
        self._quick = time.perf_counter() - started < _QUICK
        return True

    def _begin(self, connection: apsw.Connection, wait: bool) -> bool:
        if self._patient is not wait:
            connection.set_busy_timeout(_BUSY_MS if wait else 0)
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

    def _copy_pages(self) -> None:
        """Checkpoint the write-ahead log. When it fails the log keeps everything, and the next round tries again."""
        with suppress(apsw.Error, OSError):
            if self._lock is not None:
                self._lock.acquire()
            try:
                self._connection.wal_checkpoint()
                self._pages = 0
            finally:
                if self._lock is not None:
                    self._lock.release()


def _prepare(job: _Job) -> None:
    try:
        if job.prepare is not None:
            job.prepare()
    except Exception as error:  # the member fails, the thread lives
        job.error = _translate(error)


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back while an operation ran."""


def _apply_all(connection: apsw.Connection, batch: list[_Job]) -> None:
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


def _apply(connection: apsw.Connection, job: _Job) -> None:
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
    if isinstance(cause, apsw.FullError) or (isinstance(cause, OSError) and cause.errno in _NO_ROOM):
        return StoreFull("the disk of the store is full: nothing was written; free space and resume")
    if isinstance(cause, apsw.BusyError):
        return StoreBusy("another process kept the store locked for too long: end what else has store.db open")
    if isinstance(cause, apsw.IOError | OSError):
        return StoreError(f"the disk of the store failed: {cause}; nothing was acknowledged; repair it and resume")
    if isinstance(cause, apsw.Error):
        return StoreError(f"the store refused an operation: {cause}")
    return cause


def _hand_back(batch: list[_Job], here: asyncio.AbstractEventLoop | None = None) -> None:
    """Give results to the loops that wait for them; `here` is the loop of this thread, if it is one's."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in batch:
        by_loop[job.loop].append(job)
    for loop, jobs in by_loop.items():
        if loop is here:
            _resolve(jobs)
            continue
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
