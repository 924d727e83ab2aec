"""The journal and the control records in plain Python: a second implementation of both ports, without SQL.

It keeps the guarantees of `runs.journal` by other means (one thread, copies as JSON), so that the contract
suites compare two stores and the engine can be tried without a disk. It seals nothing and survives nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

from pydantic_core import from_json, to_json
from tests.doubles.memory_breakers import memory_breakers
from tests.doubles.memory_memories import memory_memories
from tests.doubles.memory_sessions import close_rows, session_record

from retinue.runs import machine
from retinue.runs.arrivals import Answer, Event, Group, News
from retinue.runs.batch import JOB
from retinue.runs.contracts import (
    NOTHING,
    Branch,
    Json,
    PendingRequest,
    RunRecord,
    RunRequest,
    Status,
    StopReason,
    Usage,
)
from retinue.runs.control import RunQuery, SessionQuery, SessionRecord
from retinue.runs.errors import Fenced, InvalidInput, StoreError, UnknownName
from retinue.runs.history import fold
from retinue.runs.joins import canceler
from retinue.runs.journal import ENTRIES, Accepted, AnyEntry, Finished, Frame, Parked
from retinue.runs.ownership import Append, Appended, DeadLetter, Finish, HostInfo, LeasedRun, NewRun, Park, Spawn, Yield
from retinue.runs.resources import guest_pool
from retinue.runs.retries import Retry, last_of, retried, stands
from retinue.runs.sessions import CLOSE, SessionRow


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
        pairs = zip(ENTRIES.validate_json(self.facts), from_json(self.contents), strict=True)
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


class MemoryStore:
    """Implements `Journal` and `Control`. One event loop; every operation is applied at once."""

    def __init__(self) -> None:
        self.breakers = memory_breakers()
        self.memories = memory_memories(self._owns)
        self._runs: dict[str, Kept] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._hosts: dict[str, HostInfo] = {}
        self._log: list[tuple[Kept, Stored]] = []
        self._letters: list[DeadLetter] = []
        self._numbers = itertools.count(1)
        self._seqs = itertools.count(1)

    def _owns(self, run_id: str, tenant_id: str, epoch: int) -> bool:
        kept = self._runs.get(run_id)
        return kept is not None and (kept.request.tenant_id, kept.epoch) == (tenant_id, epoch)

    async def close(self) -> None:
        """Nothing is open."""

    # -- Journal -------------------------------------------------------------------------------------------

    async def register(self, host: HostInfo) -> None:
        """See Journal."""
        self._hosts[host.host_id] = host

    async def retire(self, host_id: str) -> None:
        """See Journal."""
        self._hosts.pop(host_id, None)
        for run in self._runs.values():
            if run.host == host_id and run.status is Status.in_progress:
                self._move(run, Status.queued)
                run.host = None
            if run.request.pool == guest_pool(host_id):
                run.request = run.request.model_copy(update={"pool": "runs"})

    async def lease(self, host: HostInfo, pool: str, limit: int, at: int, only: str | None = None) -> list[LeasedRun]:
        """See Journal."""
        if host.host_id not in self._hosts:
            return []
        queued = [run for run in self._runs.values() if run.status is Status.queued and not run.held]
        if only is not None:
            wanted = [run for run in queued if run.request.run_id == only]
        else:
            wanted = self._shared_out([run for run in queued if run.request.pool == pool])
        return [self._lease(run, host, at) for run in wanted[:limit]]

    def _shared_out(self, queued: list[Kept]) -> list[Kept]:
        """Tenants in turn, the one with the fewest runs in progress first; each one's runs by priority."""
        busy = Counter(run.request.tenant_id for run in self._runs.values() if run.status is Status.in_progress)
        queued.sort(key=lambda run: (-run.request.priority, -run.request.depth, run.num))
        turns: list[tuple[int, str, Kept]] = []
        for run in queued:
            tenant = run.request.tenant_id
            turns.append((busy[tenant], tenant, run))
            busy[tenant] += 1
        return [run for *_, run in sorted(turns, key=lambda turn: turn[:2])]

    def append(self, append: Append) -> asyncio.Future[Appended]:
        """See Journal. Applied at once; the future tells the answer."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._append(append))
        except StoreError as error:
            future.set_exception(error)
        return future

    async def news(self, host_id: str) -> dict[str, News]:
        """See Journal."""
        return {
            run_id: self._news(run)
            for run_id, run in self._runs.items()
            if run.host == host_id and run.status is Status.in_progress and run.news > run.seen
        }

    async def look(self, run_id: str) -> News:
        """See Journal."""
        return self._news(self._runs[run_id])

    async def branches(self, run_id: str, key: str) -> list[Branch]:
        """See Journal."""
        parent = self._runs[run_id]
        ended = [r for r in self._runs.values() if r.parent is parent and r.group == key and r.status.terminal]
        return [_branch(run) for run in sorted(ended, key=lambda run: run.request.group_index or 0)]

    async def tend(self, host: HostInfo, at: int, lease_seconds: float) -> int:
        """See Journal. Nobody dies here: only what is due is queued."""
        due = [
            run
            for run in self._runs.values()
            if run.status in machine.WAITING and run.wake_at is not None and run.wake_at <= at
        ]
        for run in due:
            self._wake(run)
        return len(due)

    # -- Control -------------------------------------------------------------------------------------------

    async def submit(self, runs: Sequence[NewRun]) -> list[RunRecord]:
        """See Control."""
        return [_record(self._runs[self._submit(new)]) for new in runs]

    async def resolve(self, request_id: str, status: str, by: str, at: int, value: Json = None) -> PendingRequest:
        """See Control."""
        found = [
            (run, request)
            for run in self._runs.values()
            for request in run.asked.values()
            if request.request_id.startswith(request_id) or request.request_id.endswith(request_id)
        ]
        if len(found) != 1:
            raise UnknownName(f"{len(found)} requests match id {request_id!r}: `retinue inbox` lists the open ones")
        run, request = found[0]
        if request.status == "open" and request.expires_at is not None and at >= request.expires_at:
            raise InvalidInput(f"request {request.request_id} is expired already")
        if request.status != "open":
            raise InvalidInput(f"request {request.request_id} is {request.status} already")
        if status not in (("answered",) if request.kind == "input" else ("approved", "denied")):
            raise InvalidInput(f"request {request.request_id} asks for {request.kind} and cannot be {status}")
        said = {"status": status, "resolved_at": at, "resolved_by": by}
        run.asked[request.key] = PendingRequest.model_validate(request.model_dump() | said)
        run.answers[request.key] = to_json(value)
        self._wake(run)
        return run.asked[request.key]

    async def signal(self, run_id: str, name: str, value: Json, at: int) -> None:
        """See Control."""
        run = self._find(run_id)
        if not self._wake(run):
            raise InvalidInput(f"run {run_id} has ended and takes no events")
        run.events.append((next(self._numbers), name, at, to_json(value)))

    async def cancel(self, run_id: str, by: str, at: int) -> int:
        """See Control."""
        return self._cancel([self._find(run_id)], by, at)

    async def hold(self, run_id: str, held: bool) -> int:
        """See Control."""
        changed = [r for r in self._below([self._find(run_id)]) if not r.status.terminal and r.held != held]
        for run in changed:
            run.held = held
            if run.status is Status.in_progress:
                self._wake(run)
        return len(changed)

    async def retry(self, run_id: str, wanted: Retry) -> list[str]:
        """See Control."""
        top = self._find(run_id)
        heard = (Status.completed, Status.canceled)
        if top.parent is not None and top.parent.status not in heard and top.parent.request.target != JOB:
            raise InvalidInput(f"run {run_id} is a child of {top.parent.request.run_id}, which is {top.parent.status}")
        return [run.request.run_id for run in self._retry(top, wanted)]

    async def sessions(self, query: SessionQuery) -> list[SessionRecord]:
        """See Control."""
        wanted = {
            "run_id": query.run_id,
            "root_run_id": query.root_run_id,
            "tenant_id": query.tenant_id,
            "server": query.server,
            "status": query.status,
        }
        found = [session_record(run.request, row) for run in self._runs.values() for row in run.sessions.values()]
        found = [s for s in found if all(v is None or getattr(s, name) == v for name, v in wanted.items())]
        found = [s for s in found if s.closed_at is None or not query.open_only]
        found.reverse()
        return sorted(found, key=lambda one: -one.opened_at)[: query.limit]

    async def session(self, session_id: str) -> SessionRecord:
        """See Control."""
        everything = await self.sessions(SessionQuery(limit=1_000_000))
        found = [one for one in everything if one.session_id.startswith(session_id) or one.session_id == session_id]
        found += [one for one in everything if one.session_id.endswith(session_id) and one not in found]
        if len(found) != 1 or len(session_id) < 4:
            raise UnknownName(f"{len(found)} capability sessions match {session_id!r}")
        return found[0]

    async def close_session(self, session_id: str, by: str, at: int) -> SessionRecord:
        """See Control."""
        found = await self.session(session_id)
        if found.closed_at is not None:
            raise InvalidInput(f"capability session {found.session_id} is closed already ({found.cause})")
        await self.signal(found.run_id, CLOSE, {"session_id": found.session_id, "by": by}, at)
        return found

    async def get(self, run_id: str) -> RunRecord:
        """See Control."""
        return _record(self._find(run_id))

    async def result(self, run_id: str) -> Branch | None:
        """See Control."""
        run = self._find(run_id)
        return _branch(run) if run.status.terminal else None

    async def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """See Control."""
        wanted = {
            "status": query.status,
            "tenant_id": query.tenant_id,
            "parent_run_id": query.parent_run_id,
            "root_run_id": query.root_run_id,
            "job_id": query.job_id,
            "held": query.held,
        }
        records = [_record(run) for run in sorted(self._runs.values(), key=lambda run: -run.num)]
        found = [r for r in records if all(v is None or getattr(r, name) == v for name, v in wanted.items())]
        found = [r for r in found if not query.waiting or r.status in machine.WAITING]
        return [r for r in found if not query.roots_only or r.parent_run_id is None][: query.limit]

    async def requests(self, open_only: bool = True) -> list[PendingRequest]:
        """See Control."""
        asked = [request for run in self._runs.values() for request in run.asked.values()]
        asked = [request for request in asked if not open_only or request.status == "open"]
        return sorted(asked, key=lambda request: request.created_at)

    async def dead_letters(self, parent_run_id: str | None = None, limit: int = 1_000) -> list[DeadLetter]:
        """Inputs that could not become a run, oldest first."""
        return self._letters[:limit]

    async def read(self, run_id: str, after: int = 0) -> AsyncIterator[Frame]:
        """See Control."""
        run = self._find(run_id)
        for stored in list(run.frames):
            if stored.position > after:
                yield _frame(run, stored)

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """See Control."""
        found = [_frame(run, stored) for run, stored in self._log if stored.seq > after_seq]
        return found[:limit]

    # -- inside --------------------------------------------------------------------------------------------

    def _submit(self, new: NewRun) -> str:
        key = new.request.idempotency_key
        known = None if key is None else self._keys.get((new.request.tenant_id, key))
        if known is not None:
            return known
        if key is not None:
            self._keys[(new.request.tenant_id, key)] = new.request.run_id
        self._insert(new, None)
        return new.request.run_id

    def _insert(self, new: NewRun, parent: Kept | None) -> None:
        run = Kept(next(self._numbers), new.request, new.at, parent, new.request.group_key, new.reserved)
        self._runs[new.request.run_id] = run
        run.held = parent is not None and parent.held
        self._store(run, 1, 0, (Accepted(at=new.at, content=new.input, request=new.request),))
        if new.past:
            run.position = 1 + len(new.past)
            self._store(run, 2, 0, new.past)

    def _store(self, run: Kept, position: int, epoch: int, entries: tuple[AnyEntry, ...]) -> None:
        stored = Stored(next(self._seqs), position, epoch, *_bytes(entries))
        run.frames.append(stored)
        self._log.append((run, stored))

    def _lease(self, run: Kept, host: HostInfo, at: int) -> LeasedRun:
        self._move(run, Status.in_progress)
        run.epoch += 1
        run.host, run.wake_at, run.reason = host.host_id, None, None
        run.started_at = run.started_at or at
        accepted = run.frames[0].entries()[0]
        assert isinstance(accepted, Accepted)
        return LeasedRun(
            num=run.num,
            request=accepted.request,
            input=accepted.content,
            epoch=run.epoch,
            position=run.position,
            started_at=run.started_at,
            frames=tuple(_frame(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at),
            news=self._news(run),
        )

    def _append(self, append: Append) -> Appended:
        run = self._runs[append.run_id]
        parked = append.entries[-1:] if append.entries and isinstance(append.entries[-1], Parked) else ()
        entries = append.entries[: len(append.entries) - len(parked)]
        position = append.expected + len(entries)
        if (run.status, run.epoch, run.position) != (Status.in_progress, append.epoch, append.expected):
            return _recognise(run, append, position)
        _bytes(append.entries)
        run.position, run.seen = position, run.seen if append.seen is None else append.seen
        if entries:
            self._store(run, append.expected + 1, append.epoch, entries)
        if any(entry.kind == "checkpoint" for entry in entries):
            run.checkpoint_at = append.expected + 1
        if append.spawn is not None:
            self._spawn(run, append.spawn)
        if append.request is not None:
            self._ask(run, append.request)
        run.sessions |= {row.session.session_id: row for row in append.sessions}
        if isinstance(append.end, Yield):
            self._move(run, Status.queued)
            run.host = None
        if isinstance(append.end, Park):
            return self._park(run, append, parked)
        if isinstance(append.end, Finish):
            self._finish(run, append.end, append.entries[-1].at)
        return Appended(position)

    def _ask(self, run: Kept, request: PendingRequest) -> None:
        known = run.asked.get(request.key)
        if known is None:
            run.asked[request.key] = request
        elif known.status == "open":
            late = {"resolved_at": request.expires_at} if request.status == "expired" else {}
            changes = {"status": request.status, "assignee": request.assignee, "escalated_at": request.escalated_at}
            run.asked[request.key] = known.model_copy(update=changes | late)

    def _park(self, run: Kept, append: Append, parked: tuple[AnyEntry, ...]) -> Appended:
        assert isinstance(append.end, Park)
        if run.news != append.seen or not parked:
            return Appended(run.position, parked=False)
        run.position += 1
        self._store(run, run.position, append.epoch, parked)
        self._move(run, append.end.status)
        run.reason, run.wake_at, run.host = append.end.reason, append.end.wake_at, None
        return Appended(run.position, parked=True)

    def _spawn(self, run: Kept, spawn: Spawn) -> None:
        children = spawn.children
        if run.cancel is not None:
            children = ()
            self._wake(run)
        group = run.groups.get(spawn.key, Group(spawn.key))
        group = run.groups[spawn.key] = replace(
            group,
            total=group.total + len(children),
            pending=group.pending + len(children),
            rejected=group.rejected + len(spawn.rejected),
            low=spawn.low,
            need=spawn.need,
            cursor=from_json(to_json(spawn.cursor)),
            exhausted=spawn.exhausted,
            reserved=sum(
                (Usage(input_tokens=c.reserved.tokens, micros=c.reserved.micros) for c in children), group.reserved
            ),
        )
        for child in children:
            self._insert(child, run)
        self._letters.extend(spawn.rejected)
        if spawn.exhausted and group.pending <= spawn.low and not spawn.children:
            self._wake(run)
        if spawn.cancel_rest:
            mine = [r for r in self._runs.values() if r.parent is run and r.group == spawn.key]
            self._cancel(mine, canceler(run.request.run_id), spawn.at)

    def _finish(self, run: Kept, end: Finish, at: int) -> None:
        self._move(run, end.status)
        run.reason, run.usage, run.finished_at, run.wake_at = end.reason, end.usage, at, None
        for key, request in run.asked.items():
            if request.status == "open":
                run.asked[key] = request.model_copy(update={"status": "withdrawn"})
        if run.parent is not None and run.group is not None:
            self._settle(run.parent, run.group, run)

    def _settle(self, parent: Kept, key: str, run: Kept) -> None:
        group = parent.groups[key]
        ok = int(run.status is Status.completed)
        group = parent.groups[key] = replace(
            group,
            pending=group.pending - 1,
            ok=group.ok + ok,
            failed=group.failed + 1 - ok,
            reserved=Usage(
                input_tokens=group.reserved.input_tokens - run.reserved.tokens,
                micros=group.reserved.micros - run.reserved.micros,
            ),
            used=group.used + run.usage,
        )
        out_of_reach = group.need is not None and group.exhausted and group.ok + group.pending < group.need
        if group.pending <= group.low or out_of_reach or (group.need is not None and group.ok >= group.need):
            self._wake(parent)

    def _retry(self, run: Kept, wanted: Retry) -> list[Kept]:
        if run.status is not Status.failed:
            going = InvalidInput(f"run {run.request.run_id} is {run.status} and goes on by itself")
            raise (
                machine.IllegalTransition(run.request.run_id, run.status, Status.queued)
                if run.status.terminal
                else going
            )
        past = fold([_frame(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at], 0)
        entry = retried(past, last_of(run.frames[-1].entries(), run.request.run_id), wanted)
        heard = stands(past, entry)
        below = [
            r for r in self._runs.values() if r.parent is run and r.status is Status.failed and r.group not in heard
        ]
        queued = [each for child in below for each in self._retry(child, wanted.below(child.request.target))]
        run.epoch, run.position = run.epoch + 1, run.position + 1
        self._store(run, run.position, run.epoch, (entry,))
        self._move(run, Status.queued)
        run.reason = run.finished_at = run.cancel = None
        run.held = False
        for key, request in list(run.asked.items()):
            if request.status != "open":
                run.asked[f"{key}@{len(run.asked)}"] = run.asked.pop(key)
                run.answers.pop(key, None)
        if run.parent is not None and run.group is not None:
            self._unsettle(run.parent, run.group, run)
        return [*queued, run]

    def _unsettle(self, parent: Kept, key: str, run: Kept) -> None:
        group = parent.groups[key]
        spent = [getattr(group.used, name) - getattr(run.usage, name) for name in Usage.model_fields]
        parent.groups[key] = replace(
            group,
            pending=group.pending + 1,
            failed=group.failed - 1,
            reserved=group.reserved + Usage(input_tokens=run.reserved.tokens, micros=run.reserved.micros),
            used=Usage(**dict(zip(Usage.model_fields, spent, strict=True))),
        )

    def _cancel(self, tops: list[Kept], by: str, at: int) -> int:
        tree = [run for run in self._below(tops) if not run.status.terminal]
        for run in tree:
            run.cancel = run.cancel or by
        for run in reversed(tree):
            if run.status is Status.in_progress:
                self._wake(run)
                continue
            closed = close_rows(run.sessions, at, "the run ended")
            first = run.position + 1
            run.epoch, run.position, run.status = run.epoch + 1, first + len(closed), Status.queued
            usage = _spent(run)
            entry = Finished(at=at, status=Status.canceled, reason=StopReason.canceled, facts={"by": by}, usage=usage)
            self._store(run, first, run.epoch, (*closed, entry))
            self._finish(run, Finish(Status.canceled, StopReason.canceled, usage), at)
        return len(tree)

    def _below(self, tops: list[Kept]) -> list[Kept]:
        """The runs and all below them, level by level."""
        found = list(tops)
        for run in found:
            found.extend(child for child in self._runs.values() if child.parent is run)
        return found

    def _wake(self, run: Kept) -> bool:
        if run.status.terminal:
            return False
        run.news += 1
        if run.status in machine.WAITING:
            self._move(run, Status.queued)
        if run.status is not Status.in_progress:
            run.wake_at = None
        return True

    def _move(self, run: Kept, status: Status) -> None:
        machine.check(run.request.run_id, run.status, status)
        run.status = status

    def _news(self, run: Kept) -> News:
        answers = {
            key: Answer(
                request.request_id,
                request.status,  # type: ignore[arg-type]
                request.resolved_by or "",
                request.resolved_at or 0,
                from_json(run.answers.get(key, b"null")),
            )
            for key, request in run.asked.items()
            if request.status not in ("open", "withdrawn")
        }
        events = tuple(Event(number, name, at, from_json(value)) for number, name, at, value in run.events)
        return News(run.news, dict(run.groups), answers, events, run.cancel, run.held)

    def _find(self, run_id: str) -> Kept:
        if run_id in self._runs:
            return self._runs[run_id]
        near = [run for name, run in self._runs.items() if name.startswith(run_id) or name.endswith(run_id)]
        if len(run_id) < 4 or len(near) != 1:
            raise UnknownName(f"{len(near)} runs match {run_id!r}: `retinue ps` lists them")
        return near[0]


def _bytes(entries: Iterable[AnyEntry]) -> tuple[bytes, bytes]:
    listed = tuple(entries)
    try:
        return ENTRIES.dump_json(listed), to_json([entry.content for entry in listed])
    except ValueError as error:
        raise StoreError(f"a value is not JSON and cannot be journaled: {error}") from None


def _recognise(run: Kept, append: Append, position: int) -> Appended:
    entries = append.entries[: position - append.expected] or append.entries
    wanted = (append.expected + 1, append.epoch, _bytes(entries)[0])
    if any((stored.position, stored.epoch, stored.facts) == wanted for stored in run.frames):
        parked = run.status in machine.WAITING
        return Appended(position + int(parked), parked)
    raise Fenced(f"run {append.run_id}: epoch {append.epoch} at position {append.expected} is not its newest")


def _spent(run: Kept) -> Usage:
    """By its journal, with what is held for paid calls that nobody saw end, and what its children spent."""
    history = fold([_frame(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at], 0)
    lost = [usage for usage in history.unsettled().values() if usage.micros]
    return sum([*lost, *(group.used for group in run.groups.values())], history.spent)


def _frame(run: Kept, stored: Stored) -> Frame:
    request = run.request
    return Frame(stored.seq, request.run_id, request.tenant_id, stored.position, stored.epoch, stored.entries())


def _branch(run: Kept) -> Branch:
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


def _record(run: Kept) -> RunRecord:
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
