"""The agent loop: build context → model → validate → gate → execute → observe → stop, one turn a checkpoint.

An agent is a workflow like any other: it runs on the deterministic loop, every effect goes through its
context, and it continues as new after each turn with its state. Knows no provider, no tool and no store.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic_core import to_json

from retinue.runs import agent_memory, answering, continuing, decisions, owing
from retinue.runs.agent_state import AgentState, first_state, spec_of
from retinue.runs.artifacts import read_artifact
from retinue.runs.contracts import ErrorInfo, Json, StopReason
from retinue.runs.decisions import Afresh, Answer, AskHuman, Decision, Handoff, Invalid, Stop, ToolCalls
from retinue.runs.definitions import AgentSpec
from retinue.runs.errors import InvalidDecision, PolicyDenied, RunError
from retinue.runs.journal import Outcome
from retinue.runs.messages import ModelReply, ModelRequest, ToolCall
from retinue.runs.options import Prompt
from retinue.runs.packets import ContextPacket, ContextRequest, Observation
from retinue.runs.sandboxes import SANDBOX_LOST
from retinue.runs.steps import EDITED, result_of
from retinue.runs.turns import AgentContext


async def run_agent(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState | None) -> Any:
    """Run an agent to its end: each call of this function is one turn, or a fresh start between two."""
    handed = read_artifact(input)
    if state is None:
        state = first_state(input, handed)
    if continuing.reset_due(spec, state):
        return await continuing.reset(ctx, spec, state)
    try:
        return await _take_turn(ctx, spec, None if handed else input, state)
    except RunError as error:
        if "open_obligations" not in error.facts:
            error.facts.update(owing.leave(ctx, state))
        raise


async def _take_turn(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState) -> Any:
    state, packet = await _build_context(ctx, spec, input, state)
    reply = await _ask_model(ctx, spec, state, packet)
    decision = decisions.decide(reply, packet.tools)
    _record_decision(ctx, state, decision)
    match decision:
        case Answer():
            return await answering.answer(ctx, spec, state, decision)
        case ToolCalls():
            refused = answering.refused_call(ctx, spec, state, decision)
            if refused is not None:
                return await _next_turn(ctx, _correct(ctx, spec, state, reply, refused))
            state = await _call_tools(ctx, state, decision)
        case AskHuman():
            state = await _ask_human(ctx, state, decision)
        case Handoff():
            return await continuing.hand_off(ctx, spec, input, state, decision)
        case Afresh():
            return await continuing.reset(ctx, spec, state, decision)
        case Stop():
            raise _stopped(decision)
        case Invalid():
            state = _correct(ctx, spec, state, reply, decision)
    return await _next_turn(ctx, state)


async def _next_turn(ctx: AgentContext, state: AgentState) -> Any:
    return await ctx.checkpoint("turn", state.model_copy(update={"turn": state.turn + 1}))


async def _build_context(
    ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState
) -> tuple[AgentState, ContextPacket]:
    """What the model is shown; where that would be too much, the history is shortened before."""
    state = await agent_memory.load(ctx, spec, state)
    packet = _build_packet(ctx, spec, input, state)
    shorter = continuing.shorten(ctx, spec, state, packet)
    if shorter is not None:
        before, (state, dropped) = packet.wanted, shorter
        packet = _build_packet(ctx, spec, input, state)
        continuing.record_compaction(ctx, state, dropped, before, packet.tokens)
    decision = await ctx.gate("context", spec.name, {"tokens": packet.tokens, "tools": len(packet.tools)})
    if decision.outcome != "allow":
        raise PolicyDenied(f"context: {decision.reason}")
    items = [item.model_dump(mode="json", exclude_defaults=True) | {"included": item.included} for item in packet.items]
    ctx.record("context", None, turn=state.turn, tokens=packet.tokens, limit=ctx.context_limit, items=items)
    return state, packet


def _build_packet(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState) -> ContextPacket:
    source = f"prompt/{spec.instructions.name}" if isinstance(spec.instructions, Prompt) else f"agent/{spec.name}"
    text = spec.instructions.text if isinstance(spec.instructions, Prompt) else spec.instructions
    return ctx.build(
        ContextRequest(
            instructions=text,
            instructions_source=source,
            goal=state.goal,
            input=input,
            state=(*continuing.state_in_words(state), *(state.recalled or ())),
            turns=state.conversation,
            observations=state.observed,
            tools=ctx.disclosed(spec),
            limit=ctx.context_limit,
            now=ctx.now_ns,
        )
    )


async def _ask_model(ctx: AgentContext, spec: AgentSpec, state: AgentState, packet: ContextPacket) -> ModelReply:
    request = ModelRequest(
        model=ctx.model_name(spec),
        messages=packet.messages,
        tools=packet.tools,
        output_schema=spec.output_schema,
        output_name=spec_of(spec.name),
        parameters=spec.parameters,
        max_tokens=spec.max_tokens,
        timeout=ctx.model_timeout,
        run_id=ctx.request.run_id,
        agent=spec.name,
        turn=state.turn,
        input_id=ctx.request.input_id,
        input_text=state.goal,
    )
    prompt = spec.instructions.name if isinstance(spec.instructions, Prompt) else None
    return await ctx.model(request, prompt)


def _record_decision(ctx: AgentContext, state: AgentState, decision: Decision) -> None:
    tools = [call.name for call in decision.calls] if isinstance(decision, ToolCalls) else []
    content = decision.model_dump(mode="json")
    ctx.record("decision", content, turn=state.turn, type=decision.type, tools=tools)


async def _call_tools(ctx: AgentContext, state: AgentState, decision: ToolCalls) -> AgentState:
    """Call the capabilities together; whatever comes of them is an observation, refusals and errors too."""
    calls, plan = decision.calls, decision.plan
    outcomes = await asyncio.gather(*(ctx.try_call(call, state.turn) for call in calls)) if calls else []
    state = state.called(calls if plan is None else (*calls, plan.call))
    for call, outcome in zip(calls, outcomes, strict=True):
        seen = _seen(state, call, outcome)
        state = owing.follow(ctx, _observe(ctx, state, seen), call, outcome, seen)
    if plan is not None:
        planned, problem = owing.take_up(ctx, state, plan)
        state = _observe(ctx, planned, owing.plan_seen(state, planned, plan.call, problem))
    for outcome in outcomes:
        error = outcome.error
        lost = error is not None and (error.reason == "budget_exhausted" or error.code == SANDBOX_LOST)
        if outcome.result == "unknown" or lost:
            raise owing.leaving(ctx, state, _fatal(outcome))
    return state


def _seen(state: AgentState, call: ToolCall, outcome: Outcome) -> Observation:
    result: Literal["ok", "refused", "error", "unknown"] = "ok"
    data, called = result_of(outcome)
    if outcome.result != "ok":
        result = outcome.result if outcome.result in ("refused", "unknown") else "error"
        error = _error_of(outcome)
        data = {result: error.message, "code": error.code}
    if called is not None:
        by = f"{outcome.facts[EDITED]['by']} approved the call with other arguments"
        data = {"called_with": called, "because": by, "result": data}
    return Observation(
        id=state.next_id(),
        kind="policy" if result == "refused" else "tool",
        result=result,
        name=call.name,
        call_id=call.id,
        data=data,
        turn=state.turn,
    )


async def _ask_human(ctx: AgentContext, state: AgentState, decision: AskHuman) -> AgentState:
    """Ask a person and observe the answer."""
    answer = await ctx.ask(decision.question)
    call = ToolCall(id=decision.call_id, name="ask_human", arguments={"question": decision.question})
    state = state.called((call,))
    seen = Observation(id=state.next_id(), kind="human", name=call.name, call_id=call.id, data=answer, turn=state.turn)
    return _observe(ctx, state, seen)


def _observe(ctx: AgentContext, state: AgentState, seen: Observation) -> AgentState:
    facts: dict[str, Json] = {"id": seen.id, "kind": seen.kind, "result": seen.result, "name": seen.name}
    ctx.record("observation", {"data": seen.data}, turn=state.turn, call_id=seen.call_id, **facts)
    return state.saw(seen, seen.data if isinstance(seen.data, str) else to_json(seen.data).decode())


def _correct(ctx: AgentContext, spec: AgentSpec, state: AgentState, reply: ModelReply, decision: Invalid) -> AgentState:
    """Return an invalid decision to the model with the reason, a bounded number of times."""
    ctx.record("validation", None, turn=state.turn, what="decision", ok=False, errors=[decision.problem])
    if state.corrections >= spec.corrections:
        raise InvalidDecision(f"no valid decision after {state.corrections + 1} tries: {decision.problem}")
    told = f"That was no valid decision: {decision.problem}. Decide again."
    return state.corrected(reply.text or "(a reply that is no decision)", told, decision.problem)


def _stopped(decision: Stop) -> RunError:
    error = RunError(f"the model stopped: {decision.reason}")
    error.reason = StopReason.blocked
    return error


def _error_of(outcome: Outcome) -> ErrorInfo:
    return outcome.error or ErrorInfo(reason="tool_failure", code=outcome.result, message="no details")


def _fatal(outcome: Outcome) -> RunError:
    error = _error_of(outcome)
    failure = RunError(error.message)
    failure.reason = error.reason
    failure.step = outcome.key
    return failure
