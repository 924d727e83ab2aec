"""Operations that share a commit, and one that fails in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from retinue.runs.errors import InvalidInput
from retinue.store.engine import Connection
from retinue.store.store import Store


class Batch:
    """Holds the writer until several operations are queued, so that they share one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._go = threading.Event()
        self._begun = threading.Event()

    async def __aenter__(self) -> Callable[[Callable[[Connection], Any]], asyncio.Future[Any]]:
        def hold(_: Connection) -> None:
            self._begun.set()
            self._go.wait(20)

        self._holding = self._store._writer.submit(hold)
        await asyncio.to_thread(self._begun.wait, 20)
        return self._store._writer.submit

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._holding


def fail(connection: Connection) -> None:
    """Writes something, then refuses."""
    connection.execute("UPDATE runs SET priority = 99")
    raise InvalidInput("no")
