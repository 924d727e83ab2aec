"""Blocking work in threads, for those who wait on an event loop, and what a disk says meanwhile in their words.

Owns that a cancellation waits for what is still being done: what comes after must not meet it. Knows no sandbox.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from retinue.runs.errors import PermanentError, TransientError

T = TypeVar("T")
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
"""What a disk may say today and not tomorrow."""


async def in_thread(job: Callable[[Event], T]) -> T:
    """Do a job in a thread. Canceled, it is told by its event, and waited for."""
    stop = Event()
    task = asyncio.ensure_future(asyncio.to_thread(job, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # so that nobody calls it never retrieved
        raise


@contextmanager
def disk_told(what: str) -> Iterator[None]:
    """What a disk says within, as TransientError or PermanentError `disk` that says what it failed with."""
    try:
        yield
    except OSError as error:
        kind = TransientError if error.errno in _PASSING else PermanentError
        raise kind(f"the disk failed with {what}: {error}", code="disk") from error
