"""Tenants' money in the store: reserved when a run is accepted, settled when it ends, in the run's own transaction.

A run that no parent answers for stands on an account: `runs.account` names its window, `kept_micros` is what is
reserved for it there. What is reserved is therefore always the sum over runs, and no crash can lose a part of it. A
run that ends before some that are below it keeps as much as they may still spend, until they have ended too.
Operations of one transaction; knows no threads and no event loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.runs.accounts import Account, begins_at, no_room, per_of, window_at
from retinue.runs.limits import Limit, Limits
from retinue.runs.ownership import NewRun
from retinue.store.engine import Connection
from retinue.store.rows import many, one
from retinue.store.statements import sql

_COLUMNS = "tenant_id, name, limit_micros, spent, reserved, refused_at FROM accounts"

Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Reads through the store's reader, or applies in a transaction of its writer."""


class StoreAccounts:
    """Made by the store: what people may ask of accounts."""

    def __init__(self, read: Apply, submit: Apply) -> None:
        self._read = read
        self._submit = submit

    async def listed(self) -> list[Account]:
        """All accounts there are, by tenant, the newest window first."""
        query = f"SELECT {_COLUMNS} ORDER BY tenant_id, name DESC"
        found: list[Account] = await self._read(lambda c: [Account(*row) for row in many(c, query)])
        return found

    async def refused(self, tenant_id: str, window: str, at: int) -> None:
        """Note that a run was refused for want of room, for the alert: the refusal itself took all back."""
        query = "UPDATE accounts SET refused_at = ? WHERE tenant_id = ? AND name = ?"
        await self._submit(lambda connection: connection.execute(query, (at, tenant_id, window)).fetchall())


def exhausted(connection: Connection, most: int) -> tuple[Account, ...]:
    """Accounts that have refused a run or have nothing left, the newest windows of each tenant first."""
    query = f"SELECT {_COLUMNS} WHERE refused_at IS NOT NULL OR spent >= limit_micros ORDER BY name DESC LIMIT ?"
    return tuple(Account(*row) for row in many(connection, query, (most,)))


# -- reserving ------------------------------------------------------------------------------------------------------


def accept(connection: Connection, runs: Sequence[NewRun], limits: Limits) -> None:
    """Reserve what new runs may spend. LimitReached when that is too much; then nothing must be committed."""
    wanted: dict[tuple[str, str], int] = defaultdict(int)
    stand = []
    for new in runs:
        request = new.request
        limit = limits.of_tenant(request.tenant_id)
        if limit.micros is not None:
            window = window_at(limit.per, new.at)
            micros = request.budget.micros or 0
            wanted[request.tenant_id, window] += micros
            stand.append((window, micros, request.run_id))
    for place, micros in sorted(wanted.items()):
        _reserve(connection, place, micros, limits.of_tenant(place[0]))
    for row in stand:
        connection.execute("UPDATE runs SET account = ?, kept_micros = ? WHERE run_id = ?", row).fetchall()


def reopen(connection: Connection, num: int, micros: int, limit: Limit, at: int) -> None:
    """A run that no parent answers for goes on, and may spend so much more. LimitReached.

    What it has spent is on the books; what it kept for those below it is a part of its limit again.
    """
    run = _locked(connection, num)
    if run.parent is not None:
        carry(connection, run.parent, Moved(run.kept, -run.micros))
    elif run.account is not None:
        _settle(connection, {(run.tenant_id, run.account): (run.kept, 0)})
    account = None
    if limit.micros is not None:
        account = window_at(limit.per, at)
        _reserve(connection, (run.tenant_id, account), micros, limit)
    charged = run.charged if run.parent is None else run.micros
    values = (account, 0 if account is None else micros, charged, num)
    connection.execute("UPDATE runs SET account = ?, kept_micros = ?, charged = ? WHERE num = ?", values).fetchall()


def lean(connection: Connection, num: int) -> int:
    """A run goes on under a parent that answers for it; returns what its group holds already."""
    kept = _locked(connection, num).kept
    query = "UPDATE runs SET account = NULL, kept_micros = 0, charged = 0 WHERE num = ?"
    connection.execute(query, (num,)).fetchall()
    return kept


def _reserve(connection: Connection, place: tuple[str, str], micros: int, limit: Limit) -> None:
    assert limit.micros is not None
    _open(connection, place, limit.micros)
    query = (
        "UPDATE accounts SET reserved = reserved + :more, limit_micros = :most,"
        " refused_at = CASE WHEN :most > limit_micros THEN NULL ELSE refused_at END"
        " WHERE tenant_id = :tenant AND name = :name AND (:more = 0 OR spent + reserved + :more <= :most) RETURNING 1"
    )
    values = {"more": micros, "most": limit.micros, "tenant": place[0], "name": place[1]}
    if not many(connection, query, values):
        found = one(connection, f"SELECT {_COLUMNS} WHERE tenant_id = ? AND name = ?", place)
        tenant_id, window, _, spent, reserved, _ = found
        raise no_room(Account(tenant_id, window, limit.micros, spent, reserved), micros)


def _open(connection: Connection, place: tuple[str, str], most: int) -> None:
    """Have an account. The first of its kind takes over what the tenant has spent in the window, and its open runs."""
    tenant_id, window = place
    if many(connection, "SELECT 1 FROM accounts WHERE tenant_id = ? AND name = ?", place):
        return
    query = "INSERT INTO accounts (tenant_id, name, limit_micros) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1"
    made = many(connection, query, (*place, most))
    query = "SELECT 1 FROM accounts WHERE tenant_id = ? AND name LIKE ? AND name != ? LIMIT 1"
    if not made or many(connection, query, (tenant_id, f"{per_of(window)}%", window)):
        return
    connection.execute("UPDATE accounts SET reserved = 0 WHERE tenant_id = ?", (tenant_id,)).fetchall()
    query = (
        "UPDATE runs SET account = ? WHERE tenant_id = ?"
        " AND (kept_micros > 0 AND account IS NOT NULL OR final IS NULL AND parent IS NULL)"
    )
    connection.execute(query, (window, tenant_id)).fetchall()
    query = (
        "UPDATE accounts SET reserved = (SELECT CAST(coalesce(sum(kept_micros), 0) AS bigint) FROM runs"
        " WHERE tenant_id = :tenant AND account = :name), spent = (SELECT CAST(coalesce(sum(micros), 0) AS bigint)"
        " FROM runs WHERE tenant_id = :tenant AND parent IS NULL AND final IS NOT NULL AND created_at >= :since)"
        " WHERE tenant_id = :tenant AND name = :name"
    )
    values = {"tenant": tenant_id, "name": window, "since": begins_at(window)}
    connection.execute(query, values).fetchall()


# -- settling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closing:
    """A run as it ends. `share` is what its group holds for it, `micros` what it and all below it have spent.

    `below` is what its own groups hold for children that have not ended.
    """

    num: int
    share: int
    micros: int
    tenant_id: str
    account: str | None
    kept: int
    charged: int
    below: int

    @property
    def keeps(self) -> int:
        """What stays reserved until those below it have ended."""
        return min(self.below, self.share if self.account is None else self.kept)

    @property
    def released(self) -> int:
        """What its group gets back now."""
        return self.share - min(self.keeps, self.share)

    @property
    def fresh(self) -> int:
        """What of its spending its account has to book."""
        return 0 if self.account is None else max(self.micros - self.charged, 0)


def closing(num: int, money: tuple[int, int, int], standing: tuple[Any, ...]) -> Closing:
    """A run from its share, what it has spent and what is held below it, and the end of the row of `finish`."""
    share, micros, below = money
    tenant_id, account, kept, charged = standing
    return Closing(num, share, micros, tenant_id, account, kept, charged, below)


def close(connection: Connection, ended: Iterable[Closing]) -> None:
    """Settle runs with their accounts; most stand on none and keep nothing, and cost nothing."""
    moved: dict[tuple[str, str], tuple[int, int]] = {}
    for run in ended:
        if run.account is None and not run.keeps:
            continue
        query = "UPDATE runs SET kept_micros = ?, charged = charged + ? WHERE num = ?"
        connection.execute(query, (run.keeps, run.fresh, run.num)).fetchall()
        if run.account is not None:
            released, spent = moved.get((run.tenant_id, run.account), (0, 0))
            moved[run.tenant_id, run.account] = (released + run.kept - run.keeps, spent + run.fresh)
    _settle(connection, moved)


@dataclass(frozen=True, slots=True)
class Moved:
    """What goes up from a run: what is kept for it no longer, what it has spent, and how much of that was booked."""

    released: int
    spent: int
    booked: int = 0


def carry(connection: Connection, parent: int, moved: Moved) -> None:
    """Tell those above of a change below them: the ended, whose records and groups nobody else corrects, up to the
    first that is open. What no account has booked yet the first account on the way books.
    """
    released, spent, booked = moved.released, moved.spent, moved.booked
    above: int | None = parent
    while above is not None:
        run = _locked(connection, above)
        due = 0
        if run.final is None:
            released = spent = 0
        else:
            released = min(released, run.kept)
            if run.account is not None:
                due = max(run.micros + spent - run.charged - booked, 0)
                _settle(connection, {(run.tenant_id, run.account): (released, due)})
        booked += due
        if not (released or spent or booked):
            return
        query = (
            "UPDATE runs SET kept_micros = kept_micros - ?, micros = micros + ?, charged = charged + ? WHERE num = ?"
        )
        connection.execute(query, (released, spent, booked, above)).fetchall()
        if run.grp is not None and (released or spent):
            query = "UPDATE groups SET reserved_micros = reserved_micros - ?, micros = micros + ? WHERE num = ?"
            connection.execute(query, (released, spent, run.grp)).fetchall()
        above = run.parent


def _settle(connection: Connection, moved: dict[tuple[str, str], tuple[int, int]]) -> None:
    """Release and spend, by account, in one order."""
    query = "UPDATE accounts SET reserved = reserved - ?, spent = spent + ? WHERE tenant_id = ? AND name = ?"
    for place, (released, spent) in sorted(moved.items()):
        if released or spent:
            connection.execute(query, (released, spent, *place)).fetchall()


@dataclass(frozen=True, slots=True)
class Standing:
    """A run with what concerns its account, locked."""

    final: int | None
    parent: int | None
    grp: int | None
    tenant_id: str
    account: str | None
    kept: int
    charged: int
    micros: int


def _locked(connection: Connection, num: int) -> Standing:
    return Standing(*one(connection, sql("lock_run"), (num,)))


def stands_alone(connection: Connection, num: int) -> bool:
    """Whether no parent answers for what the run spends: it has none, or that has ended. Locks the parent."""
    parent = _locked(connection, num).parent
    return parent is None or _locked(connection, parent).final is not None
