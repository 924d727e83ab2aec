"""Writer and critic: a draft is judged and written again, and the best one so far is kept. Knows only the context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack

from retinue.runs.context import Context, to_json_value
from retinue.runs.contracts import Frozen, Json
from retinue.runs.definitions import Workflow
from retinue.runs.errors import OutputRejected, RunError
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    check_count,
    check_functions,
    compose,
    field_of,
)

Accept = Callable[[Any], bool]
"""Looks at a critique: whether the draft is good enough."""


class Refined(Frozen):
    """The best draft with its critique, score and round (from 1), how many rounds were begun, and why it stopped.

    `stop` is `accepted`, `rounds` (all were used) or `failed` (writer or critic failed after the first round;
    `problem` says how).
    """

    draft: Json
    critique: Json = None
    score: float | None = None
    best_round: int = 1
    rounds: int
    stop: Literal["accepted", "rounds", "failed"]
    problem: str | None = None


def refine(
    name: str,
    writer: Part,
    critic: Part,
    rounds: int = 3,
    accept: Accept | float | None = None,
    **options: Unpack[Options],
) -> Workflow:
    """Write, judge, write again; returns Refined.

    The writer gets {"task": the input} first, then also `draft` and `critique` of the round before. The critic gets
    {"task", "draft"}; its output may have `accepted` (yes or no) and `score` (a number, more is better). `accept` is
    the score that is enough, or a pure function of the critique; without it `accepted` decides. A draft without a
    score replaces the one before. A failure in the first round ends the run with its reason.
    """
    what = f"refine {name!r}"
    check_count(f"{what}: rounds", rounds, 1)
    if accept is not None and (isinstance(accept, bool) or not isinstance(accept, int | float)):
        check_functions(f"{what}: accept", [accept])

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        number = 1 if state is None else state["round"] + 1
        best = None if state is None else Refined.model_validate(state["best"])
        if (best is not None and best.stop == "accepted") or number > rounds:
            return best
        task = {"task": to_json_value(input)} | ({} if state is None else state["last"])
        try:
            draft = to_json_value(await ctx.run(writer, task))
            critique = to_json_value(await ctx.run(critic, {"task": to_json_value(input), "draft": draft}))
        except RunError as error:
            if best is None:
                raise
            ctx.record("refine", None, round=number, stop="failed")
            return best.model_copy(update={"rounds": number, "stop": "failed", "problem": str(error)})
        accepted = _accepts(accept, critique)
        best = _better(what, best, Refined(draft=draft, critique=critique, rounds=number, stop="rounds"))
        if accepted:
            best = best.model_copy(update={"stop": "accepted"})
        facts: dict[str, Json] = {"round": number, "score": best.score, "best_round": best.best_round}
        ctx.record("refine", None, accepted=accepted, **facts)
        last = {"draft": draft, "critique": critique}
        await ctx.checkpoint("round", {"round": number, "best": best.model_dump(mode="json"), "last": last})

    parts: dict[str, Part] = {"writer": writer, "critic": critic}
    boundaries = (("round", "a round is judged, the best draft so far is kept; the next round or the end is next"),)
    return compose(name, run, Shape("refine", parts, boundaries, (rounds, accept), None, Refined), options)


def _accepts(accept: Accept | float | None, critique: Json) -> bool:
    if accept is None:
        return bool(field_of(critique, "accepted"))
    if callable(accept):
        return bool(accept(critique))
    score = field_of(critique, "score")
    return isinstance(score, int | float) and score >= accept


def _better(what: str, best: Refined | None, new: Refined) -> Refined:
    score = field_of(new.critique, "score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise OutputRejected(
            f"{what}: the critic gave the score {str(score)[:50]!r}: let it be a number, or leave it out"
        )
    new = new.model_copy(update={"score": score, "best_round": new.rounds})
    if best is None or best.score is None or score is None or score >= best.score:
        return new
    return best.model_copy(update={"rounds": new.rounds})
