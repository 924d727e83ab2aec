"""Capability sessions of the store in plain Python: records of rows, and the closing of those that nobody owns."""

from __future__ import annotations

from dataclasses import replace

from retinue.runs.contracts import RunRequest
from retinue.runs.control import SessionRecord
from retinue.runs.journal import Record
from retinue.runs.session_past import SESSION
from retinue.runs.sessions import SessionRow, SessionStatus


def session_record(request: RunRequest, row: SessionRow) -> SessionRecord:
    """A row as everyone but the owner sees it."""
    session, wire = row.session, row.session.wire
    return SessionRecord(
        session_id=session.session_id,
        run_id=request.run_id,
        root_run_id=request.root_run_id,
        tenant_id=request.tenant_id,
        trace_id=row.trace_id,
        server=session.server,
        number=session.number,
        scope=wire.scope if wire else None,
        transport=wire.transport if wire else None,
        protocol=wire.protocol if wire else None,
        wire_session_id=wire.session_id if wire else None,
        pins=wire.pins if wire else None,
        status=session.status,
        cause=session.cause,
        approval=session.approval,
        expires_at=wire.expires_at if wire else None,
        expires_from=wire.expires_from if wire else None,
        opened_at=session.opened_at,
        changed_at=session.changed_at,
        closed_at=session.closed_at,
        resumable=bool(row.tokens),
    )


def close_rows(rows: dict[str, SessionRow], at: int, cause: str) -> tuple[Record, ...]:
    """Close what is open; the records of it."""
    records = []
    for name, row in rows.items():
        before = row.session.status
        if before is not SessionStatus.closed:
            changes = {"status": SessionStatus.closed, "cause": cause, "changed_at": at, "closed_at": at}
            session = row.session.model_copy(update=changes)
            rows[name] = replace(row, session=session, tokens={})
            facts = session.model_dump(mode="json") | {"before": before, "key": None}
            records.append(Record(at=at, topic=SESSION, by="runtime", facts=facts))
    return tuple(records)
