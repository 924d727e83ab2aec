"""The runs of the store in plain Python and what moves them: appends, parks, ends, spawns, cancels and retries.

Knows no port; `memory_store` puts the ports on top.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from pydantic_core import from_json, to_json
from tests.doubles.memory_breakers import memory_breakers
from tests.doubles.memory_memories import memory_memories
from tests.doubles.memory_rows import Kept, Stored, as_bytes, frame_of
from tests.doubles.memory_sessions import close_rows

from retinue.runs import machine
from retinue.runs.arrivals import Answer, Event, Group, News
from retinue.runs.contracts import PendingRequest, Status, StopReason, Usage
from retinue.runs.errors import Fenced, InvalidInput, UnknownName
from retinue.runs.history import fold
from retinue.runs.joins import canceler
from retinue.runs.journal import Accepted, AnyEntry, Finished, Parked
from retinue.runs.ownership import Append, Appended, DeadLetter, Finish, HostInfo, LeasedRun, NewRun, Park, Spawn, Yield
from retinue.runs.retries import Retry, last_of, retried, stands


class MemoryRuns:
    """All there is in the store, and the operations that several of its methods need."""

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
        stored = Stored(next(self._seqs), position, epoch, *as_bytes(entries))
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
            frames=tuple(frame_of(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at),
            news=self._news(run),
        )

    def _append(self, append: Append) -> Appended:
        run = self._runs[append.run_id]
        parked = append.entries[-1:] if append.entries and isinstance(append.entries[-1], Parked) else ()
        entries = append.entries[: len(append.entries) - len(parked)]
        position = append.expected + len(entries)
        if (run.status, run.epoch, run.position) != (Status.in_progress, append.epoch, append.expected):
            return _recognise(run, append, position)
        as_bytes(append.entries)
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
        past = fold([frame_of(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at], 0)
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


def _recognise(run: Kept, append: Append, position: int) -> Appended:
    entries = append.entries[: position - append.expected] or append.entries
    wanted = (append.expected + 1, append.epoch, as_bytes(entries)[0])
    if any((stored.position, stored.epoch, stored.facts) == wanted for stored in run.frames):
        parked = run.status in machine.WAITING
        return Appended(position + int(parked), parked)
    raise Fenced(f"run {append.run_id}: epoch {append.epoch} at position {append.expected} is not its newest")


def _spent(run: Kept) -> Usage:
    """By its journal, with what is held for paid calls that nobody saw end, and what its children spent."""
    history = fold([frame_of(run, stored) for stored in run.frames if stored.position >= run.checkpoint_at], 0)
    lost = [usage for usage in history.unsettled().values() if usage.micros]
    return sum([*lost, *(group.used for group in run.groups.values())], history.spent)
