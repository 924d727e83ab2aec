"""The recorder of one run: it gathers entries and submits them in order, under the run's epoch.

Soft entries wait for the next hard append, for a full buffer, or for the host's sweep; nothing is submitted
out of order. Knows no effect and no function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from retinue.runs.journal import AnyEntry
from retinue.runs.ownership import Append, Appended, Journal, LeasedRun
from retinue.runs.sandboxes import SandboxRow
from retinue.runs.sessions import SessionRow

_FULL = 64


class Recorder:
    """Writes a leased run's journal. `failed` is told of an append that nobody awaits and that was refused."""

    def __init__(self, leased: LeasedRun, journal: Journal, failed: Callable[[BaseException], None]) -> None:
        self.position = leased.position
        self._leased = leased
        self._journal = journal
        self._failed = failed
        self._buffer: list[AnyEntry] = []
        self._sessions: dict[str, SessionRow] = {}
        self._sandboxes: dict[tuple[str, str | None], SandboxRow] = {}
        self._stale = False

    def note(self, *entries: AnyEntry) -> None:
        """Buffer entries; they ride with the next append."""
        self._buffer.extend(entries)

    def keep(self, row: SessionRow) -> None:
        """What the store keeps of a session as it is after the entries so far; it goes with them."""
        self._sessions[row.session.session_id] = row

    def keep_sandbox(self, row: SandboxRow) -> None:
        """The same of a sandbox: as it is, and as it was with each other head, which has to be kept as well."""
        key = (row.state.sandbox_id, row.state.head_snapshot_id)
        self._sandboxes.pop(key, None)
        self._sandboxes[key] = row

    def write(self, entries: tuple[AnyEntry, ...], seen: int, **extra: Any) -> Awaitable[Appended]:
        """Submit the buffer and these entries now; awaited, they are durable."""
        everything = (*self._buffer, *entries)
        self._buffer.clear()
        self._stale = False
        if self._sessions:
            extra["sessions"] = tuple(self._sessions.values())
            self._sessions = {}
        if self._sandboxes:
            extra["sandboxes"] = tuple(self._sandboxes.values())
            self._sandboxes = {}
        request = self._leased.request
        append = Append(
            run_id=request.run_id,
            tenant_id=request.tenant_id,
            num=self._leased.num,
            epoch=self._leased.epoch,
            expected=self.position,
            entries=everything,
            seen=seen,
            **extra,
        )
        self.position += len(everything)
        future = asyncio.ensure_future(self._journal.append(append))
        if future.done():
            self._done(future)
        else:
            future.add_done_callback(self._done)
        return future

    def flush_full(self, seen: int) -> None:
        """Submit a full buffer, without waiting."""
        if len(self._buffer) >= _FULL:
            self.write((), seen)

    def flush_stale(self, seen: int) -> None:
        """Submit a buffer that an earlier sweep has found already, without waiting."""
        if self._buffer and self._stale:
            self.write((), seen)
        self._stale = bool(self._buffer)

    def _done(self, future: asyncio.Future[Appended]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed(error)
