"""How fast a server may send what nobody asked for: notifications and requests of its own.

A server that sends more is read more slowly, so that its flood stays in its own pipe. Knows no message.
"""

from __future__ import annotations

import asyncio

RATE = 500.0
"""Messages a second."""

BURST = 1000.0
"""Messages at once."""


class Pace:
    """A bucket of messages for one connection."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    async def keep(self) -> None:
        """Take one message; returns when that is within the pace."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._rate)
