"""Model calls: gate, reserve, intend, call, settle. Money and words are effects.

A call that costs has its intent and its reservation on disk before it is made; if its owner dies, the
reservation is spent until somebody knows better. Free calls ride with the next commit.
"""

from __future__ import annotations

from retinue.runs.contracts import NOTHING, ErrorInfo, Json, Usage
from retinue.runs.effects import breaking, gates, retrying
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError
from retinue.runs.journal import Attempt, Intent, Outcome
from retinue.runs.messages import ModelProfile, ModelReply, ModelRequest, OnDelta, ToolCall
from retinue.runs.steps import Command, Done, Wait
from retinue.runs.tracing import span_id_of, traceparent


async def perform(run: Run, command: Command) -> Done | Wait:
    """Call a model, or go on with a call."""
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    request: ModelRequest = command.options["request"]
    profile = run.services.models.profile(request)
    if command.interrupted:
        _charge_lost_call(run, command)
    concern = gates.Concern("model", request.model, _facts(run, request, profile), command.key)
    decision = gates.decide(run, concern)
    if decision.outcome != "allow":
        error = ErrorInfo(reason="policy_denied", code="denied", message=f"model {request.model}: {decision.reason}")
        return Done(result="refused", error=error, hard=False)
    blocked = await breaking.blocked(run, f"model:{profile.endpoint}") if profile.endpoint else None
    if blocked is not None:
        return blocked
    await _intend(run, command, request, profile)
    return await _complete(run, command, request, profile)


async def _intend(run: Run, command: Command, request: ModelRequest, profile: ModelProfile) -> None:
    reserved = Usage(
        steps=1,
        input_tokens=profile.input_tokens,
        output_tokens=request.max_tokens,
        micros=profile.max_micros or 0,
    )
    run.ledger.reserve(command.key, reserved)
    intent = Intent(
        at=run.services.now_ns(),
        content={
            "messages": [message.model_dump(mode="json", exclude_defaults=True) for message in request.messages],
            "output_schema": request.output_schema,
        },
        key=command.key,
        effect="model",
        name=request.model,
        digest=command.digest,
        reserved=reserved,
        facts=_facts(run, request, profile) | {"prompt": command.options.get("prompt")},
    )
    if not profile.free:
        await run.write(intent)
    elif command.key not in run.history.intents:
        run.note(intent)


async def _complete(run: Run, command: Command, request: ModelRequest, profile: ModelProfile) -> Done | Wait:
    number = len(run.history.attempts.get(command.key, ())) + 1
    span = traceparent(run.request.trace_id, span_id_of(run.request.run_id, command.key))
    on_delta: OnDelta | None = None
    if command.options.get("stream"):

        def stream(text: str) -> None:
            run.services.deltas(run.request.run_id, command.key, number, text)

        on_delta = stream

    try:
        reply = await run.services.models.complete(request.model_copy(update={"traceparent": span}), on_delta)
    except EffectError as error:
        await _report(run, profile, error)
        return retrying.after(run, command, error, Usage(steps=1))
    finally:
        if on_delta is not None:
            on_delta("")
    await _report(run, profile)
    return Done(
        value=_content(reply),
        usage=reply.usage.model_copy(update={"steps": 1}),
        facts=_outcome_facts(reply),
        hard=not profile.free or on_delta is not None or run.services.defaults.strict,
    )


async def _report(run: Run, profile: ModelProfile, error: EffectError | None = None) -> None:
    if profile.endpoint:
        await breaking.report(run, f"model:{profile.endpoint}", error)


def _charge_lost_call(run: Run, command: Command) -> None:
    """Its owner died while it ran: what was reserved is spent, as far as anyone knows."""
    command.interrupted = False
    lost = run.history.intents[command.key].reserved
    now = run.services.now_ns()
    info = ErrorInfo(
        reason="model_failure", code="interrupted", message="the owner died during the call", retryable=True
    )
    number = len(run.history.attempts.get(command.key, ())) + 1
    charged = lost if lost.micros else NOTHING
    run.note(Attempt(at=now, key=command.key, number=number, error=info, not_before=now, charged=charged))
    run.ledger.settle(command.key, charged)


def _facts(run: Run, request: ModelRequest, profile: ModelProfile) -> dict[str, Json]:
    limited = {"limited": True} if run.ledger.budget.usd is not None else {}
    return limited | {
        "model": request.model,
        "provider": profile.provider,
        "turn": request.turn,
        "parameters": request.parameters | {"max_tokens": request.max_tokens},
        "tools": [tool.name for tool in request.tools],
        "free": profile.free,
        "priced": profile.max_micros is not None,
    }


def _outcome_facts(reply: ModelReply) -> dict[str, Json]:
    return {
        "model": reply.model,
        "provider": reply.provider,
        "finish_reason": reply.finish_reason,
        "latency_ms": round(reply.latency_ms, 3),
        "first_token_ms": reply.first_token_ms,
        "priced": reply.priced,
        "response_id": reply.response_id,
    }


def _content(reply: ModelReply) -> dict[str, Json]:
    calls = [call.model_dump(mode="json") for call in reply.tool_calls]
    return {"text": reply.text, "tool_calls": calls, "raw": reply.raw}


def reply_of(outcome: Outcome) -> ModelReply:
    """What the model said, as the outcome of a call that went well keeps it."""
    content, facts = outcome.content, outcome.facts
    return ModelReply(
        text=content["text"],
        tool_calls=tuple(ToolCall.model_validate(call) for call in content["tool_calls"]),
        finish_reason=facts["finish_reason"],
        usage=outcome.usage,
        model=facts["model"],
        provider=facts["provider"],
    )
