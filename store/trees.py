"""Reading runs as trees: what is below a run and above it, what is asked in it, how its groups stand.

Short reads on the reader's connection, each bounded by a limit of its caller. Knows no writing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from retinue.runs.contracts import Json, PendingRequest, RunRecord, Status
from retinue.runs.control import GroupState, RunTree
from retinue.runs.machine import WAITING
from retinue.store import reading
from retinue.store.control import find
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec
from retinue.store.rows import many, one
from retinue.store.statements import sql

_WAITING = "status IN ({})".format(", ".join(f"'{status.value}'" for status in sorted(WAITING)))


def below(connection: Connection, run_id: str, most: int, deepest: int) -> RunTree:
    """A run and what is below it, `most` runs and `deepest` levels; what has not ended comes first."""
    values = {"run_id": run_id, "most": most, "deepest": deepest}
    records = records_of(connection, [row[0] for row in many(connection, sql("below"), values)])
    counts: dict[str, dict[Status, int]] = {}
    shown = json.dumps([record.run_id for record in records])
    for parent, status, count in many(connection, sql("children_by_status"), {"run_ids": shown}):
        counts.setdefault(parent, {})[Status(status)] = count
    return RunTree(tuple(records), counts)


def lineage(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunRecord]:
    """The records of these runs and of all runs above them, by id."""
    rows = many(connection, sql("lineage"), {"run_ids": json.dumps(list(run_ids))})
    return {record.run_id: record for record in records_of(connection, [row[0] for row in rows])}


def waiting(connection: Connection, most: int) -> tuple[list[RunRecord], int]:
    """Parked runs, oldest first, and how many there are in all."""
    rows = many(connection, f"SELECT num FROM runs WHERE {_WAITING} ORDER BY num LIMIT ?", (most,))
    total = len(rows)
    if total == most:
        total = int(one(connection, f"SELECT count(*) FROM runs WHERE {_WAITING}")[0])
    return records_of(connection, [row[0] for row in rows]), total


def asked(
    connection: Connection, codec: FrameCodec, run_ids: Sequence[str] | None, most: int
) -> tuple[list[PendingRequest], int]:
    """Open requests (of these runs, or of all), oldest first, and how many there are in all."""
    if run_ids is None:
        where, values = "q.status = 'open'", ""
    else:
        nums = "SELECT num FROM runs WHERE run_id IN (SELECT value FROM json_each(:run_ids))"
        where, values = f"q.run IN ({nums}) AND +q.status = 'open'", json.dumps(list(run_ids))
    rows = many(
        connection, f"{sql('requests')} WHERE {where} ORDER BY q.num LIMIT :most", {"run_ids": values, "most": most}
    )
    total = len(rows)
    if total == most:
        total = int(one(connection, f"SELECT count(*) FROM requests q WHERE {where}", {"run_ids": values})[0])
    return [reading.request_of(codec, row) for row in rows], total


def asked_below(connection: Connection, codec: FrameCodec, root_run_id: str) -> list[PendingRequest]:
    """Open requests of a root and of everything below it, oldest first."""
    where = "q.status = 'open' AND (r.run_id = :root OR o.run_id = :root)"
    rows = many(connection, f"{sql('requests')} WHERE {where} ORDER BY q.num", {"root": root_run_id})
    return [reading.request_of(codec, row) for row in rows]


def groups(connection: Connection, run_id: str) -> list[GroupState]:
    """The join state of each of a run's groups, in the order they were made."""
    found: dict[str, GroupState] = {}
    for key, total, pending, ok, failed, rejected, status, count in many(
        connection, sql("groups_by_status"), {"run_id": run_id}
    ):
        state = found.setdefault(key, GroupState(key, total, pending, ok, failed, rejected, {}))
        if status is not None:
            state.open[Status(status)] = count
    return list(found.values())


def boundary(connection: Connection, run_id: str) -> int:
    """The position behind which the journal is all that replay needs."""
    num, _ = find(connection, run_id)
    return max(int(one(connection, "SELECT coalesce(checkpoint_at, 1) FROM runs WHERE num = ?", (num,))[0]) - 1, 0)


def inputs(connection: Connection, codec: FrameCodec, run_ids: Sequence[str]) -> dict[str, Json]:
    """What these runs were given, by id; None where the tenant's key was destroyed."""
    found = {run_id: reading.frames_of(connection, codec, run_id, 0, 1) for run_id in run_ids}
    return {run_id: frames[0].entries[0].content for run_id, frames in found.items() if frames}


def records_of(connection: Connection, nums: Sequence[int]) -> list[RunRecord]:
    """Records of these rows, in this order."""
    query = sql("record") + " WHERE r.num IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
    found = {row[-1]: reading.record_of(row) for row in connection.execute(query, (json.dumps(list(nums)),))}
    return [found[num] for num in nums]
