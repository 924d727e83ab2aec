"""Fair shares: which queued runs a host gets when tenants, queues and their limits compete.

A line is a tenant's runs of one queue. A free place goes to the tenant with the fewest runs in progress for its
weight; within a tenant to the highest priority, then the deepest, then the oldest. Who has reached a limit is
passed over. Everything is counted in the lease's own transaction, so no counter can be wrong after a crash.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Any

from retinue.runs.limits import Limit, Limits
from retinue.store.engine import Connection
from retinue.store.rows import many
from retinue.store.statements import sql

_MOST_LINES = 1_000
_SECOND = 1_000_000_000
_SET_BACK = 5 * _SECOND
"""Between the clocks of two hosts lies less: a bucket that was filled later than this from now knows another time."""
Line = tuple[str, str]
"""A tenant and a queue of its; or `tenant` or `queue` and the name of one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Who asks for runs: the host's row number, a pool, how many, when (Unix ns), and the limits in force."""

    host: int
    pool: str
    limit: int
    at: int
    limits: Limits


def take(connection: Connection, place: Place) -> list[tuple[Any, ...]]:
    """Move fairly chosen runs to the host; returns the rows of `lease.sql`."""
    lines = _lines(connection, place.pool)
    if len(lines) == 1 and not _limited(place.limits, lines[0]):
        tenant, queue = lines[0]
        values = {"host": place.host, "at": place.at, "pool": place.pool, "limit": place.limit}
        return connection.execute(sql("lease"), values | {"tenant": tenant, "queue": queue}).fetchall()
    if lines:
        connection.execute(sql("lease_turn"))
    chosen = _choose(connection, place, lines) if lines else []
    if not chosen:
        return []
    values = {"host": place.host, "at": place.at, "nums": json.dumps(chosen)}
    rows = connection.execute(sql("lease_these"), values).fetchall()
    order = {num: index for index, num in enumerate(chosen)}
    return sorted(rows, key=lambda row: order[row[0]])


def _lines(connection: Connection, pool: str) -> list[Line]:
    """The lines with waiting runs. Of too many a part, which begins where the part before ended."""

    def page(tenant: str, queue: str) -> list[Line]:
        values = {"pool": pool, "most": _MOST_LINES + 1, "tenant": tenant, "queue": queue}
        return many(connection, sql("waiting_lines"), values)

    name = f"lines:{pool}"
    kept = many(connection, "SELECT value FROM meta WHERE name = ?", (name,))
    lines = page(*json.loads(kept[0][0])) if kept else []
    if len(lines) <= _MOST_LINES:
        lines = list(dict.fromkeys([*lines, *page("", "")]))
    if len(lines) > _MOST_LINES:
        values = (name, json.dumps(lines[_MOST_LINES]))
        connection.execute(sql("keep_note"), values)
    elif kept:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    return lines[:_MOST_LINES]


def _limited(limits: Limits, line: Line) -> bool:
    tenant, queue = limits.of_tenant(line[0]), limits.of_queue(line[1])
    return any(limit.concurrency is not None or limit.rate is not None for limit in (tenant, queue))


@dataclass(slots=True)
class _Room:
    """What a tenant or a queue may still take: places, and starts when it has a rate."""

    places: float
    starts: float

    def admits(self, fresh: bool) -> bool:
        return self.places >= 1 and (not fresh or self.starts >= 1)

    def use(self, fresh: bool) -> None:
        self.places -= 1
        self.starts -= int(fresh)


class _Shares:
    """The state of one choice. What a tenant or a queue has is looked up when its turn comes, not before."""

    def __init__(self, connection: Connection, place: Place, lines: list[Line]) -> None:
        self.rooms: dict[Line, _Room] = {}
        self.queues: dict[str, list[str]] = defaultdict(list)
        self._connection = connection
        self._place = place
        self._active: dict[Line, int] = defaultdict(int)
        self._heads: dict[str, list[tuple[int, int, int, bool, str]]] = {}
        for tenant, queue in lines:
            self.queues[tenant].append(queue)
        query = "SELECT tenant_id, queue, count(*) FROM runs WHERE status = 'in_progress' GROUP BY tenant_id, queue"
        for tenant, queue, count in many(connection, query):
            self._active["tenant", tenant] += count
            self._active["queue", queue] += count

    def load(self, tenant: str) -> float:
        """Runs in progress for the tenant's weight."""
        return self._active["tenant", tenant] / self._place.limits.of_tenant(tenant).weight

    def next_of(self, tenant: str) -> int | None:
        """The tenant's next run that its limits admit."""
        if tenant not in self._heads:
            self._heads[tenant] = sorted(
                (head for queue in self.queues[tenant] for head in self._line(tenant, queue)), reverse=True
            )
        heads, own = self._heads[tenant], self._room(("tenant", tenant))
        while heads:
            _, _, num, fresh, queue = heads.pop()
            of_queue = self._room(("queue", queue))
            if own.admits(fresh) and of_queue.admits(fresh):
                own.use(fresh)
                of_queue.use(fresh)
                return num
        return None

    def _line(self, tenant: str, queue: str) -> set[tuple[int, int, int, bool, str]]:
        """The first runs of a line; where a rate lets few begin, the first of those that only go on besides."""
        own, of_queue = self._room(("tenant", tenant)), self._room(("queue", queue))
        room = int(min(own.places, of_queue.places, self._place.limit))
        if room < 1:
            return set()
        values = (self._place.pool, tenant, queue, room)
        rows = many(self._connection, sql("head_of_line"), values)
        if min(own.starts, of_queue.starts) < room:
            rows += many(self._connection, sql("resumed_of_line"), values)
        return {(-priority, -depth, num, bool(fresh), queue) for num, priority, depth, fresh in rows}

    def _room(self, name: Line) -> _Room:
        if name not in self.rooms:
            self.rooms[name] = _room(self._connection, self._place, name, self._active[name])
        return self.rooms[name]


def _choose(connection: Connection, place: Place, lines: list[Line]) -> list[int]:
    """Hand out places one by one to the tenant that has the least for its weight."""
    shares = _Shares(connection, place, lines)
    waiting = [(shares.load(tenant), tenant) for tenant in shares.queues]
    heapify(waiting)
    chosen: list[int] = []
    while waiting and len(chosen) < place.limit:
        load, tenant = waiting[0]
        num = shares.next_of(tenant)
        if num is None:
            heappop(waiting)
            continue
        chosen.append(num)
        heapreplace(waiting, (load + 1 / place.limits.of_tenant(tenant).weight, tenant))
    if chosen:
        _save_buckets(connection, place, shares)
    return chosen


def _room(connection: Connection, place: Place, name: Line, active: int) -> _Room:
    limit = _limit(place.limits, name)
    places = float("inf") if limit.concurrency is None else limit.concurrency - active
    if limit.rate is None:
        return _Room(places, float("inf"))
    found = many(connection, "SELECT tokens, at FROM buckets WHERE scope = ? AND name = ?", name)
    tokens, at = found[0] if found and found[0][1] - place.at < _SET_BACK else (limit.burst, place.at)
    return _Room(places, min(limit.burst, tokens + max(place.at - at, 0) / _SECOND * limit.rate))


def _save_buckets(connection: Connection, place: Place, shares: _Shares) -> None:
    for name, room in shares.rooms.items():
        if _limit(place.limits, name).rate is not None:
            connection.execute(sql("keep_bucket"), (*name, room.starts, place.at))


def _limit(limits: Limits, name: Line) -> Limit:
    return limits.of_tenant(name[1]) if name[0] == "tenant" else limits.of_queue(name[1])
