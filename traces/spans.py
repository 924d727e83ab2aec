"""Spans: every run and every step that ended, as OpenTelemetry's GenAI conventions name them.

Owns operations, names, status and attributes of spans, as pure functions. The attribute names are written
out here, since the conventions move between packages; `SEMCONV` says which version they follow.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.contracts import Status
from retinue.runs.identity import step_of
from retinue.runs.journal import Finished, Intent, Outcome
from retinue.runs.tracing import span_id_of
from retinue.traces.file import Row
from retinue.traces.states import RunState

SEMCONV = "1.44.0"

OPERATIONS = {
    "model": "chat",
    "call": "execute_tool",
    "recall": "retrieval",
    "children": "spawn",
    "adopt": "invoke_agent",
}
"""Operation of a step by its effect; other effects are their own operation."""

STATUS = {"ok": "ok", "refused": "error", "error": "error", "unknown": "error", "canceled": "unset"}
"""Span status by the result of an outcome; a cancellation is nobody's error."""

PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stop": "gen_ai.request.stop_sequences",
}


def step_span(state: RunState, intent: Intent | None, outcome: Outcome, tries: int) -> Row:
    """The span of a step that ended; without an intent it began as long ago as its latency says."""
    facts = facts_of(intent, outcome)
    start = intent.at if intent else outcome.at - _latency_ns(facts)
    operation = OPERATIONS.get(outcome.effect, outcome.effect)
    model = facts.get("model") if outcome.effect == "model" else None
    error = outcome.error
    failed = outcome.result not in {"ok", "canceled"}
    error_type = (error.code if error else outcome.result) if failed else None
    return {
        **_lineage(state),
        "span_id": span_id_of(state.identity["run_id"], outcome.key),
        "parent_span_id": _parent_of(state, outcome.key),
        "key": outcome.key,
        "effect": outcome.effect,
        "operation": operation,
        "name": f"{operation} {model or outcome.name}".rstrip(),
        "kind": "client" if outcome.effect == "model" else "internal",
        **_timing(start, outcome.at),
        "status": STATUS[outcome.result],
        "result": outcome.result,
        "error_type": error_type,
        "error_message": error.message if error else None,
        "provider": facts.get("provider") if model else None,
        "model": model,
        "turn": facts.get("turn"),
        "input_tokens": outcome.usage.input_tokens,
        "output_tokens": outcome.usage.output_tokens,
        "cost_usd": outcome.usage.micros,
        "attempts": tries + 1,
        "activation": outcome.activation,
        "attributes": _step_attributes(state, outcome, facts, operation, error_type),
    }


def run_span(state: RunState, finished: Finished) -> Row:
    """The span of a run that ended: from its first lease, or from its acceptance when it never had one."""
    identity = state.identity
    operation = "invoke_workflow" if identity["kind"] == "workflow" else "invoke_agent"
    failed = finished.status is Status.failed
    start = state.started_ns or identity["at_ns"] or finished.at
    usage = finished.usage
    attributes = {
        **_agent_attributes(identity, operation),
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "error.type": finished.reason.value if failed else None,
    }
    return {
        **_lineage(state),
        "span_id": identity["span_id"],
        "parent_span_id": identity["parent_span_id"],
        "effect": "run",
        "operation": operation,
        "name": f"{operation} {identity['agent'] or ''}".rstrip(),
        "kind": "internal",
        **_timing(start, finished.at),
        "status": "error" if failed else "unset" if finished.status is Status.canceled else "ok",
        "result": finished.reason.value,
        "error_type": finished.reason.value if failed else None,
        "error_message": finished.error.message if finished.error else None,
        "model": identity["model"],
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.micros,
        "attributes": _present(attributes),
    }


def facts_of(intent: Intent | None, outcome: Outcome) -> dict[str, Any]:
    """The facts of both ends of a step; the outcome's count, but `model` is the one that was asked."""
    asked = intent.facts if intent else {}
    merged = {**asked, **outcome.facts}
    if outcome.effect == "model":
        merged |= {"model": asked.get("model", outcome.name), "response_model": outcome.facts.get("model")}
    return merged


def number(value: Any) -> float | None:
    """A fact that should be a number, if it is one."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _latency_ns(facts: dict[str, Any]) -> int:
    return int((number(facts.get("latency_ms")) or 0) * 1_000_000)


def _lineage(state: RunState) -> Row:
    identity = state.identity
    return {
        "parent_run_id": identity["parent_run_id"],
        "agent_version": identity["agent_version"],
        "job_id": identity["job_id"],
        "session_id": identity["session_id"],
        "trace_id": identity["trace_id"],
        "semconv": SEMCONV,
        **state.host,
    }


def _parent_of(state: RunState, key: str) -> str:
    """The run's span, or that of the adopted function that a step is inside of (`key!...`)."""
    outer, _, _ = step_of(key).rpartition("!")
    return span_id_of(state.identity["run_id"], outer) if outer else str(state.identity["span_id"])


def _timing(start: int, end: int) -> Row:
    """Clocks of two hosts may differ; a span never ends before it begins."""
    end = max(start, end)
    return {
        "start_time": start // 1000,
        "time": end // 1000,
        "start_ns": start,
        "end_ns": end,
        "duration_ms": (end - start) / 1_000_000,
    }


def _agent_attributes(identity: dict[str, Any], operation: str) -> dict[str, Any]:
    named = "gen_ai.workflow.name" if identity["kind"] == "workflow" else "gen_ai.agent.name"
    return {
        "gen_ai.operation.name": operation,
        named: identity["agent"],
        "gen_ai.agent.id": identity["instance_id"],
        "gen_ai.agent.version": identity["agent_version"],
        "gen_ai.conversation.id": identity["session_id"],
    }


def _step_attributes(
    state: RunState, outcome: Outcome, facts: dict[str, Any], operation: str, error_type: str | None
) -> dict[str, Any]:
    attributes = _agent_attributes(state.identity, operation) | {"error.type": error_type}
    special = _SPECIAL.get(outcome.effect)
    if special:
        attributes |= special(outcome, facts)
    return _present(attributes)


def _chat_attributes(outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    parameters = facts.get("parameters")
    sent = parameters if isinstance(parameters, dict) else {}
    first = number(facts.get("first_token_ms"))
    reason = facts.get("finish_reason")
    return {
        "gen_ai.provider.name": facts.get("provider"),
        "gen_ai.request.model": facts.get("model"),
        "gen_ai.response.model": facts.get("response_model"),
        "gen_ai.response.id": facts.get("response_id"),
        "gen_ai.response.finish_reasons": [reason] if reason else None,
        "gen_ai.response.time_to_first_chunk": None if first is None else first / 1000,
        "gen_ai.prompt.name": facts.get("prompt"),
        "gen_ai.usage.input_tokens": outcome.usage.input_tokens,
        "gen_ai.usage.output_tokens": outcome.usage.output_tokens,
        **{attribute: sent[name] for name, attribute in PARAMETERS.items() if name in sent},
    }


def _tool_attributes(outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "gen_ai.tool.name": outcome.name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": facts.get("call_id"),
        "retinue.tool.version": facts.get("version"),
        "retinue.tool.side_effect": facts.get("side_effect"),
        "retinue.tool.source": facts.get("source"),
    }


def _children_attributes(outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    counted = {f"retinue.children.{name}": facts.get(name) for name in ("total", "ok", "failed", "rejected")}
    return counted | {
        "retinue.children.target": outcome.name,
        "retinue.children.version": facts.get("target_version"),
    }


_SPECIAL = {"model": _chat_attributes, "call": _tool_attributes, "children": _children_attributes}


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
