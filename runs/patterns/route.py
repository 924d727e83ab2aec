"""A route: a classifier names one of several ways, and the input takes it. Knows only the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from retinue.runs.context import Context, to_json_value
from retinue.runs.definitions import AgentSpec, Workflow
from retinue.runs.ending import Ended
from retinue.runs.errors import InvalidInput, OutputRejected
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    check_functions,
    check_part,
    compose,
    field_of,
    input_of,
    known,
    name_of,
)

DEFAULT = "default"

Prepare = Callable[[Any, Any], Any]
"""The chosen target's input, from the run's input and what the classifier said."""


def route(
    name: str,
    classifier: Part | Callable[[Any], str],
    routes: Mapping[str, Part],
    default: Part | None = None,
    prepare: Prepare | None = None,
    **options: Unpack[Options],
) -> Workflow:
    """Ask the classifier, then run the target of that name with the same input; returns the target's output.

    The classifier is an agent or workflow whose output is the name of a route or has it in the field `route`, or a
    pure function. Case and surrounding space do not matter. An unknown name takes `default`, or ends the run as
    `output_rejected`. The choice is recorded under the topic `route` and stands in the facts of the run's end.
    `prepare` makes the target's input when it should know the choice.
    """
    ways = _ways(name, routes, default)
    asks = isinstance(classifier, AgentSpec | Workflow | str)
    check_functions(f"route {name!r}", [one for one in (None if asks else classifier, prepare) if one is not None])

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        if state is None:
            said = to_json_value(await ctx.run(classifier, input) if asks else classifier(input))  # type: ignore[arg-type, operator]
            choice = _choose(name, said, ways)
            ctx.record("route", {"said": said}, choice=choice, target=name_of(ways[choice]))
            await ctx.checkpoint("classified", {"choice": choice, "said": said})
        choice = state["choice"]
        known(f"route {name!r}", choice, ways)
        given = input if prepare is None else prepare(input, state["said"])
        output = await ctx.run(ways[choice], given)
        return Ended(to_json_value(output), facts={"route": choice})

    parts = ({"classifier": classifier} if asks else {}) | {f"route {label}": way for label, way in ways.items()}
    boundaries = (("classified", "the choice is made and kept; the chosen target is next"),)
    settings = (None if asks else classifier, prepare)
    return compose(name, run, Shape("route", parts, boundaries, settings, input_of(classifier)), options)  # type: ignore[arg-type]


def _ways(name: str, routes: Mapping[str, Part], default: Part | None) -> dict[str, Part]:
    ways = dict(routes)
    if not ways:
        raise InvalidInput(f"route {name!r} has no routes: give a target for each label, as {{'billing': billing}}")
    if default is not None:
        if DEFAULT in ways:
            raise InvalidInput(f"route {name!r} has a route {DEFAULT!r} and a default as well: drop one of them")
        ways[DEFAULT] = default
    for label, way in ways.items():
        check_part(f"route {name!r}: {label!r}", way)
    return ways


def _choose(name: str, said: Any, ways: Mapping[str, Part]) -> str:
    given = said if isinstance(said, str) else field_of(said, "route")
    words = given.strip().casefold() if isinstance(given, str) else None
    for label in ways:
        if label.casefold() == words:
            return label
    if DEFAULT in ways:
        return DEFAULT
    raise OutputRejected(
        f"route {name!r}: the classifier said {str(said)[:100]!r}; the routes are {', '.join(ways)}: let it answer "
        "with one of them, alone or in the field 'route', or give a default"
    )
