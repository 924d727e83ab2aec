"""What the owner of a run does to the store: lease, append, park, finish, spawn. Operations of one transaction.

Every function takes the writing connection first and runs inside the writer's transaction. The rules they
keep are written on `runs.journal`. Knows no threads and no event loop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from retinue.runs.contracts import NOTHING, Usage
from retinue.runs.errors import Fenced
from retinue.runs.joins import canceler
from retinue.runs.ownership import Append, Appended, DeadLetter, Finish, NewRun, Park, Spawn, Yield
from retinue.store.encoding import EncodedAppend
from retinue.store.engine import Connection
from retinue.store.frames import Encoded
from retinue.store.rows import many, one
from retinue.store.sandboxes import keep_sandbox
from retinue.store.sessions import keep
from retinue.store.settling import End, cancel_all, finish, wake, write_frame, write_frames
from retinue.store.statements import sql

_NO_LINKS = (None, None, None, 0)


def append(connection: Connection, job: EncodedAppend) -> Appended:
    """Apply an append whole, or raise Fenced."""
    wanted = job.append
    position = wanted.expected + job.frame.count
    row = connection.execute(
        sql("may_end" if isinstance(wanted.end, Finish) else "fence"),
        {
            "position": position,
            "seen": wanted.seen,
            "num": wanted.num,
            "epoch": wanted.epoch,
            "expected": wanted.expected,
        },
    ).fetchone()
    if row is None:
        return _recognise(connection, job, position)
    seq = 0
    if job.frame.count:
        seq = write_frame(connection, wanted.num, wanted.tenant_id, (wanted.expected + 1, wanted.epoch), job.frame)
    if job.checkpoint is not None:
        connection.execute(sql("mark_checkpoint"), (job.checkpoint, wanted.num))
    if wanted.spawn is not None:
        _spawn(connection, job, wanted.spawn)
    if wanted.request is not None:
        _ask(connection, job)
    _keep_beside(connection, job)
    match wanted.end:
        case Park() as park:
            return _park(connection, job, park, row[0], position)
        case Yield():
            connection.execute("UPDATE runs SET status = 'queued', host = NULL WHERE num = ?", (wanted.num,))
        case Finish() as end:
            where = End(position, wanted.expected + 1, seq, wanted.entries[-1].at)
            finish(connection, wanted.num, end, where)
    return Appended(position)


def _keep_beside(connection: Connection, job: EncodedAppend) -> None:
    """Write what an append tells of sessions and sandboxes."""
    for session in job.sessions:
        keep(connection, job.append.num, session)
    for sandbox in job.append.sandboxes:
        keep_sandbox(connection, job.append.num, sandbox)


NewRow = tuple[NewRun, Sequence[Encoded]]
"""A run to be inserted, with its first frame and perhaps one for its past."""


def insert_runs(connection: Connection, rows: Sequence[NewRow], links: tuple[int | None, ...] = _NO_LINKS) -> None:
    """Insert runs with their frames; `links` are the row numbers of parent, root and group, and whether they are held.

    Their numbers are drawn beforehand, not asked back from each row.
    """
    numbers = many(connection, sql("run_numbers"), {"count": len(rows)})
    numbered = [(num, *row) for (num,), row in zip(numbers, rows, strict=True)]
    numbered.sort(key=_key_of)
    connection.executemany(sql("insert_run"), (_run_values(num, new, links) for num, new, _ in numbered))
    write_frames(
        connection,
        [
            (num, new.request.tenant_id, (position, 0), frame)
            for num, new, frames in numbered
            for position, frame in enumerate(frames, start=1)
        ],
    )


def _key_of(row: tuple[int, NewRun, Sequence[Encoded]]) -> str:
    """Keys that must be there once are written in one order, so that no two who write the same ones wait in a ring."""
    return row[1].request.idempotency_key or ""


def _run_values(num: int, new: NewRun, links: tuple[int | None, ...]) -> tuple[object, ...]:
    request = new.request
    return (
        num,
        request.run_id,
        *links,
        request.group_index,
        request.tenant_id,
        request.target,
        request.kind,
        request.input_id,
        request.job_id,
        request.idempotency_key,
        request.pool,
        request.queue,
        request.priority,
        request.depth,
        1 + len(new.past),
        2 if new.past else None,
        new.reserved.tokens,
        new.reserved.micros,
        new.at,
    )


def _recognise(connection: Connection, job: EncodedAppend, position: int) -> Appended:
    """After an ambiguous commit the same append may come again: found with its content, it was applied."""
    wanted = job.append
    parked = job.parked is not None and _holds(connection, wanted, position + 1, job.parked)
    if parked or _holds(connection, wanted, wanted.expected + 1, job.frame):
        return Appended(position + int(parked), parked)
    raise Fenced(
        f"run {wanted.run_id}: epoch {wanted.epoch} at position {wanted.expected} is not its newest: "
        "another owner continued it, or it has ended; this owner must stop"
    )


def _holds(connection: Connection, wanted: Append, position: int, frame: Encoded) -> bool:
    found = connection.execute(sql("frame_at"), (wanted.num, position)).fetchone()
    return bool(found == (wanted.epoch, frame.facts))


def _park(connection: Connection, job: EncodedAppend, park: Park, news: int, position: int) -> Appended:
    if news != job.append.seen or job.parked is None:
        return Appended(position, parked=False)
    write_frame(connection, job.append.num, job.append.tenant_id, (position + 1, job.append.epoch), job.parked)
    values = {
        "status": park.status,
        "reason": park.reason,
        "wake_at": park.wake_at,
        "position": position + 1,
        "at": job.append.entries[-1].at,
        "num": job.append.num,
    }
    connection.execute(sql("park"), values)
    return Appended(position + 1, parked=True)


def _spawn(connection: Connection, job: EncodedAppend, spawn: Spawn) -> None:
    parent = job.append.num
    root, cancel, held = one(connection, "SELECT coalesce(root, num), cancel, held FROM runs WHERE num = ?", (parent,))
    if cancel is not None:
        spawn = replace(spawn, children=())
        wake(connection, parent)
    reserved = sum((child.reserved for child in spawn.children), NOTHING)
    num, pending, _ = one(connection, sql("upsert_group"), _group_values(parent, spawn, reserved))
    if spawn.children:
        insert_runs(connection, list(zip(spawn.children, job.children, strict=True)), (parent, root, num, held))
    for letter, sealed in zip(spawn.rejected, job.rejected, strict=True):
        bury(connection, parent, letter, sealed)
    if spawn.exhausted and pending <= spawn.low and not spawn.children:
        wake(connection, parent)
    if spawn.cancel_rest:
        cause = (canceler(job.append.run_id), spawn.at)
        cancel_all(connection, job.codec, sql("rest_of_group"), num, cause)


def _group_values(parent: int, spawn: Spawn, reserved: Usage) -> dict[str, object]:
    return {
        "run": parent,
        "key": spawn.key,
        "created": len(spawn.children),
        "rejected": len(spawn.rejected),
        "low": spawn.low,
        "need": spawn.need,
        "cursor": json.dumps(spawn.cursor),
        "exhausted": int(spawn.exhausted),
        "reserved_tokens": reserved.tokens,
        "reserved_micros": reserved.micros,
    }


def bury(connection: Connection, num: int | None, letter: DeadLetter, sealed: bytes | None) -> None:
    """Insert a dead letter."""
    connection.execute(
        "INSERT INTO dead_letters (run, run_id, source, line, reason, message, at, sealed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (num, letter.run_id, letter.source, letter.line, letter.reason, letter.message, letter.at, sealed),
    )


def _ask(connection: Connection, job: EncodedAppend) -> None:
    request = job.append.request
    assert request is not None
    connection.execute(
        sql("ask"),
        (
            request.request_id,
            job.append.num,
            request.kind,
            request.key,
            json.dumps(request.facts),
            job.prompt,
            request.created_at,
            request.assignee,
            request.expires_at,
            request.escalated_at,
            request.status,
        ),
    )
