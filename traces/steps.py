"""Rows for the effects of a run: intents, failed tries, and what came of them.

Pure: an entry in, rows out; an intent waits in the run's state for its outcome.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.journal import Attempt, Intent, Outcome
from retinue.runs.steps import EDITED, result_of
from retinue.runs.tracing import span_id_of
from retinue.traces.file import Row
from retinue.traces.records import add_gate_decision
from retinue.traces.rows import Page, member, micros, names
from retinue.traces.sandboxes import ran, without_output
from retinue.traces.spans import facts_of, number, step_span
from retinue.traces.states import Open


def begin_step(page: Page, entry: Intent) -> None:
    """Something is about to happen; a step that is tried again was begun by its first intent."""
    page.state.open.setdefault(entry.key, Open(entry))
    page.add(
        "intents",
        {
            "key": entry.key,
            "effect": entry.effect,
            "name": entry.name,
            "digest": entry.digest,
            "reserved_tokens": entry.reserved.tokens,
            "reserved_usd": entry.reserved.micros,
        },
    )
    if "gate" in entry.facts:
        add_gate_decision(page, entry.facts["gate"], _gated(entry.key, entry.name, entry.facts))
    if entry.effect in {"approval", "input"}:
        page.add("requests", _request(page, entry))


def try_again(page: Page, entry: Attempt) -> None:
    """A try failed and another follows."""
    left = page.state.open.get(entry.key)
    if left:
        left.tries += 1
    page.add(
        "attempts",
        {
            "key": entry.key,
            "number": entry.number,
            "error_reason": entry.error.reason,
            "error_code": entry.error.code,
            "error_message": entry.error.message,
            "not_before": micros(entry.not_before),
            "input_tokens": entry.charged.input_tokens,
            "output_tokens": entry.charged.output_tokens,
            "cost_usd": entry.charged.micros,
        },
    )


def end_step(page: Page, entry: Outcome) -> None:
    """A step ended: its span, and a row in the table of its kind."""
    if entry.effect == "gate" and entry.result == "ok":
        return  # its record is a row of policy_decisions; a span without length would only be in the way
    left = page.state.open.pop(entry.key, None)
    intent = left.intent if left else None
    span = step_span(page.state, intent, entry, left.tries if left else 0)
    page.add("spans", span)
    facts = facts_of(intent, entry)
    if "gate" in entry.facts:
        add_gate_decision(page, entry.facts["gate"], _gated(entry.key, entry.name, facts))
    match entry.effect:
        case "model":
            page.add("model_calls", _model_call(span, facts, intent, entry))
        case "call":
            page.add("tool_calls", _tool_call(span, facts, intent, entry))
            ran(page, intent, entry)
        case "remember" | "forget":
            page.add("memory_writes", _memory_write(span, facts, intent, entry))
        case "approval" | "input":
            page.add("answers", _answer(span, facts, entry))
        case "event":
            page.add(
                "events",
                {"topic": "signal", "name": entry.name, "facts": facts or None, "content": entry.content},
            )


def _gated(key: str, name: str, facts: dict[str, Any]) -> Row:
    asked = {**(facts.get("asked") or {}), **facts}  # a call in a sandbox is asked about at a stage of its own
    return {
        "key": key,
        "turn": facts.get("turn"),
        "call_id": facts.get("call_id"),
        "stage": asked.get("stage", "capability"),
        "resource": asked.get("resource", name),
    }


def _ended(span: Row) -> Row:
    """What the tables of model and tool calls share with the span."""
    return {
        "span_id": span["span_id"],
        "key": span["key"],
        "turn": span["turn"],
        "result": span["result"],
        "error_code": span["error_type"],
        "error_message": span["error_message"],
        "cost_usd": span["cost_usd"],
    }


def _model_call(span: Row, facts: dict[str, Any], intent: Intent | None, outcome: Outcome) -> Row:
    asked = intent.content if intent else None
    said = outcome.content
    return {
        **_ended(span),
        "provider": span["provider"],
        "model": span["model"],
        "response_model": facts.get("response_model"),
        "prompt": facts.get("prompt"),
        "parameters": facts.get("parameters"),
        "tools": names(facts.get("tools")),
        "messages": member(asked, "messages"),
        "output_schema": member(asked, "output_schema"),
        "text": member(said, "text"),
        "tool_calls": member(said, "tool_calls"),
        "raw": member(said, "raw"),
        "finish_reason": facts.get("finish_reason"),
        "response_id": facts.get("response_id"),
        "input_tokens": span["input_tokens"],
        "output_tokens": span["output_tokens"],
        "priced": facts.get("priced"),
        "latency_ms": number(facts.get("latency_ms")),
        "first_token_ms": number(facts.get("first_token_ms")),
    }


def _tool_call(span: Row, facts: dict[str, Any], intent: Intent | None, outcome: Outcome) -> Row:
    return {
        **_ended(span),
        "call_id": facts.get("call_id"),
        "tool": outcome.name,
        "version": facts.get("version"),
        "source": facts.get("source"),
        "side_effect": facts.get("side_effect"),
        "idempotency": facts.get("idempotency"),
        "gate": member(facts.get("gate"), "outcome"),
        "arguments": intent.content if intent else None,
        "edited_by": member(facts.get(EDITED), "by"),
        "asked_digest": member(facts.get(EDITED), "asked"),
        "called_digest": member(facts.get(EDITED), "called"),
        "value": without_output(outcome, result_of(outcome)[0]),
        "size_bytes": facts.get("size"),
        "cut": facts.get("cut"),
        "duration_ms": span["duration_ms"],
        "execution_us": facts.get("micros"),
    }


def _memory_write(span: Row, facts: dict[str, Any], intent: Intent | None, outcome: Outcome) -> Row:
    asked = intent.content if intent else None
    ended = _ended(span)
    del ended["cost_usd"]
    return {
        **ended,
        "call_id": facts.get("call_id"),
        "action": outcome.effect,
        "memory_id": facts.get("memory_id"),
        "scope": facts.get("scope"),
        "owner": facts.get("owner"),
        "name": member(asked, "key") or member(asked, "name"),
        "tags": names(member(asked, "tags")),
        "content": member(asked, "content"),
        "expires_at": micros(facts.get("expires_at")),
        "forgotten": facts.get("forgotten"),
        "duration_ms": span["duration_ms"],
    }


def _request(page: Page, intent: Intent) -> Row:
    prompt = intent.facts.get("prompt") or member(intent.content, "prompt")
    return {
        "key": intent.key,
        "span_id": span_id_of(page.state.identity["run_id"], intent.key),
        "request_id": intent.facts.get("request_id"),
        "kind": intent.effect,
        "name": intent.name,
        "prompt": intent.content if prompt is None and isinstance(intent.content, str) else prompt,
        "facts": intent.facts or None,
        "content": intent.content,
    }


def _answer(span: Row, facts: dict[str, Any], outcome: Outcome) -> Row:
    return {
        "key": outcome.key,
        "span_id": span["span_id"],
        "request_id": facts.get("request_id"),
        "kind": outcome.effect,
        "status": facts.get("status") or member(outcome.content, "status") or _verdict(outcome),
        "answered_by": facts.get("by") or member(outcome.content, "by"),
        "facts": outcome.facts or None,
        "value": outcome.content,
    }


def _verdict(outcome: Outcome) -> str:
    """The status of a request as its outcome implies it, for an entry that does not say it."""
    if outcome.result in {"canceled", "unknown"}:
        return "withdrawn"
    if outcome.effect == "input":
        return "answered"
    return "denied" if outcome.result != "ok" or outcome.content is False else "approved"
