"""Waiting for runs to end: one look at the store for everyone who waits in this process.

Looks only when something was committed, and asks for all awaited runs at once. Knows no terminal.
"""

from __future__ import annotations

import asyncio

from retinue.store.store import Store

_EVERY = 0.01


class Endings:
    """Tells those who wait that a run has ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def wait(self, run_id: str) -> None:
        """Return when the run has ended."""
        ended = self._awaited.get(run_id)
        if ended is None:
            ended = self._awaited[run_id] = asyncio.get_running_loop().create_future()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        await asyncio.shield(ended)

    async def close(self) -> None:
        """Stop looking."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        seen = -1
        while self._awaited:
            version = self._store.version()
            if version != seen:
                seen = version
                for run_id in await self._store.ended(list(self._awaited)):
                    self._awaited.pop(run_id).set_result(None)
            await asyncio.sleep(_EVERY)
