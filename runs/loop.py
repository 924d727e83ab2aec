"""The agent loop: build context → model → validate → gate → execute → observe → stop, one turn a checkpoint.

An agent is a workflow like any other: it runs on the deterministic loop, every effect goes through its
context, and it continues as new after each turn with its state. Knows no provider, no tool and no store.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import to_json

from retinue.runs import decisions
from retinue.runs.agent_state import AgentState, goal_of, spec_of
from retinue.runs.contracts import ErrorInfo, Json, StopReason
from retinue.runs.decisions import Answer, AskHuman, Decision, Handoff, Invalid, Stop, ToolCalls
from retinue.runs.definitions import AgentSpec, Prompt
from retinue.runs.ending import Ended
from retinue.runs.errors import InvalidDecision, OutputRejected, PolicyDenied, RunError
from retinue.runs.journal import Outcome
from retinue.runs.messages import Message, ModelReply, ModelRequest, ToolCall
from retinue.runs.outputs import validate
from retinue.runs.packets import ContextPacket, ContextRequest, Observation
from retinue.runs.turns import AgentContext


async def run_agent(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState | None) -> Any:
    """Run an agent to its end: each call of this function is one turn."""
    if state is None:
        state = AgentState(goal=goal_of(input))
    packet = await _build_context(ctx, spec, input, state)
    reply = await _ask_model(ctx, spec, state, packet)
    decision = decisions.decide(reply, packet.tools)
    _record_decision(ctx, state, decision)
    match decision:
        case Answer():
            return await _answer(ctx, spec, state, decision)
        case ToolCalls():
            state = await _call_tools(ctx, state, decision)
        case AskHuman():
            answer = await ctx.ask(decision.question)
            state = state.called(
                (ToolCall(id=decision.call_id, name="ask_human", arguments={"question": decision.question}),)
            )
            state = _observe(
                ctx,
                state,
                Observation(
                    id=state.next_id(),
                    kind="human",
                    name="ask_human",
                    call_id=decision.call_id,
                    data=answer,
                    turn=state.turn,
                ),
            )
        case Handoff():
            return await _hand_off(ctx, decision, state)
        case Stop():
            raise _stopped(decision)
        case Invalid():
            state = _correct(ctx, spec, state, reply, decision)
    return await ctx.checkpoint("turn", state.model_copy(update={"turn": state.turn + 1}))


async def _build_context(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState) -> ContextPacket:
    source = f"prompt/{spec.instructions.name}" if isinstance(spec.instructions, Prompt) else f"agent/{spec.name}"
    text = spec.instructions.text if isinstance(spec.instructions, Prompt) else spec.instructions
    packet = ctx.build(
        ContextRequest(
            instructions=text,
            instructions_source=source,
            goal=state.goal,
            input=input,
            turns=state.messages,
            observations=state.observations,
            tools=ctx.disclosed(spec),
            limit=ctx.context_limit,
            now=ctx.now_ns,
        )
    )
    decision = await ctx.gate("context", spec.name, {"tokens": packet.tokens, "tools": len(packet.tools)})
    if decision.outcome != "allow":
        raise PolicyDenied(f"context: {decision.reason}")
    items = [item.model_dump(mode="json", exclude_defaults=True) | {"included": item.included} for item in packet.items]
    ctx.record("context", None, turn=state.turn, tokens=packet.tokens, limit=ctx.context_limit, items=items)
    return packet


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


async def _answer(ctx: AgentContext, spec: AgentSpec, state: AgentState, decision: Answer) -> Any:
    """Validate, gate and return the answer; a rejected one goes back to the model, a bounded number of times."""
    checked = validate(decision.text, spec.output, state.evidence())
    ctx.record("validation", None, turn=state.turn, what="output", ok=checked.ok, errors=list(checked.errors))
    if not checked.ok:
        problem = "; ".join(checked.errors)
        if state.corrections >= spec.corrections:
            raise OutputRejected(f"the answer was refused {state.corrections + 1} times: {problem}")
        message = Message(role="assistant", content=decision.text)
        state = state.said(message, Message(role="user", content=f"The answer was refused: {problem}. Answer again."))
        state = state.model_copy(update={"corrections": state.corrections + 1, "turn": state.turn + 1})
        return await ctx.checkpoint("turn", state)
    verdict = await ctx.gate("output", spec.name, {"confidence": str(checked.confidence)})
    if verdict.outcome != "allow":
        raise PolicyDenied(f"output: {verdict.reason}")
    facts: dict[str, Json] = {"confidence": checked.confidence, "turns": state.turn + 1}
    return Ended(checked.value, facts=facts)


async def _call_tools(ctx: AgentContext, state: AgentState, decision: ToolCalls) -> AgentState:
    """Call the capabilities together; whatever comes of them is an observation, refusals and errors too."""
    outcomes = await asyncio.gather(*(ctx.try_call(call, state.turn) for call in decision.calls))
    state = state.called(decision.calls)
    for call, outcome in zip(decision.calls, outcomes, strict=True):
        state = _observe(ctx, state, _seen(state, call, outcome))
    return state


def _seen(state: AgentState, call: ToolCall, outcome: Outcome) -> Observation:
    if outcome.result == "ok":
        data, result = outcome.content, "ok"
    else:
        error = outcome.error or ErrorInfo(reason="tool_failure", code=outcome.result, message="no details")
        if outcome.result == "unknown" or error.reason == "budget_exhausted":
            raise _fatal(error)
        result = "refused" if outcome.result == "refused" else "error"
        data = {result: error.message, "code": error.code}
    return Observation(
        id=state.next_id(),
        kind="policy" if result == "refused" else "tool",
        result="ok" if result == "ok" else "refused" if result == "refused" else "error",
        name=call.name,
        call_id=call.id,
        data=data,
        turn=state.turn,
    )


def _observe(ctx: AgentContext, state: AgentState, seen: Observation) -> AgentState:
    facts: dict[str, Json] = {"id": seen.id, "kind": seen.kind, "result": seen.result, "name": seen.name}
    ctx.record("observation", {"data": seen.data}, turn=state.turn, call_id=seen.call_id, **facts)
    content = seen.data if isinstance(seen.data, str) else to_json(seen.data).decode()
    message = Message(role="tool", content=content, tool_call_id=seen.call_id, name=seen.name)
    return state.said(message).model_copy(
        update={"observed": (*state.observed, seen.model_copy(update={"data": None}))}
    )


async def _hand_off(ctx: AgentContext, decision: Handoff, state: AgentState) -> Any:
    """Another agent goes on with the artifact; what it answers is the answer."""
    artifact = {"goal": state.goal, "from": ctx.request.target, "artifact": decision.artifact}
    ctx.record("handoff", artifact, **{"to": decision.agent, "from": ctx.request.target})
    value = await ctx.run(decision.agent, artifact)
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return Ended(plain, StopReason.handoff, {"to": decision.agent})


def _correct(ctx: AgentContext, spec: AgentSpec, state: AgentState, reply: ModelReply, decision: Invalid) -> AgentState:
    """Return an invalid decision to the model with the reason, a bounded number of times."""
    ctx.record("validation", None, turn=state.turn, what="decision", ok=False, errors=[decision.problem])
    if state.corrections >= spec.corrections:
        raise InvalidDecision(f"no valid decision after {state.corrections + 1} tries: {decision.problem}")
    said = Message(role="assistant", content=reply.text or "(a reply that is no decision)")
    told = Message(role="user", content=f"That was no valid decision: {decision.problem}. Decide again.")
    return state.said(said, told).model_copy(update={"corrections": state.corrections + 1})


def _stopped(decision: Stop) -> RunError:
    error = RunError(f"the model stopped: {decision.reason}")
    error.reason = StopReason.blocked
    return error


def _fatal(error: ErrorInfo) -> RunError:
    failure = RunError(error.message)
    failure.reason = error.reason
    return failure
