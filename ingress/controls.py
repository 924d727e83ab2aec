"""What can be done with runs through their store alone: look, answer, signal, cancel, compare.

The verbs that only read or speak to runs use this: it imports no models, tools, policy, traces and no Ray, so it
is there in a fraction of a second. `Client` adds what needs a project or a process that runs runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from retinue.host import clock
from retinue.host.opening import open_store
from retinue.host.settings import Settings
from retinue.ingress.awaiting import Awaited, awaited
from retinue.ingress.diffing import Difference, diff_runs
from retinue.ingress.events import RunEvent, events_of
from retinue.ingress.inspection import Inspection, inspect_run
from retinue.ingress.pending import LIMIT, Pending, pending
from retinue.ingress.trees import LEVELS, SHOWN
from retinue.runs.contracts import Json, PendingRequest, RunRecord
from retinue.runs.control import RunQuery, RunTree
from retinue.runs.errors import InvalidInput
from retinue.store.sqlite import SqliteStore

_POLL = 0.02


class Controls:
    """Made by `open_controls`. All methods may be called from one event loop; errors are RetinueError."""

    def __init__(self, settings: Settings, store: SqliteStore) -> None:
        self.settings = settings
        self._store = store

    # -- looking -----------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunRecord:
        """The record of a run; an unambiguous part of its id will do."""
        return await self._store.get(run_id)

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Records, newest first."""
        return await self._store.list_runs(query)

    async def tree(self, run_id: str, most: int = SHOWN, deepest: int = LEVELS - 1) -> RunTree:
        """A run and what is below it, as far as asked; what has not ended comes first."""
        return await self._store.below((await self.get(run_id)).run_id, most, deepest)

    async def inspect(self, run_id: str) -> Inspection:
        """Where a run stands: its cursor, where replay begins, what is kept, what it waits for, its groups."""
        return await inspect_run(self._store, run_id)

    async def diff(self, one: str, other: str, children: bool = False) -> Difference:
        """Two runs side by side, step by step; with `children` their children too, by group and index."""
        return await diff_runs(self._store, one, other, children)

    async def events(self, run_id: str, after: int = 0, follow: bool = True) -> AsyncIterator[RunEvent]:
        """The events of a run after a position, streamed text included; until it has ended, when following."""
        run_id = (await self.get(run_id)).run_id
        streamed = 0
        while True:
            ended = (await self.get(run_id)).status.terminal
            for seq, key, attempt, text in await self._store.deltas(run_id, streamed):
                streamed = seq
                facts: dict[str, Json] = {"attempt": attempt}
                yield RunEvent(
                    at=clock.now_ns(), run_id=run_id, position=after, kind="delta", name=key, text=text, facts=facts
                )
            async for frame in self._store.read(run_id, after):
                for event in events_of(frame):
                    yield event
                after = frame.position
            if ended or not follow:
                return
            await asyncio.sleep(_POLL)

    # -- what runs wait for --------------------------------------------------------------------------------

    async def inbox(self, root_run_id: str | None = None) -> list[PendingRequest]:
        """What runs ask people (or only the tree of this root), oldest first."""
        if root_run_id is not None:
            return await self._store.asked_below(root_run_id)
        return await self._store.requests()

    async def pending(self, run_id: str | None = None, everything: bool = False, limit: int = LIMIT) -> Pending:
        """What the whole tree of a run waits for, or what runs ask anywhere; with `everything` all they wait for."""
        return await pending(self._store, run_id, everything, limit)

    async def awaited(self, run_id: str) -> tuple[Awaited, ...]:
        """What one run waits for, by its journal; nothing when it has ended."""
        record = await self.get(run_id)
        return () if record.status.terminal else awaited(await self._store.recent(record.run_id))

    async def approve(self, request_id: str, by: str | None = None) -> PendingRequest:
        """Say yes to an approval."""
        return await self._resolve(request_id, "approved", by, None)

    async def deny(self, request_id: str, by: str | None = None, why: str = "") -> PendingRequest:
        """Say no to an approval."""
        return await self._resolve(request_id, "denied", by, why or None)

    async def answer(self, request_id: str, value: Json, by: str | None = None) -> PendingRequest:
        """Answer a question."""
        return await self._resolve(request_id, "answered", by, value)

    async def signal(self, run_id: str, name: str, value: Json = None) -> None:
        """Send an event to a run, which keeps it until it is taken. InvalidInput when the run has ended."""
        if not name.strip():
            raise InvalidInput("the event's name is empty: use the name that the run waits for, as `ctx.event` has it")
        await self._store.signal(run_id, name, value, clock.now_ns())

    async def cancel(self, run_id: str, by: str | None = None) -> int:
        """Cancel a run and all below it; returns how many were marked or ended."""
        return await self._store.cancel(run_id, by or self.settings.principal, clock.now_ns())

    async def _resolve(self, request_id: str, status: str, by: str | None, value: Json) -> PendingRequest:
        who = by or self.settings.principal
        return await self._store.resolve(request_id, status, who, clock.now_ns(), value)


@asynccontextmanager
async def open_controls(settings: Settings) -> AsyncIterator[Controls]:
    """The controls of a project's runs. Hosts nothing and starts nothing. Raises StoreError, StoreBusy."""
    store = open_store(settings)
    try:
        yield Controls(settings, store)
    finally:
        await store.close()
