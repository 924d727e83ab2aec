"""What a tenant may spend: windows of time, the account of one window, what is said when it leaves no room. Pure.

A run without a parent holds its whole money limit against its tenant's account from its acceptance on; at its end
what it has spent stays there and the rest is given back. Knows no store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from retinue.runs.budgets import usd_text
from retinue.runs.contracts import Budget
from retinue.runs.errors import LimitReached
from retinue.runs.limits import Limit, Limits, Per
from retinue.runs.ownership import NewRun

_SECOND = 1_000_000_000
TOTAL = "total"
"""The window that never ends."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a tenant has spent in one window, and what is reserved for runs that have not ended (micro-dollars).

    `window` is `day 2026-11-21`, `month 2026-11` or `total` (UTC); `limit` is the one it was last held against.
    `refused_at` (Unix ns): when a run was last refused for want of room under that limit.
    """

    tenant_id: str
    window: str
    limit: int
    spent: int = 0
    reserved: int = 0
    refused_at: int | None = None

    @property
    def left(self) -> int:
        """What may still be reserved; never below 0."""
        return max(self.limit - self.spent - self.reserved, 0)


def window_at(per: Per, at: int) -> str:
    """The name of the window that a moment (Unix ns) is in."""
    when = datetime.fromtimestamp(at // _SECOND, UTC)
    return TOTAL if per == "total" else f"day {when:%Y-%m-%d}" if per == "day" else f"month {when:%Y-%m}"


def begins_at(window: str) -> int:
    """When a window begins, Unix ns; 0 for the one that always was."""
    return 0 if window == TOTAL else _nanoseconds(_first(window))


def ends_at(window: str) -> int | None:
    """When a window ends, Unix ns; None for the one that never does."""
    end = _end(window)
    return None if end is None else _nanoseconds(end)


def per_of(window: str) -> str:
    """The kind of window: day, month or total."""
    return window.partition(" ")[0]


def with_share(new: NewRun, limits: Limits) -> NewRun:
    """The run with its share of the tenant's money where the tenant has a limit and the run names none."""
    request = new.request
    budget = shared_budget(request.budget, limits.of_tenant(request.tenant_id))
    return new if budget is request.budget else replace(new, request=request.model_copy(update={"budget": budget}))


def shared_budget(budget: Budget, limit: Limit) -> Budget:
    """A budget with a limit of money, where its tenant has one."""
    if limit.usd is None or budget.usd is not None:
        return budget
    return budget.model_copy(update={"usd": limit.share})


def no_room(account: Account, wanted: int) -> LimitReached:
    """Why a run of a tenant cannot begin, and what helps."""
    end = _end(account.window)
    wait = "" if end is None else f"wait until {end:%Y-%m-%d %H:%M} UTC, "
    return LimitReached(
        f"tenant {account.tenant_id!r} would pass its money limit of {usd_text(account.limit)} USD "
        f"({account.window}): {usd_text(account.spent)} USD spent, {usd_text(account.reserved)} USD reserved for runs "
        f"that have not ended, {usd_text(wanted)} USD wanted; {wait}give the run less (`--max-cost`), or raise "
        f"limits.tenants.{account.tenant_id}.usd in retinue.yaml (`retinue budgets` shows all accounts)",
        account.tenant_id,
        account.window,
    )


def _first(window: str) -> datetime:
    kind, _, name = window.partition(" ")
    return datetime.strptime(name, "%Y-%m-%d" if kind == "day" else "%Y-%m").replace(tzinfo=UTC)


def _end(window: str) -> datetime | None:
    if window == TOTAL:
        return None
    first = _first(window)
    return first + timedelta(days=1) if per_of(window) == "day" else (first + timedelta(days=32)).replace(day=1)


def _nanoseconds(when: datetime) -> int:
    return int(when.timestamp()) * _SECOND
