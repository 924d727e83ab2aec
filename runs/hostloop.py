"""The host's event loop, found cheaply, and a signal for one waiter on it.

asyncio asks the operating system for the process id whenever the running loop is looked up; on the hot path
that was a fifth of a step (measured with benchmarks/). Knows no run.
"""

from __future__ import annotations

import asyncio
from threading import get_ident

_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}


def host_loop() -> asyncio.AbstractEventLoop:
    """The loop that drives this thread, also while a body's own loop runs inside it. RuntimeError without one."""
    thread = get_ident()
    loop = _LOOPS.get(thread)
    if loop is None or not loop.is_running():
        loop = _LOOPS[thread] = asyncio.get_running_loop()
    return loop


class Signal:
    """Set from anywhere on the loop, awaited by one task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Forget that it was set."""
        self._set = False

    async def wait(self) -> None:
        """Return when it is set."""
        if not self._set:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
