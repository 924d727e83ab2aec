"""The Chat Completions protocol of OpenAI and of the many servers that speak it.

Translates only. Structured output is asked for with `response_format: json_schema`; the fallback for
servers that refuse it is `json_object` with the schema beside it and in the first system message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field

from retinue.inference.dialect import (
    Draft,
    FinishReason,
    Wire,
    merge_parameters,
    parse_event,
    parse_wire,
    read_call,
    told_arguments,
)
from retinue.inference.prices import Spent
from retinue.inference.schemas import is_strict, schema_prompt
from retinue.inference.sse import Event
from retinue.runs.contracts import Json
from retinue.runs.messages import Message, ModelRequest, ToolCall, ToolSpec

_RESERVED = frozenset(
    """function_call functions max_completion_tokens max_tokens messages model n response_format stream
    stream_options tools""".split()
)
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "content_filter": "content_filter",
}


class ChatDialect:
    """Chat Completions. `limit_name` is how the endpoint calls the cap of produced tokens: OpenAI's own
    wants `max_completion_tokens`, most compatible servers know only `max_tokens`."""

    path = "/chat/completions"
    stream_fields: Mapping[str, Json] = MappingProxyType({"stream": True, "stream_options": {"include_usage": True}})
    markers: tuple[bytes, ...] = (b"response_format", b"json_schema")

    def __init__(self, limit_name: str = "max_tokens") -> None:
        self._limit_name = limit_name

    def headers(self, key: str | None) -> dict[str, str]:
        """The bearer token, when there is a key."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def payload(self, request: ModelRequest, model: str, native: bool) -> dict[str, Json]:
        """The body of POST /chat/completions, without `stream`."""
        payload: dict[str, Json] = {
            "model": model,
            "messages": [_message(message) for message in request.messages],
            self._limit_name: request.max_tokens,
        }
        if request.tools:
            payload["tools"] = [_tool(tool) for tool in request.tools]
        if request.output_schema is not None:
            payload["response_format"] = _format(request, request.output_schema, native)
            if not native:
                payload["messages"] = _instructed(payload["messages"], schema_prompt(request.output_schema))
        return merge_parameters(payload, request.parameters, _RESERVED)

    def fold(self, request: ModelRequest, native: bool) -> ChatFold:
        """A fold for one stream."""
        return ChatFold()

    def read(self, body: Json, request: ModelRequest, native: bool) -> Draft:
        """The first choice of a chat completion."""
        wire = parse_wire(_Body, body)
        choice = wire.choices[0]
        calls = tuple(
            read_call(call.id, call.function.name or "", call.function.text, index)
            for index, call in enumerate(choice.message.tool_calls or ())
        )
        finish = _FINISH.get(choice.finish_reason or "stop", "other")
        if calls and finish == "stop":
            finish = "tool_calls"
        if choice.message.refusal:
            finish = "content_filter"
        return Draft(
            text=choice.message.content or choice.message.refusal or "",
            tool_calls=calls,
            finish_reason=finish,
            spent=wire.usage.spent if wire.usage else None,
            model=wire.model,
            response_id=wire.id,
        )


class ChatFold:
    """Joins chunks of a streamed chat completion."""

    def __init__(self) -> None:
        self.done = False
        self._ids: dict[str, Json] = {"id": None, "model": None}
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: str | None = None
        self._usage: Json = None

    def feed(self, event: Event) -> str:
        """Take a chunk; the text of its first choice."""
        if event.data.strip() == "[DONE]":
            self.done = True
            return ""
        chunk = parse_event(_Chunk, event)
        self._ids = {"id": self._ids["id"] or chunk.id, "model": self._ids["model"] or chunk.model}
        if chunk.usage is not None:
            self._usage = chunk.usage.model_dump(exclude_none=True)
        piece = ""
        for choice in chunk.choices:
            if choice.index == 0:
                piece += self._take(choice)
        return piece

    def _take(self, choice: _ChunkChoice) -> str:
        delta = choice.delta
        for position, call in enumerate(delta.tool_calls or ()):
            self._join(call, position)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        if delta.content:
            self._text.append(delta.content)
        self._finish = choice.finish_reason or self._finish
        return delta.content or ""

    def _join(self, call: _CallWire, position: int) -> None:
        index = position if call.index is None else call.index
        whole = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        whole["id"] = whole["id"] or call.id or ""
        whole["name"] = whole["name"] or call.function.name or ""
        whole["arguments"] += call.function.text

    def body(self) -> Json | None:
        """A chat completion, or None when neither a finish reason nor [DONE] came."""
        if self._finish is None and not self.done:
            return None
        message: dict[str, Json] = {"role": "assistant", "content": "".join(self._text) or None}
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for _, call in sorted(self._calls.items())
            ]
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        return {**self._ids, "object": "chat.completion", "choices": [choice], "usage": self._usage}


def _message(message: Message) -> dict[str, Json]:
    told: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        told["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        told["tool_calls"] = [_call(call) for call in message.tool_calls]
        told["content"] = message.content or None
    return told


def _call(call: ToolCall) -> dict[str, Json]:
    function = {"name": call.name, "arguments": json.dumps(told_arguments(call))}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: ToolSpec) -> dict[str, Json]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _format(request: ModelRequest, schema: dict[str, Json], native: bool) -> dict[str, Json]:
    if not native:
        return {"type": "json_object", "schema": schema}
    named = {"name": request.output_name, "schema": schema, "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": named}


def _instructed(messages: list[dict[str, Json]], instruction: str) -> list[dict[str, Json]]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{instruction}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]


class _Function(Wire):
    name: str | None = None
    arguments: str | dict[str, Json] | None = None

    @property
    def text(self) -> str:
        """The arguments as text; some servers send the object itself."""
        return json.dumps(self.arguments) if isinstance(self.arguments, dict) else self.arguments or ""


class _CallWire(Wire):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _MessageWire(Wire):
    content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[_CallWire, ...] | None = None


class _Choice(Wire):
    message: _MessageWire
    finish_reason: str | None = None


class _ChunkChoice(Wire):
    index: int = 0
    delta: _MessageWire = _MessageWire()
    finish_reason: str | None = None


class _Details(Wire):
    cached_tokens: int | None = Field(default=None, ge=0)


class _Usage(Wire):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: _Details | None = None

    @property
    def spent(self) -> Spent:
        """As tokens; cached ones are a part of the prompt's."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Spent(self.prompt_tokens, self.completion_tokens, cache_read=cached or 0)


class _Body(Wire):
    id: str | None = None
    model: str | None = None
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage | None = None


class _Chunk(Wire):
    id: str | None = None
    model: str | None = None
    choices: tuple[_ChunkChoice, ...] = ()
    usage: _Usage | None = None
