"""Reading the store: records, results, requests, frames. Short reads on a connection of their own.

Knows no writing and no event loop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from retinue.runs.contracts import ERASED, Branch, Json, PendingRequest, RunRecord, Status, StopReason, Usage
from retinue.runs.control import JobRow, JobState, RunQuery
from retinue.runs.errors import UnknownName
from retinue.runs.journal import Finished, Frame
from retinue.runs.ownership import DeadLetter
from retinue.store.control import find
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec, bound_to
from retinue.store.leasing import decode
from retinue.store.rows import clause_of, many, one, with_id
from retinue.store.statements import sql


def record(connection: Connection, run_id: str) -> RunRecord:
    """The record of one run."""
    num, _ = find(connection, run_id)
    return record_of(one(connection, sql("record") + " WHERE r.num = ?", (num,)))


def records(connection: Connection, query: RunQuery) -> list[RunRecord]:
    """The records a query asks for, newest first."""
    wanted = {
        "r.status = ?": query.status,
        "r.tenant_id = ?": query.tenant_id,
        "p.run_id = ?": query.parent_run_id,
        "coalesce(o.run_id, r.run_id) = ?": query.root_run_id,
        "r.job_id = ?": query.job_id,
        "r.held = ?": None if query.held is None else int(query.held),
    }
    others = [] if not query.roots_only else ["r.parent IS NULL"]
    others += [] if not query.waiting else ["r.status LIKE 'waiting%'"]
    clause, values = clause_of(wanted, *others)
    rows = connection.execute(f"{sql('record')}{clause} ORDER BY r.num DESC LIMIT ?", (*values, query.limit))
    return [record_of(row) for row in rows]


def record_of(row: tuple[Any, ...]) -> RunRecord:
    """A row of `record.sql` as a record."""
    names = (
        "run_id parent_run_id root_run_id tenant_id target kind input_id job_id pool queue priority depth status held "
        "reason epoch position created_at started_at finished_at wake_at cancel"
    ).split()
    return RunRecord(
        **dict(zip(names, row, strict=False)),
        usage=_usage(row[22:27]),
        actor_id=row[27],
        pid=row[28],
        node=row[29],
    )


def _usage(row: tuple[int, ...]) -> Usage:
    return Usage(steps=row[0], hops=row[1], input_tokens=row[2], output_tokens=row[3], micros=row[4])


def branches(connection: Connection, codec: FrameCodec, run_id: str, key: str) -> list[Branch]:
    """The ended children of a group, in index order."""
    return [_branch(connection, codec, row) for row in connection.execute(sql("branches"), (run_id, key))]


def result(connection: Connection, codec: FrameCodec, run_id: str) -> Branch | None:
    """The result of a run that ended."""
    num, _ = find(connection, run_id)
    row = connection.execute(
        "SELECT coalesce(r.grp_index, 0), r.run_id, r.tenant_id, r.status, r.reason, r.steps, r.hops, r.input_tokens,"
        " r.output_tokens, r.micros, j.position, j.schema, j.facts, j.sealed FROM runs r JOIN journal j"
        " ON j.run = r.num AND j.position = r.final WHERE r.num = ?",
        (num,),
    ).fetchone()
    return None if row is None else _branch(connection, codec, row)


def _branch(connection: Connection, codec: FrameCodec, row: tuple[Any, ...]) -> Branch:
    index, run_id, tenant_id, status, reason, *rest = row
    usage, position, stored = _usage(tuple(rest[:5])), rest[5], rest[6:]
    entries = decode(connection, codec, (run_id, tenant_id, position), stored)
    erased = codec.erased(tenant_id, bound_to(run_id, position), stored[-1], entries)
    last = entries[-1]
    assert isinstance(last, Finished), f"run {run_id} is {status} but its last entry is {last.kind}"
    return Branch(
        index=index or 0,
        run_id=run_id,
        status=Status(status),
        reason=StopReason(reason),
        value=last.content,
        error=last.error,
        usage=usage,
        facts=last.facts | ({ERASED: True} if erased else {}),
    )


def requests(connection: Connection, codec: FrameCodec, open_only: bool) -> list[PendingRequest]:
    """What people are asked, oldest first."""
    where = " WHERE q.status = 'open'" if open_only else ""
    rows = connection.execute(sql("requests") + where + " ORDER BY q.num")
    return [request_of(codec, row) for row in rows]


def request(connection: Connection, codec: FrameCodec, request_id: str) -> PendingRequest:
    """One request by its full id."""
    row = one(connection, sql("requests") + " WHERE q.request_id = ?", (request_id,))
    return request_of(codec, row)


def find_request(connection: Connection, codec: FrameCodec, request_id: str) -> PendingRequest:
    """One request by its id, or an unambiguous beginning or end of it. UnknownName otherwise."""
    rows = with_id(connection, sql("requests"), "q.request_id", request_id)
    if len(rows) != 1:
        what = "no request has" if not rows else "more than one request matches"
        raise UnknownName(f"{what} id {request_id!r}: `retinue inbox` lists the open ones")
    return request_of(codec, rows[0])


def request_of(codec: FrameCodec, row: tuple[Any, ...]) -> PendingRequest:
    """A row of `requests.sql` as a request, its prompt opened."""
    request_id, run_id, root, tenant_id, kind, key, sealed, facts, status, created, resolved, by, *late = row
    said: Json = codec.open(tenant_id, sealed, request_id)
    prompt, asked = (said["prompt"], said["asked"]) if isinstance(said, dict) else (said, {})
    return PendingRequest(
        request_id=request_id,
        run_id=run_id,
        root_run_id=root,
        tenant_id=tenant_id,
        kind=kind,
        key=key,
        prompt=prompt if isinstance(prompt, str) else "(content erased)",
        asked=asked,
        facts=json.loads(facts),
        status=status,
        created_at=created,
        resolved_at=resolved,
        resolved_by=by,
        assignee=late[0],
        expires_at=late[1],
        escalated_at=late[2],
    )


def frames_of(connection: Connection, codec: FrameCodec, run_id: str, after: int, limit: int) -> list[Frame]:
    """Frames of one run after a position."""
    return [_frame(connection, codec, row) for row in connection.execute(sql("read_run"), (run_id, after, limit))]


def tail(connection: Connection, codec: FrameCodec, after: int, limit: int) -> list[Frame]:
    """Frames of all runs in commit order; fewer than the limit when they are big, none only when there are none."""
    frames: list[Frame] = []
    size = 0
    for row in connection.execute(sql("tail"), (after, settled(connection), limit)):
        frames.append(_frame(connection, codec, row))
        size += len(row[6]) + len(row[7] or b"")
        if size > _TAIL_BYTES:
            break
    return frames


def newest(connection: Connection) -> int:
    """The number of the newest commit."""
    return min(settled(connection), int(one(connection, "SELECT coalesce(max(seq), 0) FROM journal")[0]))


def settled(connection: Connection) -> int:
    """The number up to which all is there that will ever be: what follows it may still be committed."""
    return int(one(connection, sql("settled"))[0])


def _frame(connection: Connection, codec: FrameCodec, row: tuple[Any, ...]) -> Frame:
    seq, run_id, tenant_id, position, epoch, *stored = row
    entries = decode(connection, codec, (run_id, tenant_id, position), stored)
    erased = codec.erased(tenant_id, bound_to(run_id, position), stored[-1], entries)
    return Frame(seq, run_id, tenant_id, position, epoch, entries, erased)


_TAIL_BYTES = 16 * 1024 * 1024
"""Stored bytes after which a tail is long enough."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which page of a job's ended rows is wanted."""

    run_id: str
    key: str
    after: int
    limit: int
    ordered: bool


def rows(connection: Connection, codec: FrameCodec, page: Rows) -> list[JobRow]:
    """Ended rows of a job in order of commit, or of index."""
    place = "runs.grp_index" if page.ordered else "runs.final_seq"
    query = f"{sql('ended')} AND runs.final_seq <= :settled AND {place} > :after ORDER BY {place} LIMIT :limit"
    values = {
        "key": page.key,
        "run_id": page.run_id,
        "after": page.after,
        "limit": page.limit,
        "settled": settled(connection),
    }
    return [
        JobRow(seq=seq, input_id=input_id, branch=_branch(connection, codec, tuple(row)))
        for seq, input_id, *row in many(connection, query, values)
    ]


def job(connection: Connection, run_id: str, key: str) -> JobState:
    """Counters of a job's group; zeros before the first window."""
    found = many(connection, sql("job_state"), {"key": key, "run_id": run_id})
    total, pending, ok, failed, rejected, exhausted, micros, waiting = found[0] if found else (0,) * 8
    return JobState(
        total=total,
        pending=pending,
        ok=ok,
        failed=failed,
        rejected=rejected,
        exhausted=bool(exhausted),
        cost_micros=micros,
        waiting=waiting,
    )


def dead_letters(connection: Connection, codec: FrameCodec, parent_run_id: str | None, limit: int) -> list[DeadLetter]:
    """Dead letters of one job or of all, oldest first."""
    where = "WHERE r.run_id = ?" if parent_run_id else ""
    rows = connection.execute(
        "SELECT d.source, d.line, d.reason, d.message, d.at, d.sealed, d.run_id, r.tenant_id FROM dead_letters d"
        f" LEFT JOIN runs r ON r.num = d.run {where} ORDER BY d.num LIMIT ?",
        ((parent_run_id,) if parent_run_id else ()) + (limit,),
    )
    return [
        DeadLetter(source, line, reason, message, at, codec.open(tenant, sealed, f"{source}:{line}"), run_id)
        for source, line, reason, message, at, sealed, run_id, tenant in rows
    ]
