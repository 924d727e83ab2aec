"""The Responses protocol of OpenAI.

Translates only. Nothing is kept at the provider (`store: false`); the conversation is sent whole each time.
Structured output is asked for with `text.format: json_schema`; the fallback is `json_object` with the
schema in the instructions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from retinue.inference.dialect import (
    Draft,
    FinishReason,
    NotProtocol,
    Reported,
    Wire,
    merge_parameters,
    parse_data,
    parse_wire,
    read_call,
    told_arguments,
)
from retinue.inference.prices import Spent
from retinue.inference.schemas import is_strict, schema_prompt
from retinue.inference.sse import Event
from retinue.runs.contracts import Json
from retinue.runs.messages import Message, ModelRequest

_RESERVED = frozenset(
    "background conversation input instructions max_output_tokens model previous_response_id stream text tools".split()
)
_INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesDialect:
    """The Responses API."""

    path = "/responses"
    stream_fields: Mapping[str, Json] = MappingProxyType({"stream": True})
    markers: tuple[bytes, ...] = (b"text.format", b"json_schema", b"response_format")

    def headers(self, key: str | None) -> dict[str, str]:
        """The bearer token, when there is a key."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def payload(self, request: ModelRequest, model: str, native: bool) -> dict[str, Json]:
        """The body of POST /responses, without `stream`."""
        payload: dict[str, Json] = {
            "model": model,
            "input": [item for message in request.messages for item in _items(message)],
            "max_output_tokens": request.max_tokens,
        }
        if "store" not in request.parameters:
            payload["store"] = False
        if request.tools:
            payload["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.input_schema,
                    "strict": False,
                }
                for tool in request.tools
            ]
        if request.output_schema is not None:
            payload["text"] = {"format": _format(request, request.output_schema, native)}
            if not native:
                payload["instructions"] = schema_prompt(request.output_schema)
        return merge_parameters(payload, request.parameters, _RESERVED)

    def fold(self, request: ModelRequest, native: bool) -> ResponsesFold:
        """A fold for one stream."""
        return ResponsesFold()

    def read(self, body: Json, request: ModelRequest, native: bool) -> Draft:
        """The output items of a response; a failed one is Reported."""
        wire = parse_wire(_Body, body)
        if wire.status == "failed" or wire.error:
            raise Reported(wire.error or {"message": "the response failed without saying why"})
        parts = [part for item in wire.output if item.type == "message" for part in item.content or ()]
        calls = tuple(
            read_call(item.call_id or item.id, item.name or "", item.arguments or "", index)
            for index, item in enumerate(item for item in wire.output if item.type == "function_call")
        )
        refused = any(part.type == "refusal" for part in parts)
        return Draft(
            text="".join(part.text or part.refusal or "" for part in parts),
            tool_calls=calls,
            finish_reason="content_filter" if refused else _finish(wire, bool(calls)),
            spent=wire.usage.spent if wire.usage else None,
            model=wire.model,
            response_id=wire.id,
        )


class ResponsesFold:
    """Passes text on as it comes; the last event carries the whole response."""

    def __init__(self) -> None:
        self.done = False
        self._response: Json | None = None

    def feed(self, event: Event) -> str:
        """Take an event; its piece of output text."""
        if event.data.strip() == "[DONE]":
            return ""
        data = parse_data(event)
        kind = data.get("type", event.name)
        if kind == "error":
            raise Reported(data.get("error") or data)
        if kind in _LAST_EVENTS:
            self._response, self.done = parse_wire(_LastEvent, data).response, True
        if kind != "response.output_text.delta":
            return ""
        delta = data.get("delta")
        if not isinstance(delta, str):
            raise NotProtocol("response.output_text.delta without a text in `delta`")
        return delta

    def body(self) -> Json | None:
        """The response of the last event."""
        return self._response


def _items(message: Message) -> list[dict[str, Json]]:
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": message.content,
            }
        ]
    items: list[dict[str, Json]] = []
    if message.content or not message.tool_calls:
        items.append({"role": message.role, "content": message.content})
    for call in message.tool_calls:
        arguments = json.dumps(told_arguments(call))
        items.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    return items


def _format(request: ModelRequest, schema: dict[str, Json], native: bool) -> dict[str, Json]:
    if not native:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": request.output_name,
        "schema": schema,
        "strict": is_strict(schema),
    }


def _finish(wire: _Body, called: bool) -> FinishReason:
    if wire.status == "incomplete":
        why = wire.incomplete_details.reason if wire.incomplete_details else None
        return _INCOMPLETE.get(why or "", "other")
    return "tool_calls" if called else "stop"


class _Part(Wire):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Wire):
    type: str
    id: str | None = None
    content: tuple[_Part, ...] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Details(Wire):
    cached_tokens: int | None = Field(default=None, ge=0)


class _Usage(Wire):
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    input_tokens_details: _Details | None = None

    @property
    def spent(self) -> Spent:
        """As tokens; cached ones are a part of the input's."""
        cached = self.input_tokens_details.cached_tokens if self.input_tokens_details else None
        return Spent(self.input_tokens, self.output_tokens, cache_read=cached or 0)


class _Incomplete(Wire):
    reason: str | None = None


class _Body(Wire):
    id: str | None = None
    model: str | None = None
    status: Literal["completed", "incomplete", "failed", "in_progress", "queued", "cancelled"] = "completed"
    output: tuple[_Item, ...]
    error: dict[str, Json] | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None


class _LastEvent(Wire):
    response: dict[str, Json]
