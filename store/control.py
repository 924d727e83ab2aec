"""What everyone but the owner does to the store: submit, answer, signal, cancel. Operations of one transaction.

They never touch the journal of a run that somebody owns: they leave news and the owner acts. A run that
nobody owns is canceled here, under a new epoch. Knows no threads and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.limits import Limits
from retinue.runs.ownership import NewRun
from retinue.runs.sessions import CLOSE
from retinue.store import accounts, sessions
from retinue.store.engine import Connection
from retinue.store.frames import Encoded, FrameCodec
from retinue.store.owning import NewRow, insert_runs
from retinue.store.rows import many
from retinue.store.settling import cancel_all, wake
from retinue.store.statements import sql


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a person said, sealed."""

    request_id: str
    status: str
    by: str
    at: int
    value: Json


def submit(connection: Connection, runs: list[tuple[NewRun, tuple[Encoded, ...]]], limits: Limits) -> list[str]:
    """Accept runs; a known (tenant, idempotency key) gives the run that has it. Returns run ids; LimitReached."""
    accepted: list[str] = []
    fresh: dict[tuple[str | None, str], NewRow] = {}
    query = "SELECT run_id FROM runs WHERE tenant_id = ? AND idempotency_key = ?"
    for new, frames in runs:
        request = new.request
        asked = request.idempotency_key
        key = (None, request.run_id) if asked is None else (request.tenant_id, asked)
        known = None if asked is None else connection.execute(query, key).fetchone()
        if known is None:
            fresh.setdefault(key, (new, frames))
        accepted.append(known[0] if known else fresh[key][0].request.run_id)
    if fresh:
        insert_runs(connection, list(fresh.values()))
        accounts.accept(connection, [new for new, _ in fresh.values()], limits)
    return accepted


def resolve(connection: Connection, codec: FrameCodec, said: Resolution) -> str:
    """Close an open request and wake its run. Returns the full request id."""
    num, run, kind, status, request_id, expires_at, tenant_id = find_request(connection, said.request_id)
    if status == "open" and expires_at is not None and said.at >= expires_at:
        status = "expired"
    if status != "open":
        raise InvalidInput(f"request {request_id} is {status} already: `retinue inbox` lists the open ones")
    verbs = ("answered",) if kind == "input" else ("approved", "denied")
    if said.status not in verbs:
        remedy = "answer it" if kind == "input" else "approve or deny it"
        raise InvalidInput(f"request {request_id} asks for {kind} and cannot be {said.status}: {remedy}")
    answer = None if said.value is None else codec.seal(tenant_id, said.value, request_id)
    connection.execute(
        "UPDATE requests SET status = ?, resolved_at = ?, resolved_by = ?, answer = ? WHERE num = ?",
        (said.status, said.at, said.by, answer, num),
    )
    wake(connection, run)
    return str(request_id)


def find_request(connection: Connection, request_id: str) -> tuple[Json, ...]:
    """Number, run, kind, status, id, expiry and tenant of a request, by an unambiguous end or beginning of its id."""
    rows = many(connection, sql("request_to_resolve"), {"request_id": request_id})
    if len(rows) != 1:
        what = "no request has" if not rows else f"{len(rows)} requests match"
        raise UnknownName(f"{what} id {request_id!r}: `retinue inbox` lists the open ones")
    return tuple(rows[0])


def signal(connection: Connection, codec: FrameCodec, place: tuple[str, str], value: Json, at: int) -> None:
    """Send an event (name) to a run (id)."""
    run_id, name = place
    num, tenant_id = find(connection, run_id)
    if not wake(connection, num):
        raise InvalidInput(f"run {run_id} has ended and takes no events: `retinue ps` lists those that have not")
    sealed = codec.seal(tenant_id, value, f"event:{num}")
    connection.execute("INSERT INTO events (run, name, at, sealed) VALUES (?, ?, ?, ?)", (num, name, at, sealed))


def find(connection: Connection, run_id: str) -> tuple[int, str]:
    """Row number and tenant of a run by its id, or by an unambiguous end or beginning of it."""
    row = connection.execute("SELECT num, tenant_id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is None and len(run_id) >= 4:
        rows = connection.execute(
            "SELECT num, tenant_id FROM runs WHERE run_id LIKE ? || '%' OR run_id LIKE '%' || ? LIMIT 3",
            (run_id, run_id),
        ).fetchall()
        if len(rows) > 1:
            raise UnknownName(f"{run_id!r} matches more than one run: give more of its id (`retinue ps`)")
        row = rows[0] if rows else None
    if row is None:
        raise UnknownName(f"there is no run {run_id!r}: `retinue ps` lists them")
    return int(row[0]), str(row[1])


def cancel(connection: Connection, codec: FrameCodec, run_id: str, by: str, at: int) -> int:
    """Mark a run and all below it, children first."""
    return cancel_all(connection, codec, sql("tree"), run_id, (by, at))


def close_session(connection: Connection, codec: FrameCodec, session_id: str, by: str, at: int) -> str:
    """Leave word that a session is to be closed: the run's owner acts on it. Returns the full id.

    InvalidInput when it is closed already.
    """
    found = sessions.find(connection, session_id)
    if found.closed_at is not None:
        raise InvalidInput(f"capability session {found.session_id} is closed already ({found.cause})")
    said: dict[str, Json] = {"session_id": found.session_id, "by": by}
    signal(connection, codec, (found.run_id, CLOSE), said, at)
    return found.session_id
