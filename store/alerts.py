"""Alerts in the store: what the rules look at, the rows that stand, whom they have still to reach, whose turn it is.

Every look is bounded and by index. A row is committed before anybody is told, so a crash in between repeats a
message and loses none. Knows no rule, no channel and no event loop.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from retinue.runs.alert_text import said
from retinue.runs.alerts import MOST, OTHERS, Alert, Cause, Changes, Cursor, Horizon, Look, came_back, joined
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.store import alert_causes
from retinue.store.engine import Connection
from retinue.store.rows import many, one
from retinue.store.statements import sql

_COLUMNS = (
    "num, kind, subject, message, facts, raised_at, channels, tries, sent_at, acked_at, acked_by, cleared_at"
    " FROM alerts"
)
_STANDING = "INDEXED BY alerts_standing"

Operation = Callable[[Connection], Any]
Apply = Callable[[Operation], Awaitable[Any]]
"""Reads through the store's reader, or applies in a transaction of its writer."""


class StoreAlerts:
    """Made by the store. `incarnation` goes into the ids that receivers know alerts by."""

    def __init__(self, read: Apply, submit: Apply, incarnation: str) -> None:
        self._read = read
        self._submit = submit
        self.incarnation = incarnation

    async def take_turn(self, by: str, at: int, until: int) -> bool:
        """Whether it is this process's turn to raise and tell, until a moment (Unix ns); a dead one's turn runs out."""
        taken: bool = await self._submit(lambda connection: take_turn(connection, by, at, until))
        return taken

    async def give_turn(self, by: str) -> None:
        """Let another process have the turn at once."""
        query = "DELETE FROM meta WHERE name = 'alerts_turn' AND value ->> '$.by' = ?"
        await self._submit(lambda connection: connection.execute(query, (by,)).fetchall())

    async def look(self, before: int) -> Look:
        """What the rules need; requests and waits for events that began before a moment, and those passed on."""
        found: Look = await self._read(lambda connection: look(connection, before))
        return found

    async def horizon(self) -> Horizon:
        """How far the journal goes and how far readers may follow it; bounded."""
        found: Horizon = await self._read(lambda connection: Horizon(*one(connection, sql("horizon"))))
        return found

    async def change(self, changes: Changes) -> None:
        """Clear, raise and move the cursor, in one transaction."""
        await self._submit(lambda connection: change(connection, changes))

    async def due(self, at: int, limit: int) -> list[Alert]:
        """Alerts that somebody has to be told of now, the longest due first."""
        query = f"SELECT {_COLUMNS} WHERE due_at <= ? ORDER BY due_at LIMIT ?"
        found: list[Alert] = await self._read(lambda c: [_alert(row) for row in many(c, query, (at, limit))])
        return found

    async def tried(self, alert: Alert, left: tuple[str, ...], at: int, due_at: int | None) -> None:
        """One try is over: who has still to be told, and when to try again (None: never). An acknowledgement wins."""
        query = (
            "UPDATE alerts SET tries = tries + 1, channels = :left,"
            " sent_at = CASE :left WHEN '' THEN :at ELSE sent_at END,"
            " due_at = CASE WHEN acked_at IS NULL THEN :due END WHERE num = :num"
        )
        values = {"left": " ".join(left), "at": at, "due": due_at, "num": alert.id}
        await self._submit(lambda connection: connection.execute(query, values).fetchall())

    async def listed(self, everything: bool = False, limit: int = 1_000) -> list[Alert]:
        """Those that stand and were not acknowledged, oldest first; or all there were, newest first."""
        some = f"{_STANDING} WHERE cleared_at IS NULL AND acked_at IS NULL ORDER BY num"
        query = f"SELECT {_COLUMNS} {'ORDER BY num DESC' if everything else some} LIMIT ?"
        found: list[Alert] = await self._read(lambda c: [_alert(row) for row in many(c, query, (limit,))])
        return found

    async def acknowledge(self, alert_id: int, by: str, at: int) -> Alert:
        """Somebody knows: nobody else is told. What tells of an end clears; what lasts clears with its cause."""
        known: Alert = await self._submit(lambda connection: acknowledge(connection, alert_id, by, at))
        return known


def take_turn(connection: Connection, by: str, at: int, until: int) -> bool:
    """See StoreAlerts. A turn longer than one taken now dates from before the clock was set back: it is over."""
    query = (
        "INSERT INTO meta (name, value) VALUES ('alerts_turn', :turn) ON CONFLICT (name) DO UPDATE SET value = :turn"
        " WHERE meta.value ->> '$.by' = :by OR CAST(meta.value ->> '$.until' AS BIGINT) <= :at"
        " OR CAST(meta.value ->> '$.until' AS BIGINT) > :until RETURNING 1"
    )
    turn = json.dumps({"by": by, "until": until})
    return bool(many(connection, query, {"turn": turn, "by": by, "at": at, "until": until}))


def look(connection: Connection, before: int) -> Look:
    """See StoreAlerts."""
    query = f"SELECT {_COLUMNS} {_STANDING} WHERE cleared_at IS NULL ORDER BY num"
    standing = tuple(_alert(row) for row in many(connection, query))
    return alert_causes.look(connection, standing, _cursor(connection), before)


def change(connection: Connection, changes: Changes) -> None:
    """See StoreAlerts."""
    for num in changes.clear:
        connection.execute("UPDATE alerts SET cleared_at = ? WHERE num = ? AND cleared_at IS NULL", (changes.at, num))
    for cause in changes.causes:
        _raise(connection, cause, changes)
    for name, value in (("alerts_failed", changes.cursor.failed), ("alerts_refused", changes.cursor.refused)):
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (str(value), name))


def acknowledge(connection: Connection, alert_id: int, by: str, at: int) -> Alert:
    """See StoreAlerts."""
    rows = many(connection, f"SELECT {_COLUMNS} WHERE num = ?", (alert_id,))
    if not rows:
        raise UnknownName(f"there is no alert {alert_id}: `retinue alerts` lists those that stand")
    alert = _alert(rows[0])
    if alert.cleared_at is not None or alert.acked_at is not None:
        how = "cleared" if alert.acked_at is None else f"acknowledged by {alert.acked_by}"
        raise InvalidInput(f"alert {alert_id} is {how} already: `retinue alerts` lists those that stand")
    query = "UPDATE alerts SET acked_at = ?, acked_by = ?, due_at = NULL, cleared_at = ? WHERE num = ?"
    connection.execute(query, (at, by, None if alert.lasting else at, alert_id))
    return _alert(one(connection, f"SELECT {_COLUMNS} WHERE num = ?", (alert_id,)))


def _raise(connection: Connection, cause: Cause, changes: Changes) -> None:
    """Insert an alert; into the one that stands for the subject, or for all others, what more there is to count."""
    standing = _standing(connection, cause.kind, cause.subject)
    if standing is None and _stand(connection, cause.kind) >= MOST:
        if "count" not in cause.facts:
            return  # it lasts, so a later look finds it again
        cause = Cause(cause.kind, OTHERS, cause.facts)
        standing = _standing(connection, cause.kind, OTHERS)
    if standing is not None and came_back(standing.facts, cause.facts):
        connection.execute("UPDATE alerts SET cleared_at = ? WHERE num = ?", (changes.at, standing.id))
        standing = None
    if standing is None:
        _insert(connection, cause, changes)
    elif "count" in cause.facts:
        facts = joined(standing.facts, cause.facts)
        values = (json.dumps(facts), said(cause.kind, cause.subject, facts), standing.id)
        connection.execute("UPDATE alerts SET facts = ?, message = ? WHERE num = ?", values)


def _insert(connection: Connection, cause: Cause, changes: Changes) -> None:
    query = (
        "INSERT INTO alerts (kind, subject, message, facts, raised_at, channels, due_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    message = said(cause.kind, cause.subject, cause.facts)
    due_at = changes.at if changes.channels else None
    values = (
        cause.kind,
        cause.subject,
        message,
        json.dumps(cause.facts),
        changes.at,
        " ".join(changes.channels),
        due_at,
    )
    connection.execute(query, values)


def _standing(connection: Connection, kind: str, subject: str) -> Alert | None:
    query = f"SELECT {_COLUMNS} WHERE kind = ? AND subject = ? AND cleared_at IS NULL"
    rows = many(connection, query, (kind, subject))
    return _alert(rows[0]) if rows else None


def _stand(connection: Connection, kind: str) -> int:
    query = "SELECT count(*) FROM alerts WHERE kind = ? AND subject != ? AND cleared_at IS NULL AND acked_at IS NULL"
    return int(one(connection, query, (kind, OTHERS))[0])


def _cursor(connection: Connection) -> Cursor:
    found = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('alerts_failed', 'alerts_refused')"))
    return Cursor(int(found["alerts_failed"]), int(found["alerts_refused"]))


def _alert(row: tuple[Any, ...]) -> Alert:
    num, kind, subject, message, facts, raised_at, channels, tries, sent_at, acked_at, acked_by, cleared_at = row
    return Alert(
        id=num,
        kind=kind,
        subject=subject,
        message=message,
        facts=json.loads(facts),
        raised_at=raised_at,
        to=tuple(channels.split()),
        tries=tries,
        sent_at=sent_at,
        acked_at=acked_at,
        acked_by=acked_by,
        cleared_at=cleared_at,
    )
