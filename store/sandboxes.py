"""Sandboxes in the store: the rows beside the journal, and what keeps snapshots of workspaces.

A row is written with the append that changes it, so under the fence of its run's owner. Every snapshot that a run's
sandboxes began with or took is noted as used by the run: another run may be given it. All of it is plain: a state holds
no content and no secret. Operations of one transaction and short reads; knows no snapshot's place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.control import SandboxQuery, SandboxRecord, SnapshotPin
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.journal import Record
from retinue.runs.sandbox_past import RUN_ENDED, TOPIC
from retinue.runs.sandboxes import SandboxRow, SandboxState, SandboxStatus
from retinue.store.engine import Connection
from retinue.store.rows import clause_of, many, only_with_id
from retinue.store.statements import sql

Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Reads through the store's reader, or applies in a transaction of its writer."""
_FORGOTTEN_AT_ONCE = 500
_USED = "INSERT INTO snapshot_uses (run, snapshot_id, at) VALUES (?, ?, ?) ON CONFLICT (run, snapshot_id) DO NOTHING"
_PINS = "SELECT tenant_id, name, snapshot_id, manifest, at, by FROM snapshot_pins"
_PIN = (
    "INSERT INTO snapshot_pins (tenant_id, name, snapshot_id, manifest, at, by) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant_id, name) DO UPDATE SET snapshot_id = excluded.snapshot_id, manifest = excluded.manifest, "
    "at = excluded.at, by = excluded.by"
)


class StoreSandboxes:
    """Made by the store: what is asked of sandboxes beside the journal. `read` is for short reads; `submit` is the way
    to the writer."""

    def __init__(self, read: Apply, submit: Apply) -> None:
        self._read = read
        self._submit = submit

    async def listed(self, query: SandboxQuery) -> list[SandboxRecord]:
        """The sandboxes that a query asks for, newest first."""
        found: list[SandboxRecord] = await self._read(lambda connection: records(connection, query))
        return found

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """One sandbox by its id, or an unambiguous beginning or end of it. UnknownName otherwise."""
        found: SandboxRecord = await self._read(lambda connection: find(connection, sandbox_id))
        return found

    async def done_with(self, sandbox_ids: Collection[str], node: str) -> tuple[set[str], set[str]]:
        """Of these, those whose workspaces a node needs no longer: closed, of a run that has ended, or on another node
        by now; and those that the store does not know."""
        values = {"ids": json.dumps(sorted(sandbox_ids)), "node": node}
        rows: list[Any] = await self._read(lambda connection: many(connection, sql("done_sandboxes"), values))
        return {name for name, done in rows if done}, set(sandbox_ids) - {name for name, _ in rows}

    async def in_use(self, tenant_id: str, since: int) -> frozenset[str]:
        """The snapshots of a tenant that runs which have not ended before `since` (Unix ns), and pins, refer to."""
        values = {"tenant": tenant_id, "since": since}
        rows: list[Any] = await self._read(lambda connection: many(connection, sql("snapshots_in_use"), values))
        return frozenset(snapshot_id for _, snapshot_id in rows)

    async def forget_uses(self, since: int) -> None:
        """Let go of what runs used that ended before `since` (Unix ns): of some hundred runs at once."""
        values = {"since": since, "most": _FORGOTTEN_AT_ONCE}
        await self._submit(lambda connection: connection.execute(sql("forget_snapshot_uses"), values).fetchall())

    async def pin(self, pin: SnapshotPin) -> None:
        """Keep a snapshot under a name, in place of the one that has it."""
        values = (pin.tenant_id, pin.name, pin.snapshot_id, pin.manifest, pin.at, pin.by)
        await self._submit(lambda connection: connection.execute(_PIN, values).fetchall())

    async def unpin(self, tenant_id: str, name: str) -> SnapshotPin:
        """Take a pin out; what it was. UnknownName."""

        def write(connection: Connection) -> SnapshotPin:
            rows = many(connection, f"{_PINS} WHERE tenant_id = ? AND name = ?", (tenant_id, name))
            if not rows:
                raise UnknownName(f"tenant {tenant_id!r} has no pin {name!r}: `retinue sandbox list --pins` lists them")
            connection.execute(
                "DELETE FROM snapshot_pins WHERE tenant_id = ? AND name = ?", (tenant_id, name)
            ).fetchall()
            return _pin(rows[0])

        found: SnapshotPin = await self._submit(write)
        return found

    async def pins(self, tenant_id: str | None = None) -> list[SnapshotPin]:
        """The pins of a tenant, or of all, by tenant and name."""
        query = f"{_PINS} WHERE coalesce(?, tenant_id) = tenant_id ORDER BY tenant_id, name"
        rows: list[Any] = await self._read(lambda connection: many(connection, query, (tenant_id,)))
        return [_pin(row) for row in rows]

    async def sandbox_with(self, tenant_id: str, snapshot_id: str) -> SandboxRecord | None:
        """The newest sandbox of a run that used a snapshot."""
        query = (
            sql("sandboxes") + " WHERE r.tenant_id = ? AND s.run IN"
            " (SELECT run FROM snapshot_uses WHERE snapshot_id = ?) ORDER BY s.num DESC LIMIT 100"
        )
        rows: list[Any] = await self._read(lambda connection: many(connection, query, (tenant_id, snapshot_id)))
        found = [_record(row) for row in rows]
        named = [one for one in found if snapshot_id in (one.state.head_snapshot_id, one.state.base_snapshot_id)]
        return next(iter(named or found), None)


def keep_sandbox(connection: Connection, run: int, row: SandboxRow) -> None:
    """Write a sandbox as it is now; `run` is the number of its run."""
    state = row.state
    values = {
        "sandbox_id": state.sandbox_id,
        "run": run,
        "place": row.place or state.sandbox_id,
        "trace_id": row.trace_id,
        "manifest": state.manifest,
        "status": state.status,
        "node": state.node,
        "changed_at": state.changed_at,
        "closed_at": state.closed_at,
        "state": state.model_dump_json(exclude_defaults=True),
    }
    connection.execute(sql("keep_sandbox"), values).fetchall()
    for snapshot_id in {state.base_snapshot_id, state.head_snapshot_id} - {None}:
        connection.execute(_USED, (run, snapshot_id, state.changed_at)).fetchall()


def close_sandboxes(connection: Connection, run: int, at: int) -> tuple[Record, ...]:
    """Close the sandboxes of a run that ends without an owner; the records of it, for its journal."""
    query = "SELECT place, trace_id, state FROM sandboxes WHERE run = ? AND closed_at IS NULL ORDER BY num"
    closed = []
    for place, trace_id, text in many(connection, query, (run,)):
        changes = {"status": SandboxStatus.closed, "cause": RUN_ENDED, "changed_at": at, "closed_at": at}
        state = SandboxState.model_validate_json(text).model_copy(update=changes)
        keep_sandbox(connection, run, SandboxRow(state, trace_id, place))
        facts: dict[str, Json] = {"event": "closed", "key": None, "place": place, **state.model_dump(mode="json")}
        closed.append(Record(at=at, topic=TOPIC, by="runtime", facts=facts))
    return tuple(closed)


def records(connection: Connection, query: SandboxQuery) -> list[SandboxRecord]:
    """The sandboxes that a query asks for, newest first."""
    wanted = {
        "r.run_id = ?": query.run_id,
        "coalesce(o.run_id, r.run_id) = ?": query.root_run_id,
        "r.tenant_id = ?": query.tenant_id,
        "s.manifest = ?": query.manifest,
        "s.status = ?": query.status,
    }
    clause, values = clause_of(wanted, *(["s.closed_at IS NULL"] if query.open_only else []))
    rows = connection.execute(f"{sql('sandboxes')}{clause} ORDER BY s.num DESC LIMIT ?", (*values, query.limit))
    return [_record(row) for row in rows]


def find(connection: Connection, sandbox_id: str) -> SandboxRecord:
    """One sandbox by its id, or an unambiguous beginning or end of it. UnknownName otherwise."""
    if "%" in sandbox_id or "_" in sandbox_id:
        raise InvalidInput(f"sandbox: {sandbox_id!r} is no id of a sandbox, which is 24 hex digits")
    told = ("sandbox", "retinue sandbox list --all")
    return _record(only_with_id(connection, sql("sandboxes"), "s.sandbox_id", sandbox_id, told))


def _record(row: tuple[Any, ...]) -> SandboxRecord:
    *told, text = row
    names = [name for name in SandboxRecord.model_fields if name != "state"]
    return SandboxRecord(**dict(zip(names, told, strict=True)), state=SandboxState.model_validate_json(text))


def _pin(row: tuple[Any, ...]) -> SnapshotPin:
    return SnapshotPin(**dict(zip(SnapshotPin.model_fields, row, strict=True)))
