"""Calls in progress: bounded in time whatever the called code does.

Owns the threads for blocking functions and the count of calls that were abandoned. A thread cannot be
stopped, so an overdue blocking call is abandoned: its thread stays until the function returns, its place is
given to the next call, and a tool with too many abandoned calls is refused. Knows no capability's meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import queue
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from retinue.runs.capabilities import REFUSED
from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.hostloop import host_loop
from retinue.sessions.catalog import Invocation

MAX_THREADS = 32
"""Blocking calls in progress at once; further ones wait within their own timeout."""

MAX_ABANDONED = 8
"""Abandoned calls of one tool that may still run before its next call is refused."""

GRACE = 1.0
"""Seconds that a cancelled coroutine has to end."""

IDLE = 30.0
"""Seconds after which an idle thread ends."""

MAX_MESSAGE = 500
"""Characters kept of a tool's own error message."""


class Calls:
    """The calls of one process. Belongs to one event loop."""

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._workers = _Workers()
        self._slots = asyncio.Semaphore(max_threads)
        self._abandoned: Counter[str] = Counter()

    async def make(self, name: str, invocation: Invocation, seconds: float) -> object:
        """The outcome of a call within `seconds`.

        Raises TransientError (`timeout`, `saturated`), PermanentError (`raised`) or what the tool raised of
        these two; cancellation passes through.
        """
        if self._abandoned[name] >= MAX_ABANDONED:
            raise TransientError(
                f"tool {name!r} was not called: {self._abandoned[name]} abandoned calls of it still run. "
                "Give its own waits a bound.",
                code="saturated",
            )
        if invocation.blocking:
            return await self._make_blocking(name, invocation, seconds)
        return await self._make_async(name, invocation, seconds)

    async def _make_async(self, name: str, invocation: Invocation, seconds: float) -> object:
        loop = host_loop()
        ended: asyncio.Future[_Ended | None] = loop.create_future()
        start = cast("Callable[[], Awaitable[object]]", invocation.start)
        task = loop.create_task(_contain(name, start, ended))
        timer = loop.call_later(seconds, _tell, ended)
        try:
            await ended
        except asyncio.CancelledError:
            await self._stop(name, task)
            raise
        finally:
            timer.cancel()
        said = ended.result()
        if said is None:
            await self._stop(name, task)
            raise _overdue(name, seconds)
        return _unwrap(name, *said, invocation.ours)

    async def _stop(self, name: str, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._abandoned[name] += 1
        task.add_done_callback(lambda _: self._forget(name))
        await asyncio.wait((task,), timeout=GRACE)

    async def _make_blocking(self, name: str, invocation: Invocation, seconds: float) -> object:
        loop = host_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise TransientError(
                f"tool {name!r} was not called: all threads were busy for {seconds:g} s.", code="saturated"
            ) from None
        ended: asyncio.Future[_Ended] = loop.create_future()
        try:
            self._workers.submit(_Job(invocation.start, loop, ended, contextvars.copy_context()))
            await asyncio.wait((ended,), timeout=max(0.0, until - loop.time()))
        finally:
            self._slots.release()
            if not ended.done():
                self._abandoned[name] += 1
                ended.add_done_callback(lambda _: self._forget(name))
        if not ended.done():
            raise _overdue(name, seconds)
        outcome, error = ended.result()
        return _unwrap(name, outcome, error, invocation.ours)

    def _forget(self, name: str) -> None:
        self._abandoned[name] -= 1


_Ended = tuple[object, BaseException | None]


async def _contain(name: str, start: Callable[[], Awaitable[object]], ended: asyncio.Future[_Ended | None]) -> None:
    """Tell how a call ended, errors as values; a tool that exits must not take the process with it."""
    try:
        said: _Ended = await start(), None
    except (Exception, SystemExit) as error:
        said = None, error
    except asyncio.CancelledError:
        _tell(ended, (None, PermanentError(f"tool {name!r} cancelled itself.", code="raised")))
        raise
    _tell(ended, said)


def _tell(ended: asyncio.Future[_Ended | None], said: _Ended | None = None) -> None:
    """The first word counts; None says that the time is up."""
    if not ended.done():
        ended.set_result(said)


def _unwrap(name: str, outcome: object, error: BaseException | None, ours: bool) -> object:
    """The outcome, or what was raised. Codes for calls that were refused are the runtime's own: a tool that uses such
    a word for something else (`deadline`) has been called.
    """
    if error is None:
        return outcome
    if isinstance(error, TransientError | PermanentError):
        if error.code in REFUSED and not ours:
            error.code = f"tool_{error.code}"
        raise error
    message = str(error)[:MAX_MESSAGE]
    raise PermanentError(f"tool {name!r} raised {type(error).__name__}: {message}", code="raised") from error


def _overdue(name: str, seconds: float) -> TransientError:
    return TransientError(
        f"tool {name!r} did not end within {seconds:.4g} s and was abandoned; what it has done stays done.",
        code="timeout",
    )


@dataclass(frozen=True, slots=True)
class _Job:
    start: Callable[[], object]
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[_Ended]
    context: contextvars.Context

    def run(self) -> _Ended:
        try:
            return self.context.run(self.start), None
        except BaseException as error:
            return None, error

    def report(self, outcome: _Ended) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: _Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(outcome)


class _Workers:
    """Daemon threads, so that a hanging function cannot keep the process from ending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[_Job]] = []
        self._names = itertools.count(1)

    def submit(self, job: _Job) -> None:
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = queue.SimpleQueue()
            name = f"retinue-tool-{next(self._names)}"
            threading.Thread(target=self._work, args=(jobs,), name=name, daemon=True).start()
        jobs.put(job)

    def _work(self, jobs: queue.SimpleQueue[_Job]) -> None:
        while (job := self._next(jobs)) is not None:
            outcome = job.run()
            with self._lock:
                self._idle.append(jobs)
            job.report(outcome)
            del job, outcome

    def _next(self, jobs: queue.SimpleQueue[_Job]) -> _Job | None:
        try:
            return jobs.get(timeout=IDLE)
        except queue.Empty:
            with self._lock:
                if jobs in self._idle:
                    self._idle.remove(jobs)
                    return None
        return jobs.get(timeout=IDLE)
