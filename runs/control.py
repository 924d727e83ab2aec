"""The port of the store for everyone who does not own runs: submit, answer, cancel, read.

Nothing here touches the journal of a run that somebody owns: it leaves news, and the owner acts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from retinue.runs.contracts import Branch, Frozen, Json, PendingRequest, RunRecord, Status
from retinue.runs.journal import Frame
from retinue.runs.ownership import DeadLetter, NewRun
from retinue.runs.retries import Retry
from retinue.runs.sandboxes import SandboxState, SandboxStatus
from retinue.runs.sessions import SessionStatus


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list. None: any; `waiting`: only those that are parked, whatever for; `held`: (not) held."""

    status: Status | None = None
    tenant_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    job_id: str | None = None
    roots_only: bool = False
    waiting: bool = False
    held: bool | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class JobState:
    """How far a job is: rows created and pending, ended well or not, inputs refused, open requests, cost."""

    total: int
    pending: int
    ok: int
    failed: int
    rejected: int
    exhausted: bool
    cost_micros: int
    waiting: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """An ended row of a job: its commit number, its id, its result."""

    seq: int
    input_id: str | None
    branch: Branch


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits in a pool: how many (1,000 stands for more), and since when (Unix ns) the oldest that has not begun.

    None: all of them have begun before and go on. Held runs are not counted.
    """

    pool: str
    queued: int
    oldest_at: int | None


@dataclass(frozen=True, slots=True)
class RunTree:
    """A run and what is below it, as far as asked. `children` counts all children of each run shown, by status."""

    records: tuple[RunRecord, ...]
    children: dict[str, dict[Status, int]]


@dataclass(frozen=True, slots=True)
class GroupState:
    """The join state of one fan-out; `open` counts the children that have not ended, by status."""

    key: str
    total: int
    pending: int
    ok: int
    failed: int
    rejected: int
    open: dict[Status, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """Which failed rows of a job to queue again: after a row number, so many, of one stop reason or of any."""

    after: int = 0
    limit: int = 500
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    """What came of it: ids of the rows that are queued, those that are not with why, and the last row number."""

    queued: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    last: int | None = None


@dataclass(frozen=True, slots=True)
class DeadInput:
    """A refused input with its number, and the run (a job) that refused it."""

    number: int
    job_id: str | None
    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which capability sessions to list. None: any."""

    run_id: str | None = None
    root_run_id: str | None = None
    tenant_id: str | None = None
    server: str | None = None
    status: SessionStatus | None = None
    open_only: bool = False
    limit: int = 50


class SessionRecord(Frozen):
    """A capability session as the store has it. What is None was never said: there was no connection yet, or the wire
    has no such thing. `resumable` says that a call of it can be continued: the token itself is shown to nobody. Times
    are Unix ns.
    """

    session_id: str
    run_id: str
    root_run_id: str
    tenant_id: str
    trace_id: str
    server: str
    number: int
    scope: str | None
    transport: str | None
    protocol: str | None
    wire_session_id: str | None
    pins: str | None
    status: SessionStatus
    cause: str
    approval: str
    expires_at: int | None
    expires_from: str | None
    opened_at: int
    changed_at: int
    closed_at: int | None
    resumable: bool


@dataclass(frozen=True, slots=True)
class SandboxQuery:
    """Which sandboxes to list. None: any."""

    run_id: str | None = None
    root_run_id: str | None = None
    tenant_id: str | None = None
    manifest: str | None = None
    status: SandboxStatus | None = None
    open_only: bool = False
    limit: int = 50


class SandboxRecord(Frozen):
    """A sandbox as the store has it. `place` is the id that the run's steps know it by."""

    run_id: str
    root_run_id: str
    tenant_id: str
    trace_id: str
    run_status: Status
    place: str
    state: SandboxState


class SnapshotPin(Frozen):
    """A snapshot that is kept until its pin is taken out; `manifest` is what sandboxes of it are opened under."""

    tenant_id: str
    name: str
    snapshot_id: str
    manifest: str
    at: int
    by: str


class Control(Protocol):
    """The port for everyone who does not own runs: submit, answer, cancel, and read."""

    async def submit(self, runs: Sequence[NewRun]) -> list[RunRecord]:
        """Accept runs, durably. A known (tenant, idempotency key) gives the run that has it."""
        ...

    async def resolve(self, request_id: str, status: str, by: str, at: int, value: Json = None) -> PendingRequest:
        """Approve, deny or answer an open request; wakes its run. InvalidInput when it is not open."""
        ...

    async def signal(self, run_id: str, name: str, value: Json, at: int) -> None:
        """Send an event to a run that has not ended."""
        ...

    async def cancel(self, run_id: str, by: str, at: int) -> int:
        """Mark the run and all below it, children first; returns how many were marked or ended."""
        ...

    async def hold(self, run_id: str, held: bool) -> int:
        """Hold the run and all below it, or let them go; returns how many were changed.

        A held run begins no step: it goes back to its queue when nothing is in flight and stays there.
        """
        ...

    async def retry(self, run_id: str, wanted: Retry) -> list[str]:
        """Queue a failed run again, with those below it whose failure it will hear again; returns their ids.

        IllegalTransition when it completed or was canceled, InvalidInput while it or its parent goes on.
        """
        ...

    async def sessions(self, query: SessionQuery) -> list[SessionRecord]:
        """Capability sessions, newest first."""
        ...

    async def session(self, session_id: str) -> SessionRecord:
        """One capability session; an unambiguous part of its id will do. UnknownName otherwise."""
        ...

    async def close_session(self, session_id: str, by: str, at: int) -> SessionRecord:
        """Leave word that a session is to be closed: the owner of its run cancels its open calls, and the next call
        begins a new one. InvalidInput when it is closed already.
        """
        ...

    async def get(self, run_id: str) -> RunRecord:
        """The record of a run; an unambiguous prefix or suffix of its id will do. UnknownName otherwise."""
        ...

    async def result(self, run_id: str) -> Branch | None:
        """The result of a run that ended, as a value; None while it has not."""
        ...

    async def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """Newest first."""
        ...

    async def requests(self, open_only: bool = True) -> list[PendingRequest]:
        """What people are asked, oldest first."""
        ...

    def read(self, run_id: str, after: int = 0) -> AsyncIterator[Frame]:
        """The frames of a run from position `after` + 1 on; ends at the newest."""
        ...

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """Frames of all runs in commit order after `after_seq`; misses nothing, repeats nothing."""
        ...
