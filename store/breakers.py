"""Breakers in the store, so that all hosts see the same ones. Implements the port `runs.breakers.Breakers`.

A breaker that is closed and well has no row: looking costs some microseconds, and only failures write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from retinue.runs.breakers import Breaker, BreakerPolicy
from retinue.store.engine import Connection
from retinue.store.looks import SharedLook
from retinue.store.rows import many
from retinue.store.statements import sql

T = TypeVar("T")
_PROBE_LOOK = 2_000_000_000
"""After how long (ns) others look again how a probe went."""
_COLUMNS = "name, state, failures, since, until, openings, reason"
_READ = f"SELECT {_COLUMNS} FROM breakers"

Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Has an operation applied to a connection of the store."""


class StoreBreakers:
    """`peek` is for looks at a few rows, which count for a `moment` (s); `submit` is the way to the writer."""

    def __init__(self, peek: Apply, submit: Apply, policy: BreakerPolicy, moment: float) -> None:
        self._peek = peek
        self._submit = submit
        self._policy = policy
        self._rows = SharedLook(self._read, moment)

    async def admit(self, name: str, at: int) -> int | None:
        """See Breakers."""
        row = (await self._rows.get()).get(name)
        if row is None or row[1] == "closed":
            return None
        if at < row[4]:
            return int(row[4]) if row[1] == "open" else min(int(row[4]), at + _PROBE_LOOK)
        until: int | None = await self._change(lambda connection: admit(connection, self._policy, name, at))
        return None if until is None else min(until, at + _PROBE_LOOK)

    async def failed(self, name: str, reason: str, at: int) -> Breaker:
        """See Breakers."""
        breaker: Breaker = await self._change(lambda c: fail(c, self._policy, (name, reason), at))
        return breaker

    async def succeeded(self, name: str) -> bool:
        """See Breakers."""
        if name not in await self._rows.get():
            return False
        query = "DELETE FROM breakers WHERE name = ? RETURNING state"
        rows: list[Any] = await self._change(lambda connection: many(connection, query, (name,)))
        return bool(rows) and rows[0][0] != "closed"

    async def listed(self) -> list[Breaker]:
        """See Breakers."""
        rows: list[Any] = await self._peek(lambda connection: many(connection, f"{_READ} ORDER BY name"))
        return [Breaker(*row) for row in rows]

    async def _change(self, operation: Callable[[Connection], Any]) -> Any:
        changed = await self._submit(operation)
        self._rows.forget()
        return changed

    async def _read(self) -> dict[str, tuple[Any, ...]]:
        """The rows by name. Letting a probe through is no look."""
        rows: list[Any] = await self._peek(lambda connection: many(connection, _READ))
        return {row[0]: row for row in rows}


def admit(connection: Connection, policy: BreakerPolicy, name: str, at: int) -> int | None:
    """Let the first who comes after the pause through as the probe; the others are told when to ask again."""
    query = "UPDATE breakers SET state = 'half_open', until = ? WHERE name = ? AND state != 'closed' AND until <= ?"
    if many(connection, f"{query} RETURNING 1", (at + policy.probe_ns, name, at)):
        return None
    rows = many(connection, "SELECT until FROM breakers WHERE name = ? AND state != 'closed'", (name,))
    return int(rows[0][0]) if rows else None


def fail(connection: Connection, policy: BreakerPolicy, what: tuple[str, str], at: int) -> Breaker:
    """Count a failure; open when there are too many in a row, or when the probe failed."""
    name, reason = what
    rows = many(connection, f"{_READ} WHERE name = ?", (name,))
    known = Breaker(*rows[0]) if rows else Breaker(name, "closed", 0, at, 0, 0, "")
    failures = known.failures + 1
    if known.state == "open":
        return known
    if known.state == "closed" and failures < policy.failures:
        changed = Breaker(name, "closed", failures, known.since, 0, 0, reason)
    else:
        openings = known.openings + 1
        changed = Breaker(name, "open", failures, at, at + policy.pause(openings), openings, reason)
    values = (name, changed.state, failures, changed.since, changed.until, changed.openings, reason)
    connection.execute(sql("keep_breaker"), values)
    return changed
