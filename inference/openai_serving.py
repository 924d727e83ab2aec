"""The Chat Completions protocol of OpenAI from the server's side: requests to read, replies to write.

Translates only. What is not supported is refused by name, never ignored, unless it changes nothing in the answer.
Knows no HTTP, no token and no run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from retinue.inference.dialect import Wire, read_call
from retinue.runs.contracts import Json
from retinue.runs.messages import Message, ModelReply, ModelRequest, ToolCall, ToolSpec

MAX_TOKENS = 4096
"""Cap of produced tokens for a request that names none."""

_READ = frozenset(
    "max_completion_tokens max_tokens messages model n response_format stream stream_options tool_choice tools".split()
)
_PASSED = frozenset(
    """frequency_penalty logit_bias parallel_tool_calls presence_penalty reasoning_effort seed stop temperature top_p
    verbosity""".split()
)
_WITHOUT_EFFECT = frozenset(
    "metadata prompt_cache_key prompt_cache_retention safety_identifier service_tier store user".split()
)


class NotSupported(Exception):
    """A request that cannot be served; `field` is the place in the body."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as read. `stream` wants events, `usage` a last one with the usage in it."""

    request: ModelRequest
    stream: bool
    usage: bool


def read_request(body: Json) -> Asked:
    """The body of POST /chat/completions. NotSupported names the field and what to do."""
    if not isinstance(body, dict):
        raise NotSupported("body", "it must be a JSON object")
    wire = _parse(body)
    _refuse_unknown(body, wire)
    parameters = {name: body[name] for name in sorted(_PASSED) if body.get(name) is not None}
    tools = tuple(_tool(place, tool) for place, tool in enumerate(wire.tools or ()))
    if wire.tool_choice == "none":
        tools = ()
    elif wire.tool_choice not in (None, "auto"):
        parameters["tool_choice"] = wire.tool_choice
    schema, name = _schema(wire.response_format)
    request = ModelRequest(
        model=wire.model,
        messages=tuple(_message(place, message) for place, message in enumerate(wire.messages)),
        tools=tools,
        output_schema=schema,
        output_name=name,
        parameters=parameters,
        max_tokens=wire.max_completion_tokens or wire.max_tokens or MAX_TOKENS,
    )
    return Asked(request, bool(wire.stream), bool((wire.stream_options or _StreamOptions()).include_usage))


def completion(reply: ModelReply, reply_id: str, created: int) -> dict[str, Json]:
    """The body of a reply; `created` in Unix seconds."""
    message: dict[str, Json] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = [_told(call) for call in reply.tool_calls]
    elif not reply.text:
        message["content"] = ""
    finish = "stop" if reply.finish_reason == "other" else reply.finish_reason
    usage = reply.usage
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": created,
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.tokens,
        },
    }


def events(body: dict[str, Json], usage: bool) -> Iterator[bytes]:
    """A completion as the server-sent events of a stream: role, text, calls, finish, usage if wanted, [DONE]."""
    [choice] = body["choices"]
    message = choice["message"]
    yield _event(body, {"role": "assistant", "content": ""})
    if message["content"]:
        yield _event(body, {"content": message["content"]})
    for place, call in enumerate(message.get("tool_calls", ())):
        yield _event(body, {"tool_calls": [{"index": place, **call}]})
    yield _event(body, {}, choice["finish_reason"])
    if usage:
        yield _line({**_head(body), "choices": [], "usage": body["usage"]})
    yield b"data: [DONE]\n\n"


def models(names: list[str]) -> dict[str, Json]:
    """The body of GET /models."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "retinue"} for name in names],
    }


def failure(kind: str, code: str, message: str, field: str | None = None) -> dict[str, Json]:
    """An error's body; `kind` is OpenAI's word for the family, `code` says which one it is."""
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def _parse(body: dict[str, Json]) -> _Request:
    try:
        return _Request.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise NotSupported(place, f"{first['msg']} (got {str(first['input'])[:80]!r})") from None


def _refuse_unknown(body: dict[str, Json], wire: _Request) -> None:
    for name in sorted(body.keys() - _READ - _PASSED - _WITHOUT_EFFECT):
        if body[name] not in (None, False):
            raise NotSupported(name, "this endpoint does not know it; leave it out")
    if wire.n not in (None, 1):
        raise NotSupported("n", f"one reply a request, not {wire.n}; ask again for another")
    if not wire.messages:
        raise NotSupported("messages", "there must be at least one")


def _message(place: int, wire: _Message) -> Message:
    where = f"messages.{place}"
    if wire.role == "tool" and not wire.tool_call_id:
        raise NotSupported(f"{where}.tool_call_id", "a tool message answers a call: name it")
    calls = tuple(
        read_call(call.id, call.function.name, call.function.arguments, index)
        for index, call in enumerate(wire.tool_calls or ())
    )
    return Message(
        role="system" if wire.role == "developer" else wire.role,
        content=_text(f"{where}.content", wire.content) or wire.refusal or "",
        tool_calls=calls,
        tool_call_id=wire.tool_call_id,
        name=wire.name,
    )


def _text(where: str, content: str | tuple[_Part, ...] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for place, part in enumerate(content):
        if part.type not in ("text", "refusal"):
            raise NotSupported(f"{where}.{place}.type", f"only text is supported, not {part.type!r}")
    return "".join(part.text or part.refusal or "" for part in content)


def _tool(place: int, wire: _Tool) -> ToolSpec:
    if wire.type != "function" or wire.function is None:
        raise NotSupported(f"tools.{place}.type", f"only functions are supported, not {wire.type!r}")
    schema = wire.function.parameters or {"type": "object", "properties": {}}
    return ToolSpec(name=wire.function.name, description=wire.function.description or "", input_schema=schema)


def _schema(wanted: _Format | None) -> tuple[dict[str, Json] | None, str]:
    if wanted is None or wanted.type == "text":
        return None, "answer"
    if wanted.type == "json_object":
        return {"type": "object"}, "answer"
    if wanted.json_schema is None:
        raise NotSupported("response_format.json_schema", "json_schema needs one")
    return wanted.json_schema.schema_ or {}, wanted.json_schema.name


def _told(call: ToolCall) -> dict[str, Json]:
    arguments = call.raw if call.arguments is None else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _event(body: dict[str, Json], delta: dict[str, Json], finish: str | None = None) -> bytes:
    return _line({**_head(body), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _head(body: dict[str, Json]) -> dict[str, Json]:
    return {**{name: body[name] for name in ("id", "created", "model")}, "object": "chat.completion.chunk"}


def _line(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class _Part(Wire):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Function(Wire):
    name: str
    arguments: str = ""


class _Call(Wire):
    id: str
    type: Literal["function"] = "function"
    function: _Function


class _Message(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    refusal: str | None = None
    tool_calls: tuple[_Call, ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _Signature(Wire):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Json] | None = None


class _Tool(Wire):
    type: str
    function: _Signature | None = None


class _Named(Wire):
    name: str
    schema_: dict[str, Json] | None = Field(default=None, alias="schema")


class _Format(Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Named | None = None


class _StreamOptions(Wire):
    include_usage: bool | None = None


class _Request(Wire):
    model: str = Field(min_length=1)
    messages: tuple[_Message, ...]
    tools: tuple[_Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Json] | None = None
    response_format: _Format | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
