"""Capability sessions in the store: the rows beside the journal, written with the append that changes them.

Operations of one transaction and short reads. What a call can be continued with is sealed under its tenant's key.
Knows no wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.control import SessionQuery, SessionRecord
from retinue.runs.errors import UnknownName
from retinue.runs.journal import Record
from retinue.runs.session_past import SESSION
from retinue.runs.sessions import Session, SessionStatus
from retinue.store.encoding import SealedRow
from retinue.store.engine import Connection
from retinue.store.rows import many
from retinue.store.statements import sql

_LEAST = 4
"""Characters that a part of an id must have."""


def keep(connection: Connection, run: int, row: SealedRow) -> None:
    """Write a session as it is now; `run` is the number of its run."""
    kept, sealed = row
    session, wire = kept.session, kept.session.wire
    values = (
        session.session_id,
        run,
        session.server,
        session.number,
        kept.trace_id,
        wire.scope if wire else None,
        wire.transport if wire else None,
        wire.protocol if wire else None,
        wire.session_id if wire else None,
        wire.pins if wire else None,
        session.status,
        session.cause,
        session.approval,
        wire.expires_at if wire else None,
        wire.expires_from if wire else None,
        session.opened_at,
        session.changed_at,
        session.closed_at,
        sealed,
    )
    connection.execute(sql("keep_session"), values)


def close_all(connection: Connection, run: int, at: int, cause: str) -> tuple[Record, ...]:
    """Close the sessions of a run that ends without an owner; the records of it, for its journal."""
    closed = [_closed(row, at, cause) for row in many(connection, sql("open_sessions"), (run,))]
    if closed:
        values = (SessionStatus.closed, cause, at, at, run)
        query = "UPDATE capability_sessions SET status = ?, cause = ?, changed_at = ?, closed_at = ?, sealed = NULL"
        connection.execute(f"{query} WHERE run = ? AND closed_at IS NULL", values)
    return tuple(closed)


def records(connection: Connection, query: SessionQuery) -> list[SessionRecord]:
    """The sessions that a query asks for, newest first."""
    wanted = {
        "r.run_id = ?": query.run_id,
        "coalesce(o.run_id, r.run_id) = ?": query.root_run_id,
        "r.tenant_id = ?": query.tenant_id,
        "s.server = ?": query.server,
        "s.status = ?": query.status,
    }
    clauses = [clause for clause, value in wanted.items() if value is not None]
    clauses += ["s.closed_at IS NULL"] if query.open_only else []
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    values = [value for value in wanted.values() if value is not None]
    rows = connection.execute(f"{sql('sessions')}{where} ORDER BY s.num DESC LIMIT ?", (*values, query.limit))
    return [_record(row) for row in rows]


def open_of(connection: Connection, run_ids: Iterable[str]) -> set[tuple[str, str]]:
    """(run, server) of the sessions of these runs that are open."""
    rows = many(connection, sql("open_session_servers"), (json.dumps(sorted(run_ids)),))
    return {(str(run_id), str(server)) for run_id, server in rows}


def find(connection: Connection, session_id: str) -> SessionRecord:
    """One session by its id, or an unambiguous beginning or end of it. UnknownName otherwise."""
    rows = many(connection, sql("sessions") + " WHERE s.session_id = ?", (session_id,))
    if not rows and len(session_id) >= _LEAST:
        where = " WHERE s.session_id LIKE ? || '%' OR s.session_id LIKE '%' || ? LIMIT 2"
        rows = many(connection, sql("sessions") + where, (session_id,) * 2)
    if len(rows) != 1:
        what = "there is no capability session" if not rows else "more than one capability session matches"
        raise UnknownName(f"{what} {session_id!r}: `retinue sessions list --all` lists them")
    return _record(rows[0])


def _closed(row: tuple[Any, ...], at: int, cause: str) -> Record:
    """The move of a session as its owner would have journaled it."""
    session_id, server, number, scope, transport, protocol, wire_id, pins, status, _, approval, *times = row
    expires_at, expires_from, opened_at, _ = times
    wire = None
    if transport is not None:
        wire = {
            "server": server,
            "transport": transport,
            "scope": scope,
            "protocol": protocol,
            "session_id": wire_id,
            "pins": pins,
            "expires_at": expires_at,
            "expires_from": expires_from,
        }
    session = Session.model_validate(
        {
            "session_id": session_id,
            "server": server,
            "number": number,
            "status": SessionStatus.closed,
            "cause": cause,
            "approval": approval,
            "wire": wire,
            "opened_at": opened_at,
            "changed_at": at,
            "closed_at": at,
        }
    )
    facts: dict[str, Json] = session.model_dump(mode="json") | {"before": status, "key": None}
    return Record(at=at, topic=SESSION, by="runtime", facts=facts)


def _record(row: tuple[Any, ...]) -> SessionRecord:
    return SessionRecord(**dict(zip(SessionRecord.model_fields, row, strict=True)))
