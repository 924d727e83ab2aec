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
from retinue.runs.journal import Record
from retinue.runs.session_past import SESSION
from retinue.runs.sessions import Session, SessionStatus, Wire
from retinue.store.encoding import SealedRow
from retinue.store.engine import Connection
from retinue.store.rows import clause_of, many, only_with_id
from retinue.store.statements import sql

_OWN = tuple(field for field in Session.model_fields if field != "wire")
_WIRE = {"wire_id" if field == "session_id" else field: field for field in Wire.model_fields if field != "server"}
"""The columns that tell the connection, and the field of `Wire` that each holds; all are null without one."""
_COLUMNS = (*_OWN, *_WIRE)
_KEPT = (*_COLUMNS, "run", "trace_id", "sealed")
_LASTING = {"session_id", "run", "server", "number", "trace_id", "opened_at"}
"""What a session keeps from its opening to its end."""
_KEEP = (
    f"INSERT INTO capability_sessions ({', '.join(_KEPT)}) VALUES ({', '.join(f':{name}' for name in _KEPT)}) "
    "ON CONFLICT (session_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _KEPT if name not in _LASTING)
)
_OPEN = f"SELECT {', '.join(_COLUMNS)} FROM capability_sessions WHERE run = ? AND closed_at IS NULL ORDER BY num"


def keep(connection: Connection, run: int, row: SealedRow) -> None:
    """Write a session as it is now; `run` is the number of its run."""
    kept, sealed = row
    session, wire = kept.session, kept.session.wire
    values = {name: getattr(session, name) for name in _OWN}
    values |= {name: None if wire is None else getattr(wire, field) for name, field in _WIRE.items()}
    connection.execute(_KEEP, values | {"run": run, "trace_id": kept.trace_id, "sealed": sealed})


def close_all(connection: Connection, run: int, at: int, cause: str) -> tuple[Record, ...]:
    """Close the sessions of a run that ends without an owner; the records of it, for its journal."""
    closed = [_closed(row, at, cause) for row in many(connection, _OPEN, (run,))]
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
    clause, values = clause_of(wanted, *(["s.closed_at IS NULL"] if query.open_only else []))
    rows = connection.execute(f"{sql('sessions')}{clause} ORDER BY s.num DESC LIMIT ?", (*values, query.limit))
    return [_record(row) for row in rows]


def open_of(connection: Connection, run_ids: Iterable[str]) -> set[tuple[str, str]]:
    """(run, server) of the sessions of these runs that are open."""
    rows = many(connection, sql("open_session_servers"), (json.dumps(sorted(run_ids)),))
    return {(str(run_id), str(server)) for run_id, server in rows}


def find(connection: Connection, session_id: str) -> SessionRecord:
    """One session by its id, or an unambiguous beginning or end of it. UnknownName otherwise."""
    told = ("capability session", "retinue sessions list --all")
    return _record(only_with_id(connection, sql("sessions"), "s.session_id", session_id, told))


def _closed(row: tuple[Any, ...], at: int, cause: str) -> Record:
    """The move of a session as its owner would have journaled it."""
    found = dict(zip(_COLUMNS, row, strict=True))
    wire = {field: found.pop(name) for name, field in _WIRE.items()} | {"server": found["server"]}
    facts: dict[str, Json] = {"before": found["status"], "key": None}
    found |= {"status": SessionStatus.closed, "cause": cause, "changed_at": at, "closed_at": at}
    session = Session.model_validate(found | {"wire": None if wire["transport"] is None else wire})
    return Record(at=at, topic=SESSION, by="runtime", facts=session.model_dump(mode="json") | facts)


def _record(row: tuple[Any, ...]) -> SessionRecord:
    return SessionRecord(**dict(zip(SessionRecord.model_fields, row, strict=True)))
