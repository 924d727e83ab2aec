"""A chain: the output of one stage is the input of the next, with a checkpoint between them. Knows only the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Unpack

from retinue.runs.context import Context
from retinue.runs.definitions import Workflow
from retinue.runs.errors import InvalidInput, OutputRejected
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    by_name,
    check_functions,
    compose,
    input_of,
    known,
    output_of,
)

Check = Callable[[Any], str | None]
"""Looks at the output of a stage: why the chain must stop, or None."""


def chain(name: str, *stages: Part, checks: Mapping[str, Check] | None = None, **options: Unpack[Options]) -> Workflow:
    """Run the stages one after the other; returns the output of the last.

    `checks` by the stage's name: a pure function of its output that returns None, or the reason to stop the chain,
    which then fails as `output_rejected`. A stage that fails ends the chain with its own reason.
    """
    parts = by_name(f"chain {name!r}", stages)
    labels = list(parts)
    gates = dict(checks or {})
    if not labels:
        raise InvalidInput(f"chain {name!r} has no stages: give at least one agent or workflow")
    check_functions(f"chain {name!r}: checks", gates.values())
    for label in gates:
        if label not in parts:
            raise InvalidInput(f"chain {name!r}: a check is for {label!r}; its stages are {', '.join(labels)}")

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        label, value = (labels[0], input) if state is None else (state["next"], state["value"])
        known(f"chain {name!r}", label, labels)
        output = await ctx.run(parts[label], value)
        problem = gates[label](output) if label in gates else None
        if problem:
            ctx.record("chain", None, stage=label, stopped=True)
            raise OutputRejected(f"chain {name!r} stopped after {label!r}: {problem}")
        following = labels[labels.index(label) + 1 :]
        if not following:
            return output
        return await ctx.checkpoint(label, {"next": following[0], "value": output})

    boundaries = tuple((one, f"{one} is done and its output kept; {other} is next") for one, other in pairwise(labels))
    shape = Shape("chain", parts, boundaries, (gates,), input_of(stages[0]), output_of(stages[-1]))
    return compose(name, run, shape, options)
