"""The server's side of three model protocols: what it refuses, and how it words a reply, whole or streamed.

Pure. Written from the protocols, not from the clients: a client that sends what a provider would refuse is
refused here in the provider's words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = Any


@dataclass(frozen=True)
class Plan:
    """What the server does with one request. `tool_calls` are (name, arguments as text); `usage` is (input,
    output) tokens, None for a server that reports none; `fault` is one of `FAULTS`; `delay` in seconds."""

    text: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish: str | None = None
    usage: tuple[int, int] | None = (11, 7)
    cached: int = 0
    fault: str | None = None
    status: int = 200
    error: Json = None
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0


FAULTS = frozenset("slow drip garbage html wrong_shape status cut early_end huge stream_error stream_garbage".split())


class Refused(Exception):
    """The request is not what the protocol allows."""


def check_chat(body: Json, accepts: frozenset[str]) -> None:
    """A Chat Completions request."""
    _expect(isinstance(body.get("model"), str), "model: a string is required")
    _expect(isinstance(body.get("messages"), list) and body["messages"], "messages: at least one is required")
    open_calls: set[str] = set()
    for message in body["messages"]:
        _expect(message.get("role") in ("system", "user", "assistant", "tool"), "messages: unknown role")
        if message["role"] == "tool":
            _expect(message.get("tool_call_id") in open_calls, "messages: a tool message answers no call")
            open_calls.discard(message["tool_call_id"])
        else:
            _expect(not open_calls, "messages: tool calls were not answered")
        for call in message.get("tool_calls", []):
            _expect(isinstance(json.loads(call["function"]["arguments"]), dict), "tool_calls: bad arguments")
            open_calls.add(call["id"])
    for tool in body.get("tools", []):
        _expect(tool.get("type") == "function" and "parameters" in tool["function"], "tools: bad tool")
    form = body.get("response_format")
    if form is not None:
        _expect(form["type"] in accepts, f"response_format: {form['type']} is not supported")
        if form["type"] == "json_schema":
            _expect({"name", "schema"} <= form["json_schema"].keys(), "response_format: name and schema")


def check_responses(body: Json, accepts: frozenset[str]) -> None:
    """A Responses request."""
    _expect(isinstance(body.get("model"), str), "model: a string is required")
    _expect(isinstance(body.get("input"), list) and body["input"], "input: at least one item is required")
    calls: set[str] = set()
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "function_call":
            _expect(isinstance(item["arguments"], str), "input: arguments must be a string")
            calls.add(item["call_id"])
        elif kind == "function_call_output":
            _expect(item["call_id"] in calls, "input: an output answers no call")
        else:
            _expect(item.get("role") in ("system", "developer", "user", "assistant"), "input: unknown role")
    for tool in body.get("tools", []):
        _expect(tool.get("type") == "function" and isinstance(tool.get("name"), str), "tools: bad tool")
    form = body.get("text", {}).get("format")
    if form is not None:
        _expect(form["type"] in accepts, f"text.format: {form['type']} is not supported")


def check_anthropic(body: Json, accepts: frozenset[str]) -> None:
    """A Messages request."""
    _expect(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
    turns = body.get("messages")
    _expect(isinstance(turns, list) and turns, "messages: at least one message is required")
    _expect(turns[0]["role"] == "user", "messages: first message must use the user role")
    uses: set[str] = set()
    before = None
    for turn in turns:
        _expect(turn["role"] in ("user", "assistant") and turn["role"] != before, "messages: roles must alternate")
        before = turn["role"]
        results = {block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"}
        _expect(results == uses, "messages: tool_use ids without tool_result blocks")
        uses = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
        for block in turn["content"]:
            _expect(block["type"] != "text" or block["text"].strip(), "messages: text must not be empty")
    form = body.get("output_config", {}).get("format")
    if form is not None:
        _expect(form["type"] in accepts, "output_config: Extra inputs are not permitted")
        _expect(_closed(form["schema"]), "output_config.format.schema: additionalProperties must be false")


def chat_body(plan: Plan, model: str) -> Json:
    """A chat completion."""
    message: dict[str, Json] = {"role": "assistant", "content": plan.text or None}
    if plan.tool_calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(plan.tool_calls)
        ]
    finish = plan.finish or ("tool_calls" if plan.tool_calls else "stop")
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": model}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {**body, "choices": choices, **_chat_usage(plan)}


def chat_events(plan: Plan, model: str) -> Iterator[str]:
    """The same, streamed."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model}

    def chunk(delta: Json, finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(plan.text):
        yield chunk({"content": piece})
    for index, (name, arguments) in enumerate(plan.tool_calls):
        function = {"name": name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]})
        for piece in pieces(arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, plan.finish or ("tool_calls" if plan.tool_calls else "stop"))
    if plan.usage is not None:
        yield _data({**head, "choices": [], **_chat_usage(plan)})
    yield "data: [DONE]\n\n"


def responses_body(plan: Plan, model: str) -> Json:
    """A response."""
    output: list[Json] = [{"type": "reasoning", "id": "rs_1", "summary": []}]
    if plan.text:
        content = [{"type": "output_text", "text": plan.text, "annotations": []}]
        output.append({"type": "message", "id": "msg_1", "role": "assistant", "content": content})
    output += [
        {
            "type": "function_call",
            "id": f"fc_{i}",
            "call_id": f"call_{i}",
            "name": name,
            "arguments": arguments,
        }
        for i, (name, arguments) in enumerate(plan.tool_calls)
    ]
    body = {"id": "resp_1", "object": "response", "model": model, "status": "completed", "output": output}
    if plan.finish == "length":
        body |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    if plan.usage is not None:
        details = {"cached_tokens": plan.cached}
        body["usage"] = {
            "input_tokens": plan.usage[0],
            "output_tokens": plan.usage[1],
            "input_tokens_details": details,
        }
    return body


def responses_events(plan: Plan, model: str) -> Iterator[str]:
    """The same, streamed."""
    body = responses_body(plan, model)
    yield _named("response.created", {"response": {**body, "status": "in_progress", "output": []}})
    for piece in pieces(plan.text):
        yield _named("response.output_text.delta", {"item_id": "msg_1", "delta": piece})
    for index, (_, arguments) in enumerate(plan.tool_calls):
        for piece in pieces(arguments):
            yield _named("response.function_call_arguments.delta", {"item_id": f"fc_{index}", "delta": piece})
    last = "response.incomplete" if plan.finish == "length" else "response.completed"
    yield _named(last, {"response": body})


def anthropic_body(plan: Plan, model: str) -> Json:
    """A message."""
    content: list[Json] = [{"type": "text", "text": plan.text}] if plan.text else []
    content += [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": _object(arguments)}
        for i, (name, arguments) in enumerate(plan.tool_calls)
    ]
    stop = {"length": "max_tokens"}.get(plan.finish or "", "tool_use" if plan.tool_calls else "end_turn")
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content}
    body |= {"stop_reason": stop, "stop_sequence": None}
    if plan.usage is not None:
        fresh = plan.usage[0] - plan.cached
        body["usage"] = {
            "input_tokens": fresh,
            "cache_read_input_tokens": plan.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": plan.usage[1],
        }
    return body


def anthropic_events(plan: Plan, model: str) -> Iterator[str]:
    """The same, streamed."""
    body = anthropic_body(plan, model)
    usage = body.pop("usage", {})
    start = {
        **body,
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": 1} if usage else {},
    }
    yield _named("message_start", {"message": start})
    yield _named("ping", {})
    written = [arguments for _, arguments in plan.tool_calls]
    for index, block in enumerate(body["content"]):
        tool = block["type"] == "tool_use"
        begun = {**block, "input": {}} if tool else {**block, "text": ""}
        yield _named("content_block_start", {"index": index, "content_block": begun})
        for piece in pieces(written.pop(0) if tool else block["text"]):
            kind = {"type": "input_json_delta", "partial_json": piece} if tool else None
            delta = kind or {"type": "text_delta", "text": piece}
            yield _named("content_block_delta", {"index": index, "delta": delta})
        yield _named("content_block_stop", {"index": index})
    output = {"output_tokens": usage["output_tokens"]} if usage else {}
    yield _named("message_delta", {"delta": {"stop_reason": body["stop_reason"]}, "usage": output})
    yield _named("message_stop", {})


def pieces(text: str, size: int = 5) -> Iterator[str]:
    """A text in small pieces."""
    return (text[i : i + size] for i in range(0, len(text), size))


def _chat_usage(plan: Plan) -> dict[str, Json]:
    if plan.usage is None:
        return {}
    taken, made = plan.usage
    usage = {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}
    return {"usage": {**usage, "prompt_tokens_details": {"cached_tokens": plan.cached}}}


def _object(arguments: str) -> Json:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _closed(schema: Json) -> bool:
    if isinstance(schema, list):
        return all(map(_closed, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema and schema.get("additionalProperties") is not False:
        return False
    return all(map(_closed, schema.values()))


def _data(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _named(kind: str, value: Json) -> str:
    return f"event: {kind}\n{_data({'type': kind, **value})}"


def _expect(holds: object, problem: str) -> None:
    if not holds:
        raise Refused(problem)
