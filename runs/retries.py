"""What a retry of a failed run takes back: the step that failed it and what followed, nothing before. Pure.

A retry is no second run: the journal of the same run goes on, its ids and idempotency keys stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

from retinue.runs.contracts import MICROS, Amendment, Budget, StopReason
from retinue.runs.errors import InvalidInput
from retinue.runs.history import History
from retinue.runs.journal import AnyEntry, Finished, Outcome, Retried


@dataclass(frozen=True, slots=True)
class Retry:
    """What a retry may change: more budget, another deadline (Unix ns), the version of the code to go on with.

    `migrate` replays nothing: the function begins at its newest checkpoint with the new code, and what it asks for
    as before is not done again. `version` is that of the run itself, `versions` by target those of the failed runs
    below it, which are retried with it.
    """

    by: str
    at: int
    budget: Budget | None = None
    deadline: int | None = None
    version: str | None = None
    migrate: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    def below(self, target: str, budget: Budget | None = None) -> Retry:
        """What the retry means for a failed run of a target below the one it is for, with its new share, if any."""
        return replace(self, version=self.versions.get(target), budget=budget)


@dataclass(frozen=True, slots=True)
class Raise:
    """By how much a retry multiplies money and tokens; the shares of those below grow alike, so they still fit.

    What is used and reserved below a run is within its limit; multiplied, what is reserved is within the new one.
    """

    money: Fraction = Fraction(1)
    tokens: Fraction = Fraction(1)

    def of(self, budget: Budget) -> Budget | None:
        """A share that has grown; None when nothing of it has."""
        more: dict[str, object] = {}
        if self.money > 1 and budget.micros is not None:
            more["usd"] = Decimal(int(budget.micros * self.money)) / MICROS
        if self.tokens > 1 and budget.tokens is not None:
            more["tokens"] = int(budget.tokens * self.tokens)
        return Budget.model_validate(more) if more else None


def raised(before: Budget, wanted: Budget | None) -> Raise:
    """What a wish for more makes of the limits in force; what was 0 or unlimited has no share to grow."""
    if wanted is None:
        return Raise()
    return Raise(_times(before.micros, wanted.micros), _times(before.tokens, wanted.tokens))


def _times(before: int | None, wanted: int | None) -> Fraction:
    return max(Fraction(wanted, before), Fraction(1)) if before and wanted else Fraction(1)


_CULPRITS: dict[StopReason, Callable[[Outcome], bool]] = {
    StopReason.invalid_decision: lambda outcome: outcome.effect == "model",
    StopReason.output_rejected: lambda outcome: outcome.effect == "model",
    StopReason.policy_denied: lambda outcome: outcome.effect == "gate" or outcome.result == "refused",
    StopReason.side_effect_unknown: lambda outcome: outcome.result == "unknown",
    StopReason.tool_failure: lambda outcome: outcome.result == "error",
    StopReason.model_failure: lambda outcome: outcome.result == "error",
    StopReason.budget_exhausted: lambda outcome: outcome.result == "error",
}
"""Where no step was named as the cause of an end: the newest outcome of this kind is taken for it, else the newest
fan-out with failed branches."""


def retried(history: History, finished: Finished, wanted: Retry) -> Retried:
    """The entry with which a failed run goes on. `history` is that since its newest checkpoint."""
    again = None if wanted.migrate else _culprit(history, finished)
    spoiled = history.outcomes.get(again or "")
    if spoiled is not None and spoiled.effect == "children" and spoiled.result == "error":
        raise InvalidInput(
            f"the join of step {again} failed by a rule of its own and let go of its children: mend the rule, then "
            f"`retinue fork RUN --at {again}`"
        )
    before = history.amendment
    amendment = Amendment(
        since=wanted.at,
        retries=1 if before is None else before.retries + 1,
        version=wanted.version or (before.version if before else None),
        budget=_more(wanted.budget, before.budget if before else None),
        deadline=wanted.deadline,
    )
    keep = 0 if wanted.migrate else history.before(again)
    return Retried(at=wanted.at, by=wanted.by, keep=keep, again=again, amendment=amendment)


def _more(wanted: Budget | None, before: Budget | None) -> Budget | None:
    """The limits of this retry, and those of earlier ones where it sets none."""
    return before if wanted is None else wanted.within(before or Budget())


def stands(history: History, entry: Retried) -> frozenset[str]:
    """The keys of the steps that the retry does not touch."""
    return history.delivered(entry.keep)


def last_of(entries: Iterable[AnyEntry], run_id: str) -> Finished:
    """The end of a run among its entries. InvalidInput when it has none."""
    ends = [entry for entry in entries if isinstance(entry, Finished)]
    if not ends:
        raise InvalidInput(f"run {run_id} has not ended: only a failed run can be retried")
    return ends[-1]


def _culprit(history: History, finished: Finished) -> str | None:
    named = finished.facts.get("step")
    if named is not None:
        return str(named)
    outcomes = [outcome for outcome in history.outcomes.values() if "!" not in outcome.key]
    for guilty in (_CULPRITS.get(finished.reason, _left_failures), _left_failures):
        suspects = [outcome.key for outcome in outcomes if guilty(outcome)]
        if suspects:
            return suspects[-1]
    return None


def _left_failures(outcome: Outcome) -> bool:
    """True of a fan-out with failed branches: the function may have failed because of them."""
    return outcome.effect == "children" and bool(outcome.facts.get("failed"))
