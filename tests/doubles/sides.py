"""Two hosts at once: each side is a thread with an event loop and a store of its own over the same place, so that their
transactions really meet. Knows no test.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.doubles.places import Place, Store

T = TypeVar("T")
Work = Callable[[Store], Awaitable[T]]
_BOUND = 60.0


class Side:
    """A store in a thread of its own; `run` waits for an answer, `begin` does not."""

    def __init__(self, place: Place, **given: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="side", daemon=True)
        self._thread.start()

        async def open_store() -> Store:
            return await asyncio.to_thread(place.open, **given)

        try:
            self.store = self._wait(asyncio.run_coroutine_threadsafe(open_store(), self._loop))
        except BaseException:
            self._end_loop()
            raise

    def begin(self, work: Work[T], start: Callable[[], object] = bool) -> Future[T]:
        """Do the work on this side, after `start` came back."""

        async def do() -> T:
            start()
            return await work(self.store)

        return asyncio.run_coroutine_threadsafe(do(), self._loop)

    def run(self, work: Work[T]) -> T:
        """Do the work on this side and wait for its answer."""
        return self._wait(self.begin(work))

    def close(self) -> None:
        """Close the store and end the thread."""
        try:
            self.run(lambda store: store.close())
        finally:
            self._end_loop()

    def _wait(self, future: Future[T]) -> T:
        return future.result(_BOUND)

    def _end_loop(self) -> None:
        async def leave() -> None:
            await self._loop.shutdown_default_executor()
            self._loop.call_soon(self._loop.stop)

        asyncio.run_coroutine_threadsafe(leave(), self._loop)
        self._thread.join(_BOUND)
        self._loop.close()


@contextmanager
def two_sides(place: Place, **given: Any) -> Iterator[tuple[Side, Side]]:
    """Two sides of one place."""
    first = Side(place, **given)
    try:
        second = Side(place, **given)
        try:
            yield first, second
        finally:
            second.close()
    finally:
        first.close()


def at_once(sides: Sequence[Side], works: Sequence[Work[Any]], lag: float = 0.0) -> list[Any]:
    """What the works came to, an answer or an error, each begun by its side at the same moment.

    `lag`: seconds by which the second begins after the first; below 0, before it.
    """
    gate = threading.Barrier(len(works))
    lags = [max(-lag, 0.0), max(lag, 0.0)]

    def start(late: float) -> Callable[[], None]:
        def pass_gate() -> None:
            gate.wait(_BOUND)
            until = time.perf_counter() + late
            while time.perf_counter() < until:
                continue

        return pass_gate

    pairs = zip(sides, works, lags, strict=True)
    begun = [side.begin(work, start(late)) for side, work, late in pairs]
    answers = [(future.exception(_BOUND), future) for future in begun]
    return [error if error is not None else future.result() for error, future in answers]


_SURE = 0.25
"""Seconds by which one side comes first on any machine."""


def lags(rounds: int, widest: float = 0.002) -> Iterator[float]:
    """So many lags, from one side being late by the widest (s) to the other being so, the small ones more often.

    The first two are wide enough that each side has come first, however long its work takes.
    """
    yield from (-_SURE, _SURE)[:rounds]
    for number in range(2, rounds):
        part = 2 * ((number * 7) % rounds) / max(rounds - 1, 1) - 1
        yield widest * part**3
