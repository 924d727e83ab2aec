"""Orchestrator and workers: a planner splits the question, workers take the parts, a synthesizer puts the findings
together. Knows only the context.
"""

from __future__ import annotations

from typing import Any, Unpack

from retinue.runs.context import Context, to_json_value
from retinue.runs.contracts import Branch, Json
from retinue.runs.definitions import Workflow
from retinue.runs.errors import OutputRejected
from retinue.runs.joins import Join
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    check_count,
    compose,
    field_of,
    hear_all,
    input_of,
    least_of,
    output_of,
    require,
)


def orchestrate(
    name: str,
    planner: Part,
    worker: Part,
    synthesizer: Part,
    join: Join | None = None,
    width: int | None = None,
    **options: Unpack[Options],
) -> Workflow:
    """Plan, work, put together; returns the synthesizer's output.

    The planner's output is a list of parts, or has one in the field `parts`; each part is one worker's input, at most
    `width` at a time. The synthesizer gets {"question": the input, "findings": [{part, output}], "failures": [{part,
    reason, message}]}; who had not ended when the `join` went on is a failure. When there were parts and no worker
    completed, or fewer than the join needs, the run fails with the reason of the first one that failed.
    """
    what = f"orchestrate {name!r}"
    if width is not None:
        check_count(f"{what}: width", width, 1)
    least = least_of(join)

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        if state is None:
            parts = _parts_of(what, to_json_value(await ctx.run(planner, input)))
            ctx.record("plan", {"parts": parts}, parts=len(parts))
            await ctx.checkpoint("planned", {"parts": parts})
        parts = state["parts"]
        if "branches" not in state:
            joined = await ctx.map(worker, parts, join=join, window=width)
            heard = hear_all(len(parts), joined)
            ctx.record("join", None, ok=len(heard.values), failed=len(heard.problems))
            require(what, heard, min(least, len(parts)))
            kept = [branch.model_dump(mode="json") for branch in joined]
            await ctx.checkpoint("joined", {"parts": parts, "branches": kept})
        branches = [Branch.model_validate(branch) for branch in state["branches"]]
        return await ctx.run(synthesizer, _brief(to_json_value(input), parts, branches))

    named: dict[str, Part] = {"planner": planner, "worker": worker, "synthesizer": synthesizer}
    boundaries = (
        ("planned", "the plan is kept and not asked for again; the workers are next"),
        ("joined", "the workers have ended, findings and failures are kept; the synthesizer is next"),
    )
    shape = Shape("orchestrate", named, boundaries, (join, width), input_of(planner), output_of(synthesizer))
    return compose(name, run, shape, options)


def _parts_of(what: str, plan: Json) -> list[Json]:
    parts = plan if isinstance(plan, list) else field_of(plan, "parts")
    if not isinstance(parts, list):
        raise OutputRejected(
            f"{what}: the planner answered {str(plan)[:100]!r}: let its output be a list, or have one in 'parts'"
        )
    return parts


def _brief(question: Json, parts: list[Json], branches: list[Branch]) -> Json:
    heard = hear_all(len(parts), branches)
    return {
        "question": question,
        "findings": [{"part": parts[int(index)], "output": value} for index, value in heard.values.items()],
        "failures": [{"part": parts[int(index)], **problem} for index, problem in heard.problems.items()],
    }
