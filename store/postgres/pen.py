"""The pen of PostgreSQL: appends share a transaction and a few statements, brief operations share one, others do not.

A transaction that the server gave up (a deadlock, an end of the connection before COMMIT) is made again. When the
connection ends while COMMIT is under way nobody knows what became of it: appends are made again, since a store that
holds them already says so; who asked for anything else is told to look. Every wait has a bound.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from retinue.runs.errors import RetinueError, SchemaMismatch, StoreBusy, StoreError
from retinue.store import disks
from retinue.store.engine import Job
from retinue.store.postgres.bulk import Bulk
from retinue.store.postgres.connection import PostgresConnection

Connect = Callable[[], psycopg.Connection[Any]]
_BUSY = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)
_AGAIN = (*_BUSY, errors.UniqueViolation)
"""What another transaction caused: after it is gone the same operation goes through, or says why not."""
_TRIES = 5
_WRONG_SCHEMA = "RT001"


_LOST = (
    "the connection to the store ended while an operation was committed ({}): look whether it was done before you "
    "repeat it"
)


class _Unknown(StoreError):
    """Nobody knows what became of a commit."""


class PostgresPen:
    """Implements `engine.Pen`. `announce` is told of a commit that others may wait for."""

    brisk = False

    def __init__(self, connect: Connect, schema: int, patience: float, announce: Callable[[], None]) -> None:
        self._connect = connect
        self._begin = f"SELECT begin_write({schema})"
        self._patience = patience
        self._announce = announce
        self._connection: PostgresConnection | None = None

    def commit(self, batch: list[Job], wait: bool) -> bool:
        """See Pen."""
        for job in batch:
            job.ready(translate)
        ready = [job for job in batch if job.error is None]
        self._commit_appends([job for job in ready if job.append is not None])
        self._commit_others([job for job in ready if job.append is None and job.brief])
        for job in ready:
            if job.append is None and not job.brief:
                self._commit_others([job])
        return True

    def rest(self) -> None:
        """See Pen. The server has duties of its own."""

    def close(self) -> None:
        """See Pen."""
        self._let_go()

    def _commit_appends(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        bulk = Bulk(jobs)

        def apply(connection: PostgresConnection) -> None:
            with connection.pipelined():
                connection.run("BEGIN")
                connection.run(self._begin)
                bulk.begin(connection)
                if bulk.plain:
                    connection.run("COMMIT")
            bulk.finish(connection)

        error = self._transact(apply, repeatable=True)
        if error is not None:
            self._one_by_one(jobs, error, self._commit_appends)
        elif bulk.heard:
            self._announce()

    def _commit_others(self, jobs: list[Job]) -> None:
        if not jobs:
            return

        def apply(connection: PostgresConnection) -> None:
            with connection.pipelined():
                connection.run("BEGIN")
                connection.run(self._begin)
            for job in jobs:
                job.result = job.operation(connection)

        error = self._transact(apply, repeatable=False)
        if error is not None:
            self._one_by_one(jobs, error, self._commit_others)
        elif not all(job.silent for job in jobs):
            self._announce()

    def _one_by_one(self, jobs: list[Job], error: BaseException, commit: Callable[[list[Job]], None]) -> None:
        """A bad member harms only itself; what is the server's fault, or nobody knows, is everybody's."""
        if len(jobs) == 1 or isinstance(error, _Unknown) or _of_the_server(error):
            for job in jobs:
                job.error = translate(error)
            return
        for job in jobs:
            commit([job])

    def _transact(self, apply: Callable[[PostgresConnection], None], repeatable: bool) -> BaseException | None:
        """Apply and commit, again where that can help; returns why it could not be done."""
        until = time.monotonic() + self._patience
        for tries in count(1):
            committing = False
            try:
                connection = self._connected()
                apply(connection)
                committing = True
                if connection.busy:
                    connection.run("COMMIT")
                return None
            except Exception as error:  # each job has to hear of it, and the thread lives
                lost = self._roll_back()
                if lost and committing and not repeatable:
                    return _Unknown(_LOST.format(_said(error)))
                again = time.monotonic() < until if lost else isinstance(error, _AGAIN) and tries < _TRIES
                if not again:
                    return error
                time.sleep(random.uniform(0.005, 0.05) * min(tries, 20))
        raise AssertionError("tries do not end by themselves")

    def _connected(self) -> PostgresConnection:
        if self._connection is None:
            self._connection = PostgresConnection(self._connect())
        return self._connection

    def _roll_back(self) -> bool:
        """Take the transaction back; True when the connection is lost, and it with it."""
        connection = self._connection
        if connection is None:
            return True
        try:
            if connection.busy:
                connection.run("ROLLBACK")
        except psycopg.Error:
            self._let_go()
            return True
        if connection.raw.closed:
            self._let_go()
        return self._connection is None

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.raw.close()
            self._connection = None


def translate(error: BaseException) -> BaseException:
    """An error of the database or of the disk as the store's callers know it."""
    if isinstance(error, RetinueError):
        return error
    if isinstance(error, errors.DiskFull) or disks.is_full(error):
        return disks.full()
    if isinstance(error, errors.RaiseException | psycopg.DatabaseError) and error.sqlstate == _WRONG_SCHEMA:
        return SchemaMismatch(str(error.diag.message_primary))
    if isinstance(error, (*_BUSY, errors.QueryCanceled)):
        return StoreBusy(f"the store is busy: {_said(error)}; nothing was acknowledged; try again")
    if isinstance(error, psycopg.OperationalError | PoolTimeout):
        return StoreError(f"the database of the store cannot be reached: {_said(error)}; nothing was acknowledged")
    if isinstance(error, psycopg.Error):
        return StoreError(f"the store refused an operation: {_said(error)}")
    if isinstance(error, OSError):
        return disks.failed(error)
    return error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _of_the_server(error: BaseException) -> bool:
    """Whether no member of the batch is to blame."""
    return isinstance(error, psycopg.OperationalError) and not isinstance(error, _AGAIN)
