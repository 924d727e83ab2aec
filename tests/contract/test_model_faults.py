"""What every model client makes of endpoints that are down, slow, limiting, broken or strangers to it."""

from __future__ import annotations

import asyncio
import socket
from time import perf_counter
from typing import Any

import pytest
from tests.doubles.model_calls import KEY, KINDS, asking, both_ways, call, environ_of, every_kind, name_of, serving
from tests.doubles.model_server import ModelServer
from tests.doubles.model_wire import Plan

from retinue.inference.catalog import models_from
from retinue.runs.errors import PermanentModelError, TransientModelError

# --- what goes wrong -------------------------------------------------------------------------------------


@both_ways
@every_kind
async def test_a_refused_connection_is_transient(kind: str, streamed: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        models = models_from(environ=environ_of(url))
        with pytest.raises(TransientModelError, match="cannot connect") as caught:
            await models.complete(asking(name_of(kind, url)), (lambda piece: None) if streamed else None)
        await models.close()
    assert caught.value.code == "connection_failed"


@both_ways
@pytest.mark.parametrize("fault", ["slow", "drip"])
@every_kind
async def test_the_time_limit_holds_against_slow_and_dripping_servers(kind: str, fault: str, streamed: bool) -> None:
    started = perf_counter()
    plan = Plan(text="late", fault=fault, delay=30.0 if fault == "slow" else 0.02)
    with pytest.raises(TransientModelError, match=r"within 0\.3 s") as caught:
        await call(kind, plan, streamed, timeout=0.3)
    assert caught.value.code == "timeout"
    assert perf_counter() - started < 20


@both_ways
@pytest.mark.parametrize("fault", ["garbage", "html", "wrong_shape"])
@every_kind
async def test_garbage_is_permanent_and_says_where(kind: str, fault: str, streamed: bool) -> None:
    with pytest.raises(PermanentModelError, match="not its protocol") as caught:
        await call(kind, Plan(text="hello", fault=fault), streamed)
    assert caught.value.code == "bad_reply"


@both_ways
@every_kind
async def test_a_huge_reply_is_not_read_to_its_end(kind: str, streamed: bool) -> None:
    with pytest.raises(PermanentModelError, match="larger than 200000 bytes") as caught:
        await call(kind, Plan(fault="huge"), streamed, cap=200_000)
    assert caught.value.code == "reply_too_large"


@pytest.mark.parametrize("fault", ["cut", "early_end"])
@every_kind
async def test_a_stream_that_breaks_off_is_transient(kind: str, fault: str) -> None:
    with pytest.raises(TransientModelError) as caught:
        await call(kind, Plan(text="a long enough text", fault=fault), streamed=True)
    assert caught.value.code == "stream_cut"


@every_kind
async def test_a_whole_reply_that_breaks_off_is_transient(kind: str) -> None:
    with pytest.raises(TransientModelError) as caught:
        await call(kind, Plan(text="a long enough text", fault="cut"))
    assert caught.value.code == "connection_lost"


@every_kind
async def test_garbage_inside_a_stream_is_permanent(kind: str) -> None:
    with pytest.raises(PermanentModelError) as caught:
        await call(kind, Plan(text="hello there", fault="stream_garbage"), streamed=True)
    assert caught.value.code == "bad_reply"


@pytest.mark.parametrize(
    ("error", "transient", "code"),
    [
        ({"type": "overloaded_error", "message": "busy"}, True, "overloaded"),
        (
            {"type": "server_error", "code": "rate_limit_exceeded", "message": "slow down"},
            True,
            "rate_limited",
        ),
        ({"type": "invalid_request_error", "message": "no"}, False, "model_error"),
    ],
)
@every_kind
async def test_an_error_inside_a_stream_is_typed(kind: str, error: Any, transient: bool, code: str) -> None:
    plan = Plan(text="hello there", fault="stream_error", error={"type": "error", "error": error})
    with pytest.raises(TransientModelError if transient else PermanentModelError, match=error["message"]) as caught:
        await call(kind, plan, streamed=True)
    assert caught.value.code == code


STATUSES = [
    (429, True, "rate_limited"),
    (500, True, "server_error"),
    (502, True, "server_error"),
    (503, True, "server_error"),
    (529, True, "overloaded"),
    (408, True, "timeout"),
    (409, True, "conflict"),
    (400, False, "bad_request"),
    (401, False, "unauthorized"),
    (403, False, "forbidden"),
    (404, False, "not_found"),
    (413, False, "request_too_large"),
    (418, False, "bad_request"),
    (302, False, "redirected"),
]


@both_ways
@pytest.mark.parametrize(("status", "transient", "code"), STATUSES)
@every_kind
async def test_every_status_has_its_error(kind: str, status: int, transient: bool, code: str, streamed: bool) -> None:
    expected = TransientModelError if transient else PermanentModelError
    error = {"error": {"message": "as planned"}}
    with pytest.raises(expected, match=f"HTTP {status}: as planned") as caught:
        await call(kind, Plan(fault="status", status=status, error=error), streamed)
    assert caught.value.code == code
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((("retry-after", "7"),), 7.0),
        ((("retry-after", "1.5"),), 1.5),
        ((("retry-after-ms", "250"), ("retry-after", "1")), 0.25),
        ((("retry-after", "Wed, 21 Oct 2099 07:28:00 GMT"),), None),
        ((("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),), 0.0),
        ((("retry-after", "soon"),), None),
        ((("retry-after", "inf"),), None),
        ((), None),
    ],
)
@every_kind
async def test_retry_after_is_read_in_every_form(kind: str, headers: Any, seconds: float | None) -> None:
    plan = Plan(fault="status", status=429, headers=headers)
    with pytest.raises(TransientModelError) as caught:
        await call(kind, plan)
    if headers and "2099" in headers[0][1]:
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 86_400
    else:
        assert caught.value.retry_after == seconds


@every_kind
async def test_an_empty_account_is_not_worth_a_retry(kind: str) -> None:
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with pytest.raises(PermanentModelError) as caught:
        await call(kind, Plan(fault="status", status=429, error=error))
    assert caught.value.code == "quota_exhausted"


async def test_a_client_makes_one_attempt_only() -> None:
    for kind in KINDS:
        async with serving([Plan(fault="status", status=503)]) as (server, models):
            with pytest.raises(TransientModelError):
                await models.complete(asking(name_of(kind, server.url)))
            assert len(server.requests) == 1


@every_kind
async def test_a_cancelled_call_leaves_nothing_running(kind: str) -> None:
    async with serving([Plan(fault="drip", delay=0.01)]) as (server, models):
        before = asyncio.all_tasks()
        task = asyncio.create_task(models.complete(asking(name_of(kind, server.url)), lambda piece: None))
        await server.first_request.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ours = {other for other in asyncio.all_tasks() - before if "ModelServer" not in str(other.get_coro())}
        assert not ours


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["responses", "anthropic"])
async def test_the_key_is_sent_and_never_shown(kind: str) -> None:
    async with serving([Plan(text="ok")], key="another") as (server, models):
        with pytest.raises(PermanentModelError) as caught:
            await models.complete(asking(name_of(kind, server.url)))
    assert caught.value.code == "unauthorized"
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    async with serving([Plan(text="ok")], key=KEY) as (server, models):
        assert (await models.complete(asking(name_of(kind, server.url)))).text == "ok"


@pytest.mark.parametrize(
    ("name", "variable"), [("openai:gpt-5", "OPENAI_API_KEY"), ("anthropic:claude-x", "ANTHROPIC_API_KEY")]
)
async def test_a_missing_or_broken_key_is_named(name: str, variable: str) -> None:
    for value, code in (("", "missing_key"), ("sk\nbad: header", "bad_key")):
        models = models_from(environ={variable: value})
        with pytest.raises(PermanentModelError, match=variable) as caught:
            await models.complete(asking(name))
        assert caught.value.code == code
        with pytest.raises(PermanentModelError, match=variable):
            models.check(name)


async def test_an_address_gets_a_key_only_when_it_was_given_one() -> None:
    async with ModelServer([Plan(text="ok")]) as server:
        environ = {**environ_of(server.url), "MY_KEY": "mine"}
        for keys, expected in (({}, None), ({f"{server.url}/v1/": "MY_KEY"}, "Bearer mine")):
            models = models_from(environ=environ, keys=keys)
            await models.complete(asking(f"{server.url}/v1#m"))
            assert server.requests[-1].headers.get("authorization") == expected
            await models.close()
