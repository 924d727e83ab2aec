"""Looks that many share: what was looked up counts for a moment, and one that is under way answers all who wait.

Knows nothing of what is looked up.
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
        self._looking: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """What there was a moment ago, or is now."""
        if self._found is not None and time.monotonic() < self._until:
            return self._found
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        looking = self._looking
        found = await asyncio.shield(looking)
        if looking is self._looking:
            self._found, self._until = found, time.monotonic() + self._moment
        return found

    def forget(self) -> None:
        """Something was changed: nothing that was looked up before counts any more."""
        self._found, self._looking = None, None
