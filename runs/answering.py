"""An agent's answer: checked stage by stage, decided on by a person where the checks are weak, gated, returned.

Owns what becomes of a refused answer and of one that nobody can be sure of. A rejection goes back to the model with
the reason, a bounded number of times. Knows no provider, no tool and no store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retinue.runs import owing, reviewing
from retinue.runs.agent_state import AgentState
from retinue.runs.contracts import Json
from retinue.runs.decisions import Answer, Invalid, ToolCalls
from retinue.runs.definitions import AgentSpec
from retinue.runs.ending import Ended
from retinue.runs.errors import OutputRejected, PolicyDenied
from retinue.runs.messages import Message
from retinue.runs.outputs import Validated, validate
from retinue.runs.rules import ask
from retinue.runs.turns import AgentContext


async def answer(ctx: AgentContext, spec: AgentSpec, state: AgentState, decision: Answer) -> Any:
    """Validate, review, gate and return the answer; a rejected one goes back to the model, a bounded number of
    times.
    """
    problem = None
    if decision.plan is not None:
        state, problem = owing.take_up(ctx, state, decision.plan)
    checked = validate(decision.text, spec.output, state.evidence(), spec.rules)
    errors = checked.errors if problem is None else (problem, *checked.errors)
    _record(ctx, state, checked, errors)
    state = state.model_copy(update={"confidence": checked.confidence})
    if errors:
        return await _reject(ctx, spec, state, decision, "; ".join(errors))
    if spec.plans and state.left_open and not state.reminded:
        return await _remind(ctx, state, decision)
    facts: dict[str, Json] = {}
    if reviewing.due(spec.terms, checked):
        verdict = await reviewing.review(ctx, spec.name, spec.terms, checked)
        if verdict.problem is not None:
            who = f"{verdict.by} rejected it: " if verdict.by else ""
            return await _reject(ctx, spec, state, decision, who + verdict.problem, bool(verdict.by))
        checked, facts = verdict.answer, {"reviewed": verdict.word, "reviewed_by": verdict.by}
    return await _give(ctx, spec, state, checked, facts)


def refused_call(ctx: AgentContext, spec: AgentSpec, state: AgentState, decision: ToolCalls) -> Invalid | None:
    """What the agent's rules say against the arguments of a call, as the tool would see them; then none is made."""
    for call in decision.calls:
        rules = [one for one in spec.rules if one.tool == call.name]
        arguments = ctx.accepted(call) if rules else None
        if arguments is None:
            continue  # what does not fit the schema is refused by the gateway
        failed = [each for each in ask(rules, arguments) if each.problem is not None]
        errors = [str(each.problem) for each in failed if each.rule.severity == "error"]
        if failed:
            facts: dict[str, Json] = {"stage": "rules", "rules": [each.rule.name for each in failed]}
            warnings = {"warnings": [str(each.problem) for each in failed if each.rule.severity == "warning"]}
            what = f"arguments of {call.name}"
            ctx.record("validation", warnings, turn=state.turn, what=what, ok=not errors, errors=errors, **facts)
        if errors:
            return Invalid(problem=f"{call.name} was not called: {'; '.join(errors)}", call_id=call.id)
    return None


async def _give(
    ctx: AgentContext, spec: AgentSpec, state: AgentState, checked: Validated, reviewed: dict[str, Json]
) -> Any:
    asked: dict[str, Json] = {"confidence": str(checked.confidence), **reviewed}
    verdict = await ctx.gate("output", spec.name, asked)
    if verdict.outcome != "allow":
        raise owing.leaving(ctx, state, PolicyDenied(f"output: {verdict.reason}"))
    facts: dict[str, Json] = {"confidence": checked.confidence, "turns": state.turn + 1, **reviewed}
    return Ended(checked.value, facts=facts | owing.leave(ctx, state))


async def _reject(
    ctx: AgentContext, spec: AgentSpec, state: AgentState, decision: Answer, problem: str, again: bool = True
) -> Any:
    """Return an answer with the reason; the run ends when that has been done often enough."""
    if not again or state.corrections >= spec.corrections:
        error = OutputRejected(f"the answer was refused {state.corrections + 1} times: {problem}")
        raise owing.leaving(ctx, state, error)
    told = f"The answer was refused: {problem}. Answer again."
    return await _next(ctx, state.corrected(decision.text, told, problem))


async def _remind(ctx: AgentContext, state: AgentState, decision: Answer) -> Any:
    """Return an answer once that leaves obligations open; the next one may leave them so."""
    open_ids = list(state.left_open)
    ctx.record("validation", None, turn=state.turn, what="obligations", ok=False, errors=[f"open: {open_ids}"])
    said = Message(role="assistant", content=decision.text)
    state = state.said(said, Message(role="user", content=owing.remind(state)))
    return await _next(ctx, state.model_copy(update={"reminded": True}))


async def _next(ctx: AgentContext, state: AgentState) -> Any:
    return await ctx.checkpoint("turn", state.model_copy(update={"turn": state.turn + 1}))


def _record(ctx: AgentContext, state: AgentState, checked: Validated, errors: tuple[str, ...]) -> None:
    content = {"warnings": list(checked.warnings)} if checked.warnings else None
    facts = replace(checked, errors=errors).facts
    ctx.record("validation", content, turn=state.turn, what="output", ok=not errors, errors=list(errors), **facts)
