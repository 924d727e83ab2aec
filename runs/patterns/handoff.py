"""A desk: one agent has the run and may pass it on to another with a written artifact. Knows only the context."""

from __future__ import annotations

from typing import Any, Unpack

from retinue.runs.context import Context
from retinue.runs.contracts import StopReason
from retinue.runs.definitions import AgentSpec, Workflow
from retinue.runs.ending import Ended
from retinue.runs.errors import InvalidDecision, InvalidInput, RunFailed
from retinue.runs.patterns.composition import (
    Options,
    Part,
    Shape,
    by_name,
    check_count,
    compose,
    input_of,
    known,
)


def handoff(
    name: str, first: Part, *others: Part, most: int = 8, visits: int = 1, **options: Unpack[Options]
) -> Workflow:
    """Run the first agent; when it hands off, run the one it names with the artifact, and so on; returns the
    output of the one that answers.

    Hand-overs are the agents' own decisions (`agent(..., handoffs=[...])`), to members of this desk only. The receiver
    gets the structured artifact (`runs.artifacts`). At most `most` hand-overs, and nobody has the run more than
    `visits` times: a cycle ends it as `invalid_decision`, naming the way it took. A member that fails ends it with its
    own reason. The way taken is recorded under the topic `handover` and stands in the facts of the run's end.
    """
    what = f"handoff {name!r}"
    members = by_name(what, (first, *others))
    check_count(f"{what}: most", most, 1)
    check_count(f"{what}: visits", visits, 1)
    _check_receivers(what, members)

    async def run(ctx: Context, input: Any, state: Any = None) -> Any:
        way, given = ([next(iter(members))], input) if state is None else (state["way"], state["given"])
        known(what, way[-1], members)
        branch = await ctx.relay(members[way[-1]], given)
        if not branch.ok:
            text = f"{what}: {way[-1]}: {branch.problem}"
            raise RunFailed(text, run_id=branch.run_id, reason=branch.reason.value)
        receiver = branch.facts.get("to") if branch.reason is StopReason.handoff else None
        if receiver is None:
            return Ended(branch.value, facts={"way": way, "by": way[-1]})
        way = _go_on(what, [*way, str(receiver)], members, (most, visits))
        ctx.record("handover", branch.value, **{"from": way[-2], "to": way[-1], "number": len(way) - 1})
        return await ctx.checkpoint("handed", {"way": way, "given": branch.value})

    boundaries = (("handed", "the artifact is written and kept; its receiver is next"),)
    shape = Shape("handoff", members, boundaries, (most, visits), input_of(first))
    return compose(name, run, shape, options)


def _check_receivers(what: str, members: dict[str, Part]) -> None:
    for label, member in members.items():
        for receiver in member.handoffs if isinstance(member, AgentSpec) else ():
            if receiver not in members:
                raise InvalidInput(
                    f"{what}: {label} may hand off to {receiver!r}, which is no member: the members are "
                    f"{', '.join(members)}"
                )


def _go_on(what: str, way: list[str], members: dict[str, Part], bounds: tuple[int, int]) -> list[str]:
    """The way with its newest receiver. InvalidDecision when it leads out, round in a circle, or too far."""
    most, visits = bounds
    shown, receiver = " → ".join(way), way[-1]
    if receiver not in members:
        raise InvalidDecision(f"{what}: {shown}: {receiver!r} is no member; the members are {', '.join(members)}")
    if way.count(receiver) > visits:
        times = "once" if visits == 1 else f"{visits} times"
        raise InvalidDecision(
            f"{what}: {shown} is a cycle: {receiver} has had the run {times} already; let it answer, or raise visits"
        )
    if len(way) - 1 > most:
        raise InvalidDecision(f"{what}: {shown} is more than {most} hand-overs; let one of them answer, or raise most")
    return way
