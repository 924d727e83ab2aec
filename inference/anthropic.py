"""The Messages protocol of Anthropic.

Translates only. Structured output is asked for with `output_config.format`; the fallback is a tool named
like the answer that the model must call, whose arguments are given back as the answer's text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from types import MappingProxyType

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
from retinue.inference.schemas import close_objects
from retinue.inference.sse import Event
from retinue.runs.contracts import Json
from retinue.runs.messages import Message, ModelRequest, ToolCall

VERSION = "2023-06-01"
_RESERVED = frozenset("max_tokens messages model output_config stream system tool_choice tools".split())
_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class AnthropicDialect:
    """The Messages API."""

    path = "/v1/messages"
    stream_fields: Mapping[str, Json] = MappingProxyType({"stream": True})
    markers: tuple[bytes, ...] = (b"output_config", b"output_format", b"json_schema")

    def headers(self, key: str | None) -> dict[str, str]:
        """The key and the protocol's version."""
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    def payload(self, request: ModelRequest, model: str, native: bool) -> dict[str, Json]:
        """The body of POST /v1/messages, without `stream`."""
        payload: dict[str, Json] = {
            "model": model,
            "max_tokens": request.max_tokens,
            "messages": _turns(request.messages),
        }
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        if system:
            payload["system"] = system
        tools: list[dict[str, Json]] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            for tool in request.tools
        ]
        if request.output_schema is not None and native:
            schema = close_objects(request.output_schema)
            payload["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        elif request.output_schema is not None:
            tools.append(_answer_tool(request.output_name, request.output_schema))
            payload["tool_choice"] = {"type": "any"}
        if tools:
            payload["tools"] = tools
        return merge_parameters(payload, request.parameters, _RESERVED)

    def fold(self, request: ModelRequest, native: bool) -> AnthropicFold:
        """A fold for one stream."""
        return AnthropicFold(None if native else request.output_name)

    def read(self, body: Json, request: ModelRequest, native: bool) -> Draft:
        """The content blocks of a message; a call of the answer's own tool becomes text."""
        wire = parse_wire(_Body, body)
        answer = request.output_name if request.output_schema is not None and not native else None
        texts: list[str] = []
        answers: list[str] = []
        calls: list[ToolCall] = []
        for block in wire.content:
            if block.type == "text":
                texts.append(block.text or "")
            elif block.type == "tool_use" and block.name == answer:
                answers.append(block.written)
            elif block.type == "tool_use":
                calls.append(read_call(block.id, block.name or "", block.written, len(calls)))
        finish = _FINISH.get(wire.stop_reason or "end_turn", "other")
        if answers and not calls and finish == "tool_calls":
            finish = "stop"
        return Draft(
            text=answers[0] if answers else "".join(texts),
            tool_calls=tuple(calls),
            finish_reason=finish,
            spent=wire.usage.spent if wire.usage else None,
            model=wire.model,
            response_id=wire.id,
        )


class AnthropicFold:
    """Joins the blocks of a streamed message. `answer` is the tool whose arguments are the answer's text."""

    def __init__(self, answer: str | None) -> None:
        self.done = False
        self._answer = answer
        self._message: dict[str, Json] = {}
        self._blocks: dict[int, dict[str, Json]] = {}
        self._written: dict[int, list[str]] = {}

    def feed(self, event: Event) -> str:
        """Take an event; its piece of the answer's text."""
        data = parse_data(event)
        match data.get("type"):
            case "error":
                raise Reported(data.get("error") or data)
            case "message_start":
                self._message = dict(parse_wire(_Start, data).message)
            case "content_block_start":
                start = parse_wire(_BlockStart, data)
                self._blocks[start.index] = dict(start.content_block)
                self._written[start.index] = []
            case "content_block_delta":
                return self._join(parse_wire(_BlockDelta, data))
            case "message_delta":
                self._finish(parse_wire(_MessageDelta, data))
            case "message_stop":
                self.done = True
        return ""

    def _join(self, change: _BlockDelta) -> str:
        block = self._blocks.get(change.index)
        if block is None:
            raise NotProtocol(f"content_block_delta for block {change.index}, which was never started")
        delta = change.delta
        if delta.type == "text_delta":
            block["text"] = block.get("text", "") + delta.text
            return delta.text
        if delta.type == "input_json_delta":
            self._written[change.index].append(delta.partial_json)
            return delta.partial_json if block.get("name") == self._answer else ""
        if delta.type == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta.thinking
        return ""

    def _finish(self, change: _MessageDelta) -> None:
        self._message.update(change.delta)
        usage = self._message.get("usage")
        self._message["usage"] = {**(usage if isinstance(usage, dict) else {}), **change.usage}

    def body(self) -> Json | None:
        """The message, or None when message_stop never came."""
        if not self.done or not self._message:
            return None
        content = []
        for index, block in sorted(self._blocks.items()):
            if block.get("type") == "tool_use" and self._written[index]:
                block = {**block, "input": "".join(self._written[index])}
            content.append(block)
        return {**self._message, "content": content}


def _turns(messages: tuple[Message, ...]) -> list[dict[str, Json]]:
    """User and assistant turns; neighbours of the same side are one turn, results of tools are the user's."""
    spoken = [message for message in messages if message.role != "system"]
    turns = []
    for role, group in groupby(spoken, key=lambda m: "assistant" if m.role == "assistant" else "user"):
        blocks = [block for message in group for block in _blocks(message)]
        if blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Json]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    blocks: list[dict[str, Json]] = []
    if message.content.strip():
        blocks.append({"type": "text", "text": message.content})
    for call in message.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": told_arguments(call)})
    return blocks


def _answer_tool(name: str, schema: dict[str, Json]) -> dict[str, Json]:
    return {
        "name": name,
        "description": "Give the final answer. Call this when no other tool is needed.",
        "input_schema": schema,
    }


class _Block(Wire):
    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Json] | str | None = None

    @property
    def written(self) -> str:
        """The arguments as text; a streamed block holds what was written."""
        return self.input if isinstance(self.input, str) else json.dumps(self.input or {})


class _Usage(Wire):
    input_tokens: int | None = Field(default=0, ge=0)
    output_tokens: int | None = Field(default=0, ge=0)
    cache_read_input_tokens: int | None = Field(default=0, ge=0)
    cache_creation_input_tokens: int | None = Field(default=0, ge=0)

    @property
    def spent(self) -> Spent:
        """As tokens; cached ones are reported beside the input's, here they are a part of them."""
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        total = (self.input_tokens or 0) + read + written
        return Spent(total, self.output_tokens or 0, cache_read=read, cache_write=written)


class _Body(Wire):
    id: str | None = None
    model: str | None = None
    content: tuple[_Block, ...]
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Start(Wire):
    message: dict[str, Json]


class _BlockStart(Wire):
    index: int
    content_block: dict[str, Json]


class _Delta(Wire):
    type: str
    text: str = ""
    partial_json: str = ""
    thinking: str = ""


class _BlockDelta(Wire):
    index: int
    delta: _Delta


class _MessageDelta(Wire):
    delta: dict[str, Json] = {}
    usage: dict[str, Json] = {}
