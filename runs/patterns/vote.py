"""A vote: one target several times, until enough agree or no agreement is possible. Knows only the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Unpack

from pydantic_core import to_json

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Frozen, Json, Status
from retinue.runs.definitions import Workflow
from retinue.runs.errors import InvalidInput
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    check_count,
    check_functions,
    compose,
    field_of,
    hear,
    input_of,
    name_of,
    require,
)


class Dissent(Frozen):
    """A vote for something other than the winner: who cast it (0 is the first), for what, with what output."""

    index: int
    vote: str
    value: Json = None


class Verdict(Frozen):
    """What came of a vote. `winner` is None when too few agreed; `value` is the first output that voted for it.

    `votes` counts by what was voted for; `failed` branches cast none, `unheard` ones were canceled.
    """

    winner: str | None
    value: Json = None
    votes: dict[str, int]
    dissent: tuple[Dissent, ...] = ()
    failed: dict[int, str] = {}
    unheard: int = 0


def vote(
    name: str,
    judge: Part,
    count: int = 5,
    need: int | None = None,
    by: Callable[[Any], Any] | str | None = None,
    vary: Callable[[Any, int], Any] | None = None,
    **options: Unpack[Options],
) -> Workflow:
    """Run the judge `count` times at once; returns a Verdict as soon as `need` (default: more than half) agree, or
    cannot any more, and cancels the rest.

    What a branch votes for is its whole output, the field `by` of it, or what the pure function `by` makes of it.
    `vary` gives the k-th judge (from 0) an input of its own. A judge that fails casts no vote; when all fail, so
    does the run. The share of those heard that voted for the winner is the check `agreement` of `min_confidence`.
    """
    what = f"vote {name!r}"
    check_count(f"{what}: count", count, 1)
    enough = count // 2 + 1 if need is None else need
    check_count(f"{what}: need", enough, 1)
    if enough > count:
        raise InvalidInput(f"{what}: need is {enough}, but only {count} vote: lower need or raise count")
    check_functions(what, [one for one in (by, vary) if one is not None and not isinstance(one, str)])

    def decided(branches: list[Branch]) -> bool:
        top = max(Counter(ballot for _, ballot in _cast(branches, by)).values(), default=0)
        return top >= enough or top + count - len(branches) < enough

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        if state is None:
            given = [input if vary is None else vary(input, index) for index in range(count)]
            ended = await ctx.map(judge, given, enough=decided)
            branches = [branch for branch in ended if branch.status is not Status.canceled]
            require(what, hear([str(b.index) for b in branches], {str(b.index): b for b in branches}), 1)
            verdict = _verdict(branches, by, enough, count)
            ctx.record("vote", None, decided=verdict.winner is not None, heard=len(branches), count=count)
            await ctx.checkpoint("counted", verdict.model_dump(mode="json"))
        counted = Verdict.model_validate(state)
        ctx.check("agreement", max(counted.votes.values()), sum(counted.votes.values()) + len(counted.failed))
        return counted

    boundaries = (("counted", "the votes are counted and the verdict is kept; nothing is left to run"),)
    declared = input_of(judge) if vary is None else None
    shape = Shape("vote", {name_of(judge): judge}, boundaries, (count, enough, by, vary), declared, Verdict)
    return compose(name, run, shape, options)


def _ballot(value: Json, by: Callable[[Any], Any] | str | None) -> str:
    cast = field_of(value, by) if isinstance(by, str) else value if by is None else by(value)
    return cast.strip() if isinstance(cast, str) else to_json(cast).decode()


def _cast(branches: Iterable[Branch], by: Callable[[Any], Any] | str | None) -> list[tuple[Branch, str]]:
    """The ballots of those that completed."""
    return [(branch, _ballot(branch.value, by)) for branch in branches if branch.ok]


def _verdict(branches: list[Branch], by: Callable[[Any], Any] | str | None, enough: int, count: int) -> Verdict:
    cast = _cast(branches, by)
    votes = Counter(ballot for _, ballot in cast)
    [(top, most)] = votes.most_common(1)
    winner = top if most >= enough else None
    failed = [branch for branch in branches if not branch.ok]
    return Verdict(
        winner=winner,
        value=next((branch.value for branch, ballot in cast if ballot == winner), None),
        votes=dict(votes),
        dissent=tuple(
            Dissent(index=branch.index, vote=ballot, value=branch.value) for branch, ballot in cast if ballot != winner
        ),
        failed={branch.index: branch.problem for branch in failed},
        unheard=count - len(branches),
    )
