"""Sections: different targets over the same input at once, joined as one group. Knows only the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from retinue.runs.context import Context, to_json_value
from retinue.runs.contracts import Branch, Json
from retinue.runs.definitions import AgentSpec, Workflow
from retinue.runs.errors import InvalidInput
from retinue.runs.joins import Join
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    check_functions,
    compose,
    hear,
    least_of,
    require,
)

Combine = Callable[[dict[str, Branch]], Any]
"""Makes the output of the ended branches by label; a failed one is among them."""


def parallel(
    name: str,
    sections: Mapping[str, Part],
    join: Join | None = None,
    combine: Combine | Part | None = None,
    select: Mapping[str, Callable[[Any], Any]] | None = None,
    **options: Unpack[Options],
) -> Workflow:
    """Run every section at once; returns {"sections": {label: output}, "failures": {label: {reason, message}}}.

    `join` says when to go on; who had not ended then is canceled and among the failures. `select` gives a section
    a part of the input. `combine` makes the output instead: a pure function of the branches by label, or an agent or
    workflow that gets `input`, `sections` and `failures`. When no section completed, or fewer than the join needs,
    the run fails with the reason of the first one that failed.
    """
    chosen, what = dict(select or {}), f"parallel {name!r}"
    combines = isinstance(combine, AgentSpec | Workflow | str)
    _check(what, sections, chosen)
    check_functions(what, [*chosen.values(), *([] if combines or combine is None else [combine])])
    least = least_of(join)

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        if state is None:
            calls = {
                label: (part, chosen[label](input) if label in chosen else input) for label, part in sections.items()
            }
            joined = await ctx.gather(name, calls, join)
            heard = hear(list(sections), joined)
            ctx.record("join", None, ok=len(heard.values), failed=len(heard.problems))
            require(what, heard, least)
            kept = {label: branch.model_dump(mode="json") for label, branch in joined.items()}
            await ctx.checkpoint("joined", kept)
        branches = {label: Branch.model_validate(branch) for label, branch in state.items()}
        heard = hear(list(sections), branches)
        found: Json = {"sections": heard.values, "failures": heard.problems}
        if combine is None:
            return found
        if combines:
            return await ctx.run(combine, {"input": to_json_value(input)} | found)  # type: ignore[arg-type]
        return combine(branches)  # type: ignore[operator]

    parts = {f"section {label}": part for label, part in sections.items()}
    last: dict[str, Part] = {"combine": combine} if combines else {}  # type: ignore[dict-item]
    boundaries = (("joined", "the sections have ended, results and failures are kept; combining is next"),)
    settings = (join, chosen, None if combines else combine)
    return compose(name, run, Shape("parallel", parts | last, boundaries, settings), options)


def _check(what: str, sections: Mapping[str, Part], chosen: Mapping[str, Any]) -> None:
    if not sections:
        raise InvalidInput(f"{what} has no sections: give a target for each label, as {{'style': reviewer}}")
    for label in chosen:
        if label not in sections:
            raise InvalidInput(f"{what}: select names {label!r}; the sections are {', '.join(sections)}")
