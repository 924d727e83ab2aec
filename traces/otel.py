"""Rows of the spans table as OpenTelemetry spans, with the same ids, times and attributes.

Owns the mapping of columns to `ReadableSpan`. Knows no endpoint and no file.
"""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from retinue.traces.file import Row
from retinue.traces.spans import SEMCONV

COLUMNS = {
    "run_id": "retinue.run.id",
    "root_run_id": "retinue.run.root",
    "parent_run_id": "retinue.run.parent",
    "tenant_id": "retinue.tenant.id",
    "job_id": "retinue.job.id",
    "key": "retinue.step.key",
    "effect": "retinue.step.effect",
    "result": "retinue.step.result",
    "turn": "retinue.turn",
    "attempts": "retinue.attempts",
    "epoch": "retinue.lease.epoch",
    "host_id": "retinue.host.id",
    "actor_id": "retinue.actor.id",
    "pid": "retinue.pid",
    "node": "retinue.node",
}
"""Columns that are attributes of the exported span under another name."""

_STATUS = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}
_KIND = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def resource(service: str) -> Resource:
    """The resource of all exported spans, with what OpenTelemetry itself reads from the environment."""
    return Resource.create({"service.name": service})


def readable(row: Row, origin: Resource) -> ReadableSpan:
    """One row of spans (`attributes` and content columns as JSON text) as an OpenTelemetry span."""
    parent = row["parent_span_id"]
    status = _STATUS[row["status"]]
    return ReadableSpan(
        name=row["name"],
        context=_context(row["trace_id"], row["span_id"]),
        parent=_context(row["trace_id"], parent, remote=True) if parent else None,
        resource=origin,
        attributes=_attributes(row),
        kind=_KIND[row["kind"]],
        status=Status(status, row["error_message"] if status is StatusCode.ERROR else None),
        start_time=row["start_ns"],
        end_time=row["end_ns"],
        instrumentation_scope=InstrumentationScope("retinue", schema_url=f"https://opentelemetry.io/schemas/{SEMCONV}"),
    )


def _context(trace_id: str, span_id: str, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED)


def _attributes(row: Row) -> dict[str, Any]:
    attributes = dict(json.loads(row["attributes"] or "{}"))
    attributes |= {name: row[column] for column, name in COLUMNS.items() if row[column] is not None}
    if row["cost_usd"] is not None:
        attributes["retinue.cost.usd"] = float(row["cost_usd"])
    attributes |= _content(row)
    return {name: _plain(value) for name, value in attributes.items()}


def _content(row: Row) -> dict[str, str]:
    """What was said, where it was asked for: as the conventions write it."""
    said: dict[str, str] = {}
    if row.get("messages"):
        said["gen_ai.input.messages"] = json.dumps([_message(part) for part in json.loads(row["messages"])])
    if row.get("messages") and row.get("text") is not None:
        reply = {
            "role": "assistant",
            "content": row["text"],
            "tool_calls": json.loads(row["tool_calls"] or "[]"),
        }
        said["gen_ai.output.messages"] = json.dumps([_message(reply)])
    if row.get("arguments"):
        said["gen_ai.tool.call.arguments"] = row["arguments"]
    if row.get("value"):
        said["gen_ai.tool.call.result"] = row["value"]
    return said


def _message(message: dict[str, Any]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if message.get("role") == "tool":
        parts.append(
            {
                "type": "tool_call_response",
                "id": message.get("tool_call_id"),
                "response": message.get("content"),
            }
        )
    elif message.get("content"):
        parts.append({"type": "text", "content": message["content"]})
    for call in message.get("tool_calls") or ():
        parts.append(
            {
                "type": "tool_call",
                "id": call.get("id"),
                "name": call.get("name"),
                "arguments": call.get("arguments"),
            }
        )
    return {"role": message.get("role"), "parts": parts}


def _plain(value: Any) -> Any:
    """OpenTelemetry attributes are scalars or lists of one kind of scalar; the rest travels as JSON text."""
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    return json.dumps(value)
