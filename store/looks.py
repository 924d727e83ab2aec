"""Looks that many share: what was looked up counts for a moment, and one that is under way answers all who wait.

Who comes first looks himself, so that a look that waits for nothing costs no task and keeps nobody waiting. Knows
nothing of what is looked up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLook(Generic[T]):
    """`look` finds out; what it found counts for `moment` seconds, or until it is `forget`-ten. One event loop's."""

    def __init__(self, look: Callable[[], Awaitable[T]], moment: float) -> None:
        self._look = look
        self._moment = moment
        self._until = 0.0
        self._found: T | None = None
        self._waiting: list[asyncio.Future[T | None]] | None = None

    async def get(self) -> T:
        """What there was a moment ago, or is now. Raises what the look raised."""
        while True:
            if self._found is not None and time.monotonic() < self._until:
                return self._found
            if self._waiting is None:
                return await self._lead()
            told: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(told)
            found = await told
            if found is not None:
                return found

    def forget(self) -> None:
        """Something was changed: nothing that was looked up before counts any more."""
        self._found, self._waiting = None, None

    async def _lead(self) -> T:
        """Look for all who come meanwhile. Who was cancelled at it has found nothing: another one looks."""
        waiting = self._waiting = []
        found: T | None = None
        try:
            found = await self._look()
            if waiting is self._waiting:
                self._found, self._until = found, time.monotonic() + self._moment
        except Exception as error:
            for told in waiting:
                if not told.done():
                    told.set_exception(error)
            raise
        finally:
            if waiting is self._waiting:
                self._waiting = None
            for told in waiting:
                if not told.done():
                    told.set_result(found)
        return found
