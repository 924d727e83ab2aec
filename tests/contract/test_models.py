"""What every model client promises, shown on a real loopback endpoint and on the two that need none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.model_calls import KINDS, SCHEMA, SEARCH, asking, both_ways, call, every_kind, name_of, serving
from tests.doubles.model_server import ModelServer, Received
from tests.doubles.model_wire import Plan

from retinue.inference.catalog import models_from
from retinue.runs.errors import PermanentModelError, UnknownName
from retinue.runs.messages import Message, ToolCall

# --- what comes back -------------------------------------------------------------------------------------


@every_kind
async def test_a_reply_carries_text_usage_names_and_its_raw_body(kind: str) -> None:
    reply = await call(kind, Plan(text="It is a hat – „ü“."))
    assert reply.text == "It is a hat – „ü“."
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (11, 7)
    assert reply.finish_reason == "stop"
    assert reply.provider == {"chat": "openai-compatible", "responses": "openai", "anthropic": "anthropic"}[kind]
    assert reply.response_id
    assert reply.raw["id"] == reply.response_id
    assert reply.latency_ms > 0
    assert reply.first_token_ms is None


@every_kind
async def test_a_stream_gives_the_same_reply_in_pieces(kind: str) -> None:
    plan, seen = Plan(text="Zwölf Boxkämpfer jagen Viktor 🎩."), list[str]()
    async with serving([plan]) as (server, models):
        streamed = await models.complete(asking(name_of(kind, server.url)), seen.append)
        whole = await models.complete(asking(name_of(kind, server.url)))
    assert "".join(seen) == whole.text == streamed.text
    assert len(seen) > 3
    assert streamed.usage == whole.usage
    assert streamed.finish_reason == whole.finish_reason
    assert streamed.first_token_ms is not None
    assert 0 < streamed.first_token_ms <= streamed.latency_ms


@both_ways
@every_kind
async def test_tool_calls_are_typed_and_bad_arguments_are_kept_raw(kind: str, streamed: bool) -> None:
    written: tuple[tuple[str, str], ...] = (
        ("search", '{"query": "hat"}'),
        ("search", ""),
        ("search", '{"query": '),
        ("search", "[1]"),
    )
    if kind == "anthropic" and not streamed:  # the provider itself parses arguments when it does not stream
        written = written[:2]
    reply = await call(kind, Plan(text="Let me look.", tool_calls=written), streamed, tools=(SEARCH,))
    assert reply.finish_reason == "tool_calls"
    assert [called.name for called in reply.tool_calls] == ["search"] * len(written)
    assert len({called.id for called in reply.tool_calls}) == len(written)
    assert [called.arguments for called in reply.tool_calls] == [{"query": "hat"}, {}, None, None][: len(written)]
    if len(written) == 4:
        assert reply.tool_calls[2].raw == '{"query": '


@every_kind
async def test_a_conversation_with_tool_results_is_one_that_the_provider_accepts(kind: str) -> None:
    good = ToolCall(id="c1", name="search", arguments={"query": "hat"}, raw='{"query": "hat"}')
    bad = ToolCall(id="c2", name="search", arguments=None, raw='{"query": ')
    messages = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="What is it?"),
        Message(role="assistant", content="Looking.", tool_calls=(good, bad)),
        Message(role="tool", content="[]", tool_call_id="c1", name="search"),
        Message(role="tool", content="not JSON", tool_call_id="c2", name="search"),
        Message(role="user", content="Go on."),
    )
    async with serving([Plan(text="A hat.")]) as (server, models):
        request = asking(name_of(kind, server.url), messages=messages, tools=(SEARCH,))
        assert (await models.complete(request)).text == "A hat."
        sent = json.dumps(server.requests[0].body)
    assert "invalid_json" in sent
    assert "Looking." in sent


@both_ways
@every_kind
async def test_a_server_that_never_calls_tools_answers_in_text(kind: str, streamed: bool) -> None:
    reply = await call(kind, Plan(text="I just talk."), streamed, tools=(SEARCH,))
    assert (reply.text, reply.tool_calls, reply.finish_reason) == ("I just talk.", (), "stop")


@both_ways
@every_kind
async def test_a_reply_cut_at_its_token_limit_says_so(kind: str, streamed: bool) -> None:
    reply = await call(kind, Plan(text="It is a", finish="length"), streamed)
    assert (reply.text, reply.finish_reason) == ("It is a", "length")


@both_ways
@every_kind
async def test_usage_that_is_not_reported_is_estimated(kind: str, streamed: bool) -> None:
    reply = await call(kind, Plan(text="x" * 400, usage=None), streamed)
    assert reply.usage.output_tokens == 100
    assert reply.usage.input_tokens > 5


@every_kind
async def test_parameters_limit_and_traceparent_are_sent(kind: str) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving([Plan(text="ok")]) as (server, models):
        fields: dict[str, Any] = {"parameters": {"temperature": 0.5}, "max_tokens": 77, "traceparent": parent}
        await models.complete(asking(name_of(kind, server.url), **fields))
        received = server.requests[0]
    limit = {"chat": "max_tokens", "responses": "max_output_tokens", "anthropic": "max_tokens"}[kind]
    assert received.headers["traceparent"] == parent
    assert received.body["temperature"] == 0.5
    assert received.body[limit] == 77


@every_kind
async def test_parameters_that_the_runtime_sets_itself_are_refused(kind: str) -> None:
    for parameter in ("stream", "model", "tools"):
        with pytest.raises(PermanentModelError, match=parameter) as caught:
            await call(kind, Plan(text="ok"), parameters={parameter: True})
        assert caught.value.code == "bad_parameters"


async def test_connections_are_reused_after_whole_replies_and_streams() -> None:
    async with serving([Plan(text="ok")]) as (server, models):
        for kind in KINDS:
            await models.complete(asking(name_of(kind, server.url)))
            await models.complete(asking(name_of(kind, server.url)), lambda piece: None)
        assert len(server.requests) == 6
        assert server.connections == 1


def test_each_event_loop_gets_its_own_connections(tmp_path: Path) -> None:
    models = models_from(environ={})

    async def once() -> str:
        async with ModelServer([Plan(text="ok")]) as server:
            reply = await models.complete(asking(f"{server.url}/v1#m"))
            await models.close()
            return reply.text

    assert [asyncio.run(once()), asyncio.run(once())] == ["ok", "ok"]


# --- structured output -----------------------------------------------------------------------------------


@both_ways
@every_kind
async def test_structured_output_is_asked_for_natively(kind: str, streamed: bool) -> None:
    async with serving([Plan(text='{"answer": "a hat"}')]) as (server, models):
        request = asking(name_of(kind, server.url), output_schema=SCHEMA)
        reply = await models.complete(request, (lambda piece: None) if streamed else None)
        assert len(server.requests) == 1
    assert json.loads(reply.text) == {"answer": "a hat"}


@both_ways
@pytest.mark.parametrize("status", [400, 422, 500])
@every_kind
async def test_an_endpoint_without_json_schema_gets_the_fallback_and_is_remembered(
    kind: str, status: int, streamed: bool
) -> None:
    def decide(received: Received) -> Plan:
        if kind == "anthropic":
            assert received.body["tools"][-1]["name"] == "answer"
            return Plan(tool_calls=(("answer", '{"answer": "a hat"}'),))
        return Plan(text='{"answer": "a hat"}')

    async with serving(decide, accepts=frozenset({"json_object"}), refusal=status) as (server, models):
        request, seen = asking(name_of(kind, server.url), output_schema=SCHEMA), list[str]()
        first = await models.complete(request, seen.append if streamed else None)
        second = await models.complete(request)
        assert len(server.requests) == 3
        last = server.requests[-1].body
    assert json.loads(first.text) == json.loads(second.text) == {"answer": "a hat"}
    assert (first.finish_reason, first.tool_calls) == ("stop", ())
    assert "".join(seen) == (first.text if streamed else "")
    if kind == "chat":
        assert last["response_format"] == {"type": "json_object", "schema": SCHEMA}
    assert "minLength" in json.dumps(last)


@every_kind
async def test_the_negotiation_ends_after_one_step(kind: str) -> None:
    refused = Plan(fault="status", status=400, error={"error": {"message": "response_format is unknown"}})
    async with serving([refused]) as (server, models):
        with pytest.raises(PermanentModelError, match="response_format is unknown"):
            await models.complete(asking(name_of(kind, server.url), output_schema=SCHEMA))
        assert len(server.requests) == 2


@every_kind
async def test_a_refusal_for_another_reason_is_no_negotiation(kind: str) -> None:
    error = {"error": {"message": "too long", "code": "context_length_exceeded", "type": "invalid_request_error"}}
    async with serving([Plan(fault="status", status=400, error=error)]) as (server, models):
        with pytest.raises(PermanentModelError) as caught:
            await models.complete(asking(name_of(kind, server.url), output_schema=SCHEMA))
        assert (caught.value.code, len(server.requests)) == ("context_too_long", 1)


# --- profiles and prices ---------------------------------------------------------------------------------


async def test_prices_are_known_free_or_unknown_and_the_profile_bounds_the_call() -> None:
    async with serving([Plan(text="ok", usage=(1000, 100))]) as (server, models):
        for kind, micros in (("chat", 0), ("responses", 1000 * 1.25 + 100 * 10), ("anthropic", 3000 + 1500)):
            request = asking(name_of(kind, server.url), "x" * 4000, max_tokens=100)
            profile, reply = models.profile(request), await models.complete(request)
            assert reply.usage.micros == micros
            assert reply.priced
            assert profile.max_micros is not None
            assert profile.max_micros >= reply.usage.micros
            assert profile.free is (kind == "chat")
        unknown = asking("openai:never-heard-of")
        assert models.profile(unknown).max_micros is None
        assert not (await models.complete(unknown)).priced


@both_ways
@pytest.mark.parametrize("kind", ["responses", "anthropic"])
async def test_cached_tokens_cost_less(kind: str, streamed: bool) -> None:
    full = await call(kind, Plan(text="ok", usage=(1000, 10)), streamed)
    cached = await call(kind, Plan(text="ok", usage=(1000, 10), cached=800), streamed)
    assert cached.usage.input_tokens == full.usage.input_tokens == 1000
    assert cached.usage.micros < full.usage.micros


async def test_a_configured_price_wins_and_makes_a_local_model_cost() -> None:
    async with ModelServer([Plan(text="ok", usage=(1000, 100))]) as server:
        name = f"{server.url}/v1#m"
        models = models_from(environ={}, prices={name: ("0.5", "2")})
        reply = await models.complete(asking(name))
        assert (reply.usage.micros, models.profile(asking(name)).free) == (700, False)
        await models.close()


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("builtin:extractiv", "did you mean builtin:extractive"),
        ("opnai:gpt-5", "did you mean openai:NAME"),
        ("openai/gpt-5", "did you mean openai:NAME"),
        ("openai:", "openai:NAME"),
        ("gpt-5", "scripted:FILE.jsonl"),
        ("http://127.0.0.1:1/v1", "http://host"),
        ("http://#m", "http://host"),
        ("http://host:99999999/v1#m", "http://host"),
        ("", "builtin:extractive"),
    ],
)
async def test_an_unknown_name_lists_the_forms(name: str, hint: str) -> None:
    models = models_from(environ={})
    with pytest.raises(UnknownName, match=hint):
        models.check(name)
    with pytest.raises(UnknownName):
        models.profile(asking(name))


async def test_models_without_endpoint_keep_the_same_contract(tmp_path: Path) -> None:
    line = {"match": {}, "decisions": [{"answer": "A hat."}]}
    (tmp_path / "s.jsonl").write_text(json.dumps(line))
    models = models_from(root=tmp_path, environ={})
    for name in ("builtin:extractive", "scripted:s.jsonl"):
        models.check(name)
        seen: list[str] = []
        request = asking(name, '{"question": "What is it?", "notes": [{"id": "d1", "text": "It is a hat."}]}')
        profile, reply = models.profile(request), await models.complete(request, seen.append)
        assert profile.free
        assert profile.max_micros == reply.usage.micros == 0
        assert reply.provider == profile.provider == "retinue"
        assert "".join(seen) == reply.text
        assert "hat" in reply.text
        assert reply.usage.input_tokens > 0
        assert reply.usage.output_tokens > 0
        assert json.dumps(reply.raw)
        assert models.find(name) is models.find(name)
    await models.close()
    await models.close()
