"""The server's side of Chat Completions says what the client's side understands, and refuses by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retinue.inference.openai_chat import ChatDialect
from retinue.inference.openai_serving import NotSupported, completion, events, read_request
from retinue.inference.sse import Event
from retinue.runs.contracts import Usage
from retinue.runs.messages import Message, ModelReply, ModelRequest, ToolCall, ToolSpec

pytestmark = pytest.mark.promise("K4")

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
CALL = ToolCall(id="c1", name="add", arguments={"n": 1}, raw='{"n": 1}')
CONVERSATION = ModelRequest(
    model="openai:m",
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="user", content="One more?"),
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", content="2", tool_call_id="c1"),
    ),
    tools=(ToolSpec(name="add", description="Adds one.", input_schema=SCHEMA),),
    output_schema=SCHEMA,
    output_name="sum",
    parameters={"temperature": 0, "seed": 7},
    max_tokens=99,
)
REPLIES = {
    "text": ModelReply(text="two ünd\n", usage=Usage(input_tokens=3, output_tokens=2), model="m"),
    "calls": ModelReply(tool_calls=(CALL, CALL.model_copy(update={"id": "c2"})), finish_reason="tool_calls", model="m"),
    "both": ModelReply(text="I add.", tool_calls=(CALL,), finish_reason="tool_calls", model="m"),
    "nothing": ModelReply(model="m"),
    "cut": ModelReply(text="tw", finish_reason="length", model="m"),
}


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "why?"}], **more}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_what_the_client_writes_is_what_the_server_reads(limit: str) -> None:
    payload = ChatDialect(limit).payload(CONVERSATION, "openai:m", native=True)
    assert read_request(json.loads(json.dumps(payload))).request == CONVERSATION


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_server_writes_is_what_the_client_reads(name: str, streamed: bool) -> None:
    reply, dialect = REPLIES[name], ChatDialect()
    body: Any = completion(reply, "chatcmpl-1", 1_700_000_000)
    if streamed:
        fold = dialect.fold(CONVERSATION, native=True)
        said = "".join(
            fold.feed(Event("message", line.decode().removeprefix("data: ").strip())) for line in events(body, True)
        )
        assert said == reply.text and fold.done
        body = fold.body()
    draft = dialect.read(body, CONVERSATION, native=True)
    assert (draft.text, draft.tool_calls, draft.finish_reason) == (reply.text, reply.tool_calls, reply.finish_reason)
    assert draft.spent is not None
    assert (draft.spent.input_tokens, draft.spent.output_tokens) == (
        reply.usage.input_tokens,
        reply.usage.output_tokens,
    )
    assert (draft.model, draft.response_id) == ("m", "chatcmpl-1")


def test_usage_is_streamed_only_when_it_is_wanted() -> None:
    body = completion(REPLIES["text"], "chatcmpl-1", 0)
    counts = [b"".join(events(body, wanted)).count(b"total_tokens") for wanted in (False, True)]
    assert counts == [0, 1]


def test_other_forms_of_the_same_request_are_read() -> None:
    parts = [{"type": "text", "text": "why"}, {"type": "text", "text": "?"}]
    asked = read_request(
        ask(
            messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}],
            tools=[{"type": "function", "function": {"name": "add"}}],
            tool_choice="required",
            response_format={"type": "json_object"},
            stream=True,
            stream_options={"include_usage": True},
            n=1,
            logprobs=False,
            user="ana",
            store=None,
        )
    )
    request = asked.request
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "why?"),
    ]
    assert request.parameters == {"tool_choice": "required"} and request.output_schema == {"type": "object"}
    assert request.tools[0].input_schema == {"type": "object", "properties": {}} and request.max_tokens == 4096
    assert asked.stream and asked.usage


def test_no_tool_is_shown_when_none_may_be_called() -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert read_request(ask(tools=tools, tool_choice="none")).request.tools == ()
    assert read_request(ask(tools=tools, tool_choice="auto")).request.parameters == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({"messages": []}, "model"),
        (ask(messages=[]), "messages"),
        (ask(messages=[{"role": "bard", "content": "x"}]), "messages.0.role"),
        (ask(messages=[{"role": "tool", "content": "x"}]), "messages.0.tool_call_id"),
        (ask(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages.0.content.0.type"),
        (ask(tools=[{"type": "web_search"}]), "tools.0.type"),
        (ask(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (ask(n=2), "n"),
        (ask(logprobs=True), "logprobs"),
        (ask(functions=[{"name": "add"}]), "functions"),
        (ask(max_tokens=0), "max_tokens"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(body: Any, field: str) -> None:
    with pytest.raises(NotSupported) as refused:
        read_request(body)
    assert refused.value.field == field and str(refused.value).startswith(f"{field}: ")
