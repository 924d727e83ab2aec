"""Ctrl-C: the first stops cleanly, the second at once. SIGTERM is a first Ctrl-C.

Owns the signals while a command runs. Knows no command; what a command wants to say, it says when it is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from retinue.ingress.exits import Exit

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """The command was told to stop and has; carries the exit code."""


class _Interrupt:
    """The handler: counts, and cancels the one task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.task: asyncio.Task[Any] | None = None
        self.code: Exit | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        code = Exit.interrupted if number == signal.SIGINT else Exit.terminated
        if self.code is not None:
            os.write(2, b"\nstopped at once\n")
            os._exit(code)
        self.code = code
        if self.task is None:
            raise Interrupted(int(code))
        self._loop.call_soon_threadsafe(self.task.cancel)


def run_until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own; a signal cancels it, a second one ends the process.

    Raises Interrupted when the signal ended it. Only in the main thread.
    """
    with asyncio.Runner() as runner:
        interrupt = _Interrupt(runner.get_loop())
        before = {number: signal.signal(number, interrupt) for number in _SIGNALS}

        async def main() -> T:
            interrupt.task = asyncio.current_task()
            return await work

        try:
            return runner.run(main())
        except asyncio.CancelledError:
            if interrupt.code is None:
                raise
            raise Interrupted(int(interrupt.code)) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
