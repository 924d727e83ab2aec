"""Blocking work in threads, waited for even when the waiter is cancelled.

Owns one function. A cancelled `run_in_executor` leaves its thread running unseen; with one writer thread
the next caller would find the file half-way through a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(thread: Executor, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `call` in the executor. A cancellation takes effect when the call has ended."""
    work = asyncio.get_running_loop().run_in_executor(thread, lambda: call(*args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        work.exception()  # looked at: nobody is left to be told, and the next call meets the same trouble
        raise
