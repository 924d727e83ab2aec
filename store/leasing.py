"""Leases: who may run a run, and how it gets away from an owner that is dead.

A lease belongs to one incarnation of a host process. On one machine it is never taken over on suspicion: the
owner must be proven dead (its process is gone, or the machine has booted since) or is killed first, when it
has not shown itself for longer than the lease. Operations of one transaction; no threads, no event loop.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from retinue.runs.arrivals import Answer, Event, Group, News
from retinue.runs.contracts import ErrorInfo, Json, Status, StopReason, Usage
from retinue.runs.errors import StoreError, StoreUnreachable
from retinue.runs.journal import Accepted, AnyEntry, Finished, Frame
from retinue.runs.limits import NO_QUOTAS, Limits
from retinue.runs.ownership import HostInfo, LeasedRun
from retinue.runs.resources import guest_pool
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec, bound_to
from retinue.store.liveness import Owner, current_owner, is_alive, kill
from retinue.store.rows import many, one
from retinue.store.settling import end_unowned
from retinue.store.sharing import Place, take
from retinue.store.statements import sql


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs a host would lease: up to `limit` of a pool, fairly and within `limits`, or only one."""

    pool: str
    limit: int
    only: str | None = None
    limits: Limits = NO_QUOTAS


def register(connection: Connection, host: HostInfo, beat: float) -> None:
    """Announce a host."""
    connection.execute(
        "INSERT INTO hosts (host_id, kind, actor_id, pid, pid_started, boot_id, node, beat)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (host.host_id, host.kind, host.actor_id, host.pid, host.pid_started, host.boot_id, host.node, beat),
    )


def beat(connection: Connection, host_id: str, now: float) -> float:
    """A host shows itself, now (s): waiting for the lock or for room on the disk is no silence."""
    connection.execute("UPDATE hosts SET beat = ? WHERE host_id = ?", (now, host_id))
    return now


def host_number(connection: Connection, host_id: str) -> int | None:
    """The row of a host that is alive."""
    row = connection.execute("SELECT num FROM hosts WHERE host_id = ? AND state = 'alive'", (host_id,)).fetchone()
    return row[0] if row else None


def lease(connection: Connection, codec: FrameCodec, host: HostInfo, wanted: Wanted, at: int) -> list[LeasedRun]:
    """Take runs for a host; each gets a new epoch."""
    num = host_number(connection, host.host_id)
    if num is None:
        return []
    rows: list[Any]
    if wanted.only is not None:
        rows = many(connection, sql("lease_one"), {"host": num, "at": at, "only": wanted.only})
    else:
        rows = take(connection, Place(num, wanted.pool, wanted.limit, at, wanted.limits))
    stored = _stored_frames(connection, rows)
    return [run for row in rows if (run := _load_or_end(connection, codec, (row, stored[row[0]]), at)) is not None]


_Stored = list[tuple[Json, ...]]


def _stored_frames(connection: Connection, rows: list[tuple[Json, ...]]) -> dict[int, _Stored]:
    """What it takes to continue leased runs, by number: the first frame of each and those since its checkpoint."""
    stored: dict[int, _Stored] = {row[0]: [] for row in rows}
    for num, *frame in many(connection, sql("frames_for_lease"), {"nums": json.dumps(list(stored))}) if rows else ():
        stored[num].append(tuple(frame))
    return stored


def _load_or_end(
    connection: Connection, codec: FrameCodec, leased: tuple[tuple[Json, ...], _Stored], at: int
) -> LeasedRun | None:
    """A run whose journal cannot be read ends here; else it would stop every host that leases it."""
    row, stored = leased
    try:
        return _load(connection, codec, row, stored)
    except StoreUnreachable:
        raise
    except StoreError as error:
        num, run_id, tenant_id, epoch, position, *_ = row
        message = f"run {run_id} cannot be read: {error}; restore the store, its blobs and keys from one backup"
        info = ErrorInfo(reason=StopReason.internal_error, code="unreadable", message=message)
        entry = Finished(at=at, status=Status.failed, reason=StopReason.internal_error, error=info)
        end_unowned(connection, codec, (num, run_id, tenant_id, epoch, position), entry)
        return None


def _load(connection: Connection, codec: FrameCodec, row: tuple[Json, ...], stored: _Stored) -> LeasedRun:
    num, run_id, tenant_id, epoch, position, news, cancel, started_at = row
    fresh = position == 1 and news == 0
    frames = [
        Frame(seq, run_id, tenant_id, at, frame_epoch, decode(connection, codec, (run_id, tenant_id, at), facts))
        for seq, at, frame_epoch, *facts in stored
    ]
    accepted = frames[0].entries[0]
    assert isinstance(accepted, Accepted), f"run {run_id} does not begin with its acceptance"
    return LeasedRun(
        num=num,
        request=accepted.request,
        input=accepted.content,
        epoch=epoch,
        position=position,
        started_at=started_at,
        frames=tuple(frames[1:]),
        news=News(news, cancel=cancel) if fresh else load_news(connection, codec, (num, tenant_id, news, cancel, 0)),
    )


def decode(
    connection: Connection,
    codec: FrameCodec,
    place: tuple[str, str, int],
    stored: tuple[Json, ...] | list[Json],
) -> tuple[AnyEntry, ...]:
    """The entries of a stored frame (schema, facts, sealed) of (run, tenant, position)."""
    run_id, tenant_id, position = place
    schema, facts, sealed = stored

    def fetch(address: bytes) -> bytes | None:
        row = connection.execute("SELECT sealed FROM contents WHERE hash = ?", (address,)).fetchone()
        return row[0] if row else None

    return codec.decode(tenant_id, bound_to(run_id, position), (schema, facts, sealed), fetch)


def load_news(connection: Connection, codec: FrameCodec, row: tuple[int, str, int, str | None, int]) -> News:
    """All that has arrived for a run; `row` is (number, tenant, counter, cancel, held)."""
    num, tenant_id, seq, cancel, held = row
    groups = {found[0]: _group(found) for found in many(connection, sql("groups_of"), (num,))}
    answers = {
        key: Answer(request_id, status, by, at, codec.open(tenant_id, answer, request_id))
        for key, request_id, status, by, at, answer in many(connection, sql("answers_of"), (num,))
        if status != "withdrawn"
    }
    events = tuple(
        Event(number, name, at, codec.open(tenant_id, sealed, f"event:{num}"))
        for number, name, at, sealed in many(
            connection, "SELECT num, name, at, sealed FROM events WHERE run = ? ORDER BY num", (num,)
        )
    )
    return News(seq, groups, answers, events, cancel, bool(held))


def _group(row: tuple[Json, ...]) -> Group:
    key, total, pending, ok, failed, rejected, low, need, cursor, exhausted, tokens, micros, *used = row
    return Group(
        key=key,
        total=total,
        pending=pending,
        ok=ok,
        failed=failed,
        rejected=rejected,
        low=low,
        need=need,
        cursor=json.loads(cursor),
        exhausted=bool(exhausted),
        reserved=Usage(input_tokens=tokens, micros=micros),
        used=Usage(steps=used[0], hops=used[1], input_tokens=used[2], output_tokens=used[3], micros=used[4]),
    )


def retire(connection: Connection, host_id: str) -> int:
    """A host stops: its runs are queued again, and those of its own pool are anybody's from now on."""
    num = host_number(connection, host_id)
    if num is None:
        return 0
    [kind] = one(connection, "UPDATE hosts SET state = 'gone' WHERE num = ? RETURNING kind", (num,))
    if kind == "guest":
        query = "UPDATE runs SET pool = 'runs' WHERE pool = ? AND final IS NULL"
        connection.execute(query, (guest_pool(host_id),))
    return len(connection.execute(sql("take_back"), (num,)).fetchall())


def reclaim(connection: Connection, host_id: str, held: Collection[str]) -> int:
    """Queue again what a host has by its row and not in its hands; how many."""
    values = {"host": host_number(connection, host_id), "held": json.dumps(list(held))}
    return len(connection.execute(sql("take_back_others"), values).fetchall())


def find_dead(
    rows: list[tuple[str, int, float, str, float]], boot: str, own_beat: float | None, patience: float
) -> list[str]:
    """Which hosts are proven dead; rows are (id, pid, started, boot, beat). Kills those silent for too long.

    Silence is measured up to the judge's own beat before the newest: when nobody could write, nobody is silent,
    and all have had a moment since. Without one nobody is judged. A silent host of this very process is left
    alone: its leases are free when the process is gone.
    """
    me = current_owner()
    dead = []
    for host_id, pid, started, host_boot, last_beat in rows:
        owner = Owner(pid, started)
        if host_boot != boot or not is_alive(owner):
            dead.append(host_id)
        elif own_beat is not None and own_beat - last_beat > patience and owner != me:
            kill(owner)
    return dead
