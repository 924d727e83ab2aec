"""The ledger of one run: what it may spend, what it has spent, what is held in reserve.

Limits are the runtime's. A reservation is made before anything is paid; it becomes spending when the outcome
is known, or whole when nobody knows. Children's money and tokens are reserved in their groups. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from retinue.runs.arrivals import Group
from retinue.runs.contracts import NOTHING, Budget, Usage
from retinue.runs.errors import BudgetExhausted

_REMEDY = "raise the budget: `retinue retry RUN --budget ...` goes on"


class Ledger:
    """Accounts of one run in its owner's memory, rebuilt from the journal when the owner changes."""

    def __init__(self, run_id: str, budget: Budget, spent: Usage = NOTHING) -> None:
        self._run_id = run_id
        self.budget = budget
        self.spent = spent
        self._limited = any(limit is not None for limit in (budget.steps, budget.hops, budget.tokens, budget.usd))
        self._held: dict[str, Usage] = {}
        self._groups: dict[str, Group] = {}

    def reserve(self, key: str, usage: Usage) -> None:
        """Hold `usage` for a step, in place of what was held for it. BudgetExhausted names the limit; then nothing
        is held for it.
        """
        self._held.pop(key, None)
        for name, limit, used, more in self._accounts(usage) if self._limited else ():
            if limit is not None and more and used + more > limit:
                raise BudgetExhausted(
                    f"run {self._run_id}: {name} budget {_show(name, limit)} would be passed: {_show(name, used)} "
                    f"spent or reserved, {_show(name, more)} more wanted; {_REMEDY}",
                    run_id=self._run_id,
                )
        self._held[key] = usage

    def hold(self, key: str, usage: Usage) -> None:
        """Hold what an earlier owner had reserved, without asking again."""
        self._held[key] = usage

    def settle(self, key: str, usage: Usage) -> None:
        """Turn the reservation of a step into what it really spent."""
        self._held.pop(key, None)
        self.spent = self.spent + usage

    def groups(self, groups: Iterable[Group]) -> None:
        """Take over the state of the children's accounts."""
        for group in groups:
            self._groups[group.key] = group

    def children(self, count: int, own: Budget) -> Budget:
        """The budget for each of `count` children: their own limits, cut to an equal share of what is left.

        Raises BudgetExhausted when a share would be nothing.
        """
        remaining = self.remaining()
        tokens = _share(own.tokens, remaining.get("tokens"), count)
        micros = _share(own.micros, remaining.get("micros"), count)
        if (tokens == 0 and own.tokens != 0) or (micros == 0 and own.micros != 0 and remaining.get("micros") == 0):
            raise BudgetExhausted(
                f"run {self._run_id}: nothing is left for {count} more children; {_REMEDY}",
                run_id=self._run_id,
            )
        depth = None if self.budget.depth is None else self.budget.depth - 1
        changes: dict[str, object] = {"tokens": tokens, "usd": None if micros is None else Decimal(usd_text(micros))}
        if own.depth is None or (depth is not None and depth < own.depth):
            changes["depth"] = depth
        return own.model_copy(update=changes)

    def remaining(self) -> dict[str, int]:
        """What is left of every limit that is set: steps, hops, tokens, micros."""
        if not self._limited:
            return {}
        return {name: limit - used for name, limit, used, _ in self._accounts(NOTHING) if limit is not None}

    def total(self) -> Usage:
        """Own spending, what nobody knows the outcome of, and the children's."""
        return sum((group.used for group in self._groups.values()), self.spent)

    def below(self) -> int:
        """What the children have spent, as far as their groups say (micro-dollars)."""
        return sum(group.used.micros for group in self._groups.values())

    def follow_ups(self, count: int, own: Budget) -> Budget:
        """The budget for each of `count` follow-ups: where the run has a limit of money, a share of what it leaves."""
        share = _share(own.micros, self.remaining().get("micros"), count)
        return own if share is None else own.model_copy(update={"usd": Decimal(usd_text(share))})

    def _accounts(self, more: Usage) -> tuple[tuple[str, int | None, int, int], ...]:
        groups = self._groups.values()
        below = sum((group.used + group.reserved for group in groups), NOTHING)
        held = sum(self._held.values(), self.spent)
        budget = self.budget
        return (
            ("steps", budget.steps, held.steps, more.steps),
            ("hops", budget.hops, held.hops, more.hops),
            ("tokens", budget.tokens, held.tokens + below.tokens, more.tokens),
            ("micros", budget.micros, held.micros + below.micros, more.micros),
        )


def reservation(budget: Budget) -> Usage:
    """What a child's limits hold against its parent's."""
    return Usage(input_tokens=budget.tokens or 0, micros=budget.micros or 0)


def _share(own: int | None, remaining: int | None, count: int) -> int | None:
    if remaining is None:
        return own
    share = max(remaining, 0) // max(count, 1)
    return share if own is None else min(own, share)


def usd_text(micros: int) -> str:
    """Micro-dollars as dollars: `1.500000`; a negative amount has its sign in front."""
    sign, amount = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{amount // 1_000_000}.{amount % 1_000_000:06d}"


def _show(name: str, value: int) -> str:
    return f"{usd_text(value)} USD" if name == "micros" else f"{value}"
