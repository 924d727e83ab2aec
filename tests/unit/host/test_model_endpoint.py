"""The model endpoint: whose token it is, what a reply looks like to a client, and what an error does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from tests.doubles.shapes import new_run

from retinue.host.model_endpoint import ModelEndpoint
from retinue.runs.contracts import ErrorInfo, Json, RunRequest, Usage
from retinue.runs.doors import Access, DoorsClosed
from retinue.runs.errors import BudgetExhausted, ConfigError, TransientError, UnknownName
from retinue.runs.journal import Outcome
from retinue.runs.messages import ModelRequest, ToolSpec

pytestmark = pytest.mark.promise("K4")

FACTS = {"finish_reason": "stop", "model": "m-1", "provider": "retinue"}


class Desk:
    """A keeper that says its name, or what it was told to."""

    def __init__(self, name: str, ends: Outcome | Exception | None = None) -> None:
        self.request: RunRequest = new_run(name).request
        self.model = "scripted:m"
        self.name = name
        self.ends = ends
        self.asked: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> Outcome:
        self.asked.append(request)
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends or said(self.name)

    async def call(self, tool: str, arguments: dict[str, Json]) -> Outcome:
        raise NotImplementedError

    async def step(self, function: Any, arguments: list[Json], repeatable: bool) -> Outcome:
        raise NotImplementedError

    def tools(self) -> tuple[ToolSpec, ...]:
        return ()


def said(text: str, **more: Any) -> Outcome:
    content = {"text": text, "tool_calls": [], "raw": None}
    given: dict[str, Any] = {"result": "ok", "facts": FACTS, "content": content, "usage": Usage(input_tokens=3)}
    return Outcome(at=5_000_000_000, key="0/f#0!model/ab#0", effect="model", name="m", activation=0, **given | more)


def failed(result: str, code: str, **more: Any) -> Outcome:
    return said("", result=result, error=ErrorInfo(reason="x", code=code, message="because", **more), content=None)


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    made = ModelEndpoint()
    yield made
    await made.close()


async def post(access: Access, path: str = "/chat/completions", **how: Any) -> httpx.Response:
    body = {"model": "scripted:m", "messages": [{"role": "user", "content": "why?"}]}
    headers = {"authorization": f"Bearer {access.api_key}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{access.base_url}{path}", **{"json": body, "headers": headers, **how})


def client_of(access: Access) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=access.base_url, api_key=access.api_key, max_retries=2)


async def test_two_functions_at_once_have_tokens_of_their_own(endpoint: ModelEndpoint) -> None:
    left, right = Desk("left"), Desk("right")
    async with endpoint.open(left) as one, endpoint.open(right) as two:
        assert one.base_url == two.base_url and one.api_key != two.api_key and one.api_key not in repr(one)
        replies = await asyncio.gather(post(one), post(two), post(one))
    assert [reply.json()["choices"][0]["message"]["content"] for reply in replies] == ["left", "right", "left"]
    assert (len(left.asked), len(right.asked)) == (2, 1)


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"authorization": "Bearer \xfc"}]
)
async def test_a_stranger_is_told_so_and_reaches_nobody(endpoint: ModelEndpoint, headers: dict[str, str]) -> None:
    desk = Desk("left")
    async with endpoint.open(desk) as access:
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        refused = await post(access, headers=sent)
        async with httpx.AsyncClient(trust_env=False) as client:
            listed = await client.get(f"{access.base_url}/models", headers=sent)
    assert (refused.status_code, listed.status_code, desk.asked) == (401, 401, [])
    error = refused.json()["error"]
    assert error["code"] == "invalid_api_key" and set(error) == {"message", "type", "param", "code"}


async def test_a_token_is_worth_nothing_when_its_function_has_ended(endpoint: ModelEndpoint) -> None:
    async with endpoint.open(Desk("other")):
        async with endpoint.open(Desk("gone")) as access:
            assert (await post(access)).status_code == 200
        assert (await post(access)).status_code == 401


async def test_a_client_of_openai_reads_the_reply_whole_and_streamed(endpoint: ModelEndpoint) -> None:
    async with endpoint.open(Desk("two words")) as access, client_of(access) as client:
        messages: Any = [{"role": "user", "content": "why?"}]
        reply = await client.chat.completions.create(model="scripted:m", messages=messages)
        assert (reply.choices[0].message.content, reply.created, reply.model) == ("two words", 5, "m-1")
        assert reply.usage is not None and reply.usage.prompt_tokens == 3
        stream = await client.chat.completions.create(model="scripted:m", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == "two words"
        assert [model.id async for model in client.models.list()] == ["scripted:m"]


@pytest.mark.parametrize(
    ("ends", "status", "code", "kind"),
    [
        (failed("refused", "denied"), 403, "policy_denied", openai.PermissionDeniedError),
        (failed("error", "rate_limited", retryable=True), 429, "rate_limited", openai.RateLimitError),
        (failed("error", "server_error", retryable=True), 503, "server_error", openai.InternalServerError),
        (failed("error", "bad_reply"), 502, "bad_reply", openai.InternalServerError),
        (failed("error", "context_too_long"), 400, "context_too_long", openai.BadRequestError),
        (BudgetExhausted("spent"), 402, "budget_exhausted", openai.APIStatusError),
        (UnknownName("no such model"), 404, "model_not_found", openai.NotFoundError),
        (ConfigError("no key"), 400, "bad_model", openai.BadRequestError),
        (DoorsClosed("stopped"), 503, "stopped", openai.InternalServerError),
    ],
)
async def test_an_end_is_an_error_that_a_client_understands_and_does_not_repeat(
    endpoint: ModelEndpoint, ends: Outcome | Exception, status: int, code: str, kind: type[openai.APIStatusError]
) -> None:
    desk = Desk("left", ends)
    async with endpoint.open(desk) as access, client_of(access) as client:
        with pytest.raises(kind) as refused:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "why?"}])
    assert (refused.value.status_code, refused.value.code, len(desk.asked)) == (status, code, 1)


async def test_too_much_at_once_may_be_sent_again(endpoint: ModelEndpoint) -> None:
    async with endpoint.open(Desk("left", TransientError("too much", code="busy"))) as access:
        limited = await post(access)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "1")
    assert limited.headers["x-should-retry"] == "true"


async def test_what_cannot_be_read_is_a_400_that_names_the_field(endpoint: ModelEndpoint) -> None:
    desk = Desk("left")
    async with endpoint.open(desk) as access:
        broken = await post(access, json=None, content=b"{")
        picture = await post(
            access, json={"model": "m", "messages": [{"role": "user", "content": [{"type": "image"}]}]}
        )
        huge = await post(access, json=None, content=b" " * (33 * 1024 * 1024))
    assert [reply.status_code for reply in (broken, picture, huge)] == [400, 400, 400]
    assert "not JSON" in broken.json()["error"]["message"] and "larger" in huge.json()["error"]["message"]
    assert picture.json()["error"]["param"] == "messages.0.content.0.type" and desk.asked == []


async def test_other_paths_say_what_there_is(endpoint: ModelEndpoint) -> None:
    async with endpoint.open(Desk("left")) as access:
        missing = await post(access, "/responses")
    assert missing.status_code == 404 and "Chat Completions" in missing.json()["error"]["message"]


async def test_it_listens_on_the_loopback_only_when_needed_and_never_after_it_is_closed() -> None:
    endpoint = ModelEndpoint()
    await endpoint.close()
    async with endpoint.open(Desk("left")) as access:
        assert access.base_url.startswith("http://127.0.0.1:") and (await post(access)).status_code == 200
    await endpoint.close()
    with pytest.raises(httpx.ConnectError):
        await post(access)


async def test_a_stream_is_events_and_an_end(endpoint: ModelEndpoint) -> None:
    asked: Json = {"model": "m", "messages": [{"role": "user", "content": "why?"}], "stream": True}
    async with endpoint.open(Desk("hello")) as access:
        reply = await post(access, json=asked)
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert reply.headers["content-type"].startswith("text/event-stream") and lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "hello"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
