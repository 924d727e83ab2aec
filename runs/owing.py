"""Obligations in a turn: what the model's plan takes on and settles, and what the runtime adds of its own.

Every change is a record of the run. Knows no model and no tool in action.
"""

from __future__ import annotations

from retinue.runs.agent_state import AgentState
from retinue.runs.contracts import Json
from retinue.runs.decisions import Plan
from retinue.runs.errors import RunError
from retinue.runs.journal import Outcome
from retinue.runs.messages import ToolCall
from retinue.runs.obligations import Obligation, open_ones, refuse_plan
from retinue.runs.packets import Observation
from retinue.runs.turns import AgentContext


def take_up(ctx: AgentContext, state: AgentState, plan: Plan) -> tuple[AgentState, str | None]:
    """The state with a plan taken up, or the state as it was and why it cannot be."""
    problem = refuse_plan(state.obligations, plan.add, plan.done)
    if problem is not None:
        return state, problem
    state = _settle(ctx, state, plan.done, f"turn:{state.turn}")
    for text in plan.add:
        state = _owe(ctx, state, text)
    return state if plan.next is None else state.model_copy(update={"next_steps": plan.next}), None


def plan_seen(before: AgentState, after: AgentState, call: ToolCall, problem: str | None) -> Observation:
    """What the model is told of its plan."""
    data: dict[str, Json] = {"error": problem}
    if problem is None:
        known = {item.id for item in before.obligations}
        added = {item.id: item.text for item in after.obligations if item.id not in known}
        data = {"added": added, "open": list(after.left_open)}
    return Observation(
        id=after.next_id(),
        kind="system",
        result="ok" if problem is None else "error",
        name=call.name,
        call_id=call.id,
        data=data,
        turn=after.turn,
    )


def follow(ctx: AgentContext, state: AgentState, call: ToolCall, outcome: Outcome, seen: Observation) -> AgentState:
    """What a call leaves owed: the doubt about a write, the yes it did not get. A call that worked settles both."""
    if outcome.result == "unknown":
        return _owe(ctx, state, f"Find out whether {call.name} took effect ({seen.id}).", call)
    if outcome.result == "refused" and outcome.error is not None and outcome.error.code == "not_approved":
        return _owe(ctx, state, f"{call.name} was not approved ({seen.id}): get a yes or do without it.", call)
    if outcome.result == "ok":
        return _settle(ctx, state, state.owed_for(call), seen.id)
    return state


def remind(state: AgentState) -> str:
    """What the model is told when it answers though something is open."""
    lines = [f"- {item.id}: {item.text}" for item in open_ones(state.obligations)]
    told = "Still open:\n{}\nSettle them (plan with `done`, and your answer as `answer`), or answer again as it is."
    return told.format("\n".join(lines))


def leave(ctx: AgentContext, state: AgentState) -> dict[str, Json]:
    """Put on record what is open when the run ends; returns the facts of the end that say so.

    None at all when nothing was ever owed.
    """
    ids = _record_open(ctx, state, "left_open")
    return {"open_obligations": ids} if state.owed else {}


def leaving(ctx: AgentContext, state: AgentState, error: RunError) -> RunError:
    """The error with what stays open: this turn has changed what is owed."""
    error.facts.update(leave(ctx, state))
    return error


def hand_over(ctx: AgentContext, state: AgentState) -> dict[str, Json]:
    """Put on record what another agent owes from here on; returns the facts of the end that say so."""
    ids = _record_open(ctx, state, "handed_over")
    return {"handed_over": ids} if ids else {}


def _record_open(ctx: AgentContext, state: AgentState, event: str) -> list[Json]:
    for item in open_ones(state.obligations):
        _record(ctx, state, item, event)
    return list(state.left_open)


def _owe(ctx: AgentContext, state: AgentState, text: str, call: ToolCall | None = None) -> AgentState:
    owing = state.owing(text, call)
    if owing is not state:
        _record(ctx, owing, owing.obligations[-1], "added")
    return owing


def _settle(ctx: AgentContext, state: AgentState, ids: tuple[str, ...], by: str) -> AgentState:
    for item in open_ones(state.obligations):
        if item.id in ids:
            _record(ctx, state, item.model_copy(update={"settled_by": by}), "settled")
    return state.settled(ids, by)


def _record(ctx: AgentContext, state: AgentState, item: Obligation, event: str) -> None:
    facts: dict[str, Json] = {"id": item.id, "event": event, "by": item.by, "since": item.since}
    ctx.record("obligation", {"text": item.text}, turn=state.turn, settled_by=item.settled_by, **facts)
