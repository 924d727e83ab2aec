"""Streamed text on its way to whoever watches: gathered for a moment, then kept in the store in one commit.

Pieces belong to an attempt and are not the journal: the outcome is what counts, and a retracted attempt is
simply not continued. Knows no model.
"""

from __future__ import annotations

import asyncio
import logging

from retinue.store.store import Store

_LOG = logging.getLogger("retinue.host")
_EVERY = 0.1


class DeltaBuffer:
    """Collects pieces of one process; `add` never blocks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: list[tuple[str, str, int, str]] = []

    def add(self, run_id: str, key: str, attempt: int, text: str) -> None:
        """Take a piece; pieces of one attempt that follow each other are joined. An empty piece ends an attempt:
        what was gathered is submitted at once, so that it stands before the outcome."""
        if not text:
            self._submit()
            return
        if self._pieces and self._pieces[-1][:3] == (run_id, key, attempt):
            text = self._pieces.pop()[3] + text
        self._pieces.append((run_id, key, attempt, text))

    async def flush_for_ever(self) -> None:
        """The duty of a host: submit ten times a second."""
        while True:
            await asyncio.sleep(_EVERY)
            self._submit()

    def _submit(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._store.stream(pieces).add_done_callback(_report)


def _report(kept: asyncio.Future[None]) -> None:
    if not kept.cancelled() and (error := kept.exception()) is not None:
        _LOG.warning("streamed text is not shown: %s", error)
