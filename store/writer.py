"""Group commit: what the coroutines of a process write is gathered and committed together.

Below it: a pen, which has the writing connection. Above it: operations, functions of the connection. Who has the
turn takes what is queued, in order, and has it committed: the writer's thread, or the event loop itself when that
is sure to be short, since a hand-over between threads costs as much as a commit. The thread never dies of an
operation.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from retinue.runs.errors import StoreError
from retinue.runs.hostloop import host_loop
from retinue.store.encoding import EncodedAppend
from retinue.store.engine import Connection, Job, Pen

T = TypeVar("T")
_MOST = 2_000
_FEW = 16
"""Brief operations that the loop commits itself; more are worth a hand-over to the thread."""
_QUICK = 0.002
"""Seconds: when the last commit took longer, the loop leaves the next one to the thread."""


class Writer:
    """Owns the pen. `submit` may be called from any event loop; results come back to it."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._queue: deque[Job] = deque()
        self._turn = threading.Lock()
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._round: asyncio.AbstractEventLoop | None = None
        self._brought = 0
        self._alone = False
        self._quick = True
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="retinue-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        operation: Callable[[Connection], T],
        prepare: Callable[[], None] | None = None,
        *,
        brief: bool = False,
        silent: bool = False,
        append: EncodedAppend | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future resolves when its transaction is on disk. Order is kept.

        An operation may be applied a second time, on what its first time saw: it does nothing but write rows.
        `prepare` runs in the writer's thread before the transaction begins: files that rows will name.
        A `brief` operation touches a few rows: the loop may commit it itself, when its round is over and has
        brought what can share the transaction; at once, when the round before has brought nothing to share.
        `silent`: nobody waits for what it does. `append`: what the operation applies, for a pen that applies many in
        one statement.
        """
        if self._closed:
            raise StoreError("the store is closed; open it again to write")
        loop = host_loop()
        job = Job(operation, loop.create_future(), loop, prepare, brief and prepare is None, silent, append)
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
                    self._pen.rest()
        finally:
            self._pen.close()

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
        short = self._quick and 0 < len(self._queue) <= _FEW and self._pen.brisk
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

    def _gather(self, brief: bool = False) -> list[Job]:
        """Take from the front of the queue; the caller has the turn."""
        batch: list[Job] = []
        while self._queue and len(batch) < _MOST and (not brief or self._queue[0].brief):
            batch.append(self._queue.popleft())
        return batch

    def _commit(self, batch: list[Job], wait: bool) -> bool:
        started = time.perf_counter()
        done = self._pen.commit(batch, wait)
        self._quick = time.perf_counter() - started < _QUICK
        return done


def _hand_back(batch: list[Job], here: asyncio.AbstractEventLoop | None = None) -> None:
    """Give results to the loops that wait for them; `here` is the loop of this thread, if it is one's."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = defaultdict(list)
    for job in batch:
        by_loop[job.loop].append(job)
    for loop, jobs in by_loop.items():
        if loop is here:
            _resolve(jobs)
            continue
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.cancelled():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
