"""Streamed text on its way to whoever watches: gathered for a moment, then kept in the store in one commit.

Pieces belong to an attempt and are not the journal: the outcome is what counts, and a retracted attempt is
simply not continued. Knows no model.
"""

from __future__ import annotations

import asyncio

from retinue.store.sqlite import SqliteStore

_EVERY = 0.1


class DeltaBuffer:
    """Collects pieces of one process; `add` never blocks."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._pieces: list[tuple[str, str, int, str]] = []

    def add(self, run_id: str, key: str, attempt: int, text: str) -> None:
        """Take a piece; pieces of one attempt that follow each other are joined."""
        if self._pieces and self._pieces[-1][:3] == (run_id, key, attempt):
            text = self._pieces.pop()[3] + text
        self._pieces.append((run_id, key, attempt, text))

    async def flush(self) -> None:
        """Keep what was gathered."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            await self._store.stream(pieces)

    async def flush_for_ever(self) -> None:
        """The duty of a host: flush ten times a second."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.flush()
