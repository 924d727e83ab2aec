"""What the store in plain Python keeps of a run, and what it makes of that for its readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from retinue.runs.arrivals import Group
from retinue.runs.contracts import (
    NOTHING,
    Branch,
    PendingRequest,
    RunRecord,
    RunRequest,
    Status,
    StopReason,
    Usage,
)
from retinue.runs.errors import StoreError
from retinue.runs.journal import ENTRIES, AnyEntry, Finished, Frame
from retinue.runs.piecewise import dump, load
from retinue.runs.sessions import SessionRow


@dataclass(slots=True)
class Stored:
    """A frame as bytes, so that no object is shared between writer and reader."""

    seq: int
    position: int
    epoch: int
    facts: bytes
    contents: bytes

    def entries(self) -> tuple[AnyEntry, ...]:
        """The entries, made anew."""
        pairs = zip(ENTRIES.validate_json(self.facts), load(self.contents), strict=True)
        return tuple(entry.model_copy(update={"content": content}) for entry, content in pairs)


@dataclass(slots=True)
class Kept:
    """A run and everything that hangs on it."""

    num: int
    request: RunRequest
    created_at: int
    parent: Kept | None = None
    group: str | None = None
    reserved: Usage = NOTHING
    status: Status = Status.queued
    reason: StopReason | None = None
    epoch: int = 0
    position: int = 1
    checkpoint_at: int = 2
    host: str | None = None
    news: int = 0
    seen: int = 0
    wake_at: int | None = None
    cancel: str | None = None
    held: bool = False
    started_at: int | None = None
    finished_at: int | None = None
    usage: Usage = NOTHING
    frames: list[Stored] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    asked: dict[str, PendingRequest] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    events: list[tuple[int, str, int, bytes]] = field(default_factory=list)
    sessions: dict[str, SessionRow] = field(default_factory=dict)


def as_bytes(entries: Iterable[AnyEntry]) -> tuple[bytes, bytes]:
    listed = tuple(entries)
    try:
        return ENTRIES.dump_json(listed), dump([entry.content for entry in listed])
    except ValueError as error:
        raise StoreError(f"a value is not JSON and cannot be journaled: {error}") from None


def frame_of(run: Kept, stored: Stored) -> Frame:
    request = run.request
    return Frame(stored.seq, request.run_id, request.tenant_id, stored.position, stored.epoch, stored.entries())


def branch_of(run: Kept) -> Branch:
    last = run.frames[-1].entries()[-1]
    assert isinstance(last, Finished)
    return Branch(
        index=run.request.group_index or 0,
        run_id=run.request.run_id,
        status=run.status,
        reason=last.reason,
        value=last.content,
        error=last.error,
        usage=run.usage,
        facts=last.facts,
    )


def record_of(run: Kept) -> RunRecord:
    request = run.request
    return RunRecord(
        run_id=request.run_id,
        parent_run_id=request.parent_run_id,
        root_run_id=request.root_run_id,
        tenant_id=request.tenant_id,
        target=request.target,
        kind=request.kind,
        input_id=request.input_id,
        job_id=request.job_id,
        pool=request.pool,
        queue=request.queue,
        priority=request.priority,
        held=run.held,
        depth=request.depth,
        status=run.status,
        reason=run.reason,
        epoch=run.epoch,
        position=run.position,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        wake_at=run.wake_at,
        cancel=run.cancel,
        usage=run.usage,
    )
