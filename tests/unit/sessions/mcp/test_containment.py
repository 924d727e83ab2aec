"""HTTP, contained: each way a request can fail is one code in a reply, and streams are followed as they pass."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from retinue.sessions.mcp.containment import ContainedTransport, Exchange
from retinue.sessions.mcp.events import EventScanner
from retinue.sessions.mcp.faults import BROKEN, BUSY, DENIED, SESSION_GONE, TOO_LARGE, UNREACHABLE
from retinue.sessions.mcp.pace import Pace
from retinue.sessions.mcp.pipes import MAX_MESSAGE
from retinue.sessions.mcp.texts import clean, clean_json, hide, one_line
from retinue.sessions.mcp.trail import TRAIL, Trail

BODY = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "work"}}
OWN = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "no"}}
OTHER = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no session"}}

Answer = Callable[[httpx2.Request], httpx2.Response]


class Stream(httpx2.AsyncByteStream):
    """Parts as they come; an exception among them is raised."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


class Inner(httpx2.AsyncBaseTransport):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.answer(request)


async def exchange(answer: Answer, *, session: str | None = None, state: Exchange | None = None) -> httpx2.Response:
    transport = ContainedTransport(Inner(answer), state or Exchange())
    headers = {"mcp-session-id": session} if session else {}
    async with httpx2.AsyncClient(transport=transport) as client:
        return await client.post("http://server/mcp", json=BODY, headers=headers)


def raising(error: Exception) -> Answer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error

    return answer


def replying(status: int, body: object = None, **headers: str) -> Answer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        content = json.dumps(body).encode() if body is not None else b"<html>"
        kind = "application/json" if body is not None else "text/html"
        return httpx2.Response(status, content=content, headers={"content-type": kind, **plain})

    return answer


@pytest.mark.promise("D5")
@pytest.mark.parametrize(
    ("answer", "session", "code"),
    [
        (raising(httpx2.ConnectError("no")), None, UNREACHABLE),
        (raising(httpx2.ConnectTimeout("no")), None, UNREACHABLE),
        (raising(httpx2.PoolTimeout("no")), None, UNREACHABLE),
        (raising(httpx2.ReadError("no")), None, BROKEN),
        (raising(httpx2.ReadTimeout("no")), None, BROKEN),
        (raising(httpx2.RemoteProtocolError("no")), None, BROKEN),
        (raising(OSError("no")), None, BROKEN),
        (raising(ValueError("no")), None, BROKEN),
        (replying(401), None, DENIED),
        (replying(403, OWN), None, DENIED),
        (replying(429), None, BUSY),
        (replying(500), None, BROKEN),
        (replying(502), "s", BROKEN),
        (replying(404), "s", SESSION_GONE),
        (replying(404, OWN), "s", SESSION_GONE),
        (replying(400), "s", SESSION_GONE),
        (replying(400, OTHER), "s", SESSION_GONE),
        (replying(400, OWN), "s", -32602),
        (replying(500, OWN), None, -32602),
        (replying(200, {}, content_encoding="gzip"), None, BROKEN),
    ],
)
async def test_what_goes_wrong_with_a_request_is_one_code_in_its_reply(
    answer: Answer, session: str | None, code: int
) -> None:
    response = await exchange(answer, session=session)
    found = response.json()
    assert (found["id"], found["error"]["code"]) == (7, code)


@pytest.mark.parametrize("body", [None, OTHER])
async def test_what_says_nothing_of_a_session_is_left_as_it_is(body: object) -> None:
    assert (await exchange(replying(404, body))).status_code == 404
    assert (await exchange(replying(400, body))).status_code == 400


async def test_a_reply_that_breaks_off_is_broken() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        stream = Stream(b'{"json', httpx2.ReadError("gone"))
        return httpx2.Response(200, stream=stream, headers={"content-type": "application/json"})

    assert (await exchange(answer)).json()["error"]["code"] == BROKEN


async def test_a_reply_without_measure_is_too_large() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        stream = Stream(*[b"x" * 1_000_000] * 50)
        return httpx2.Response(200, stream=stream, headers={"content-type": "application/json"})

    assert (await exchange(answer)).json()["error"]["code"] == TOO_LARGE


async def test_an_event_without_measure_ends_its_stream_and_is_noted() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        stream = Stream(b"data: ", *[b"x" * 1_000_000] * 50)
        return httpx2.Response(200, stream=stream, headers={"content-type": "text/event-stream"})

    trail = Trail()
    TRAIL.set(trail)
    assert len((await exchange(answer)).content) <= MAX_MESSAGE
    assert trail.too_large


async def test_a_server_says_when_to_come_again_within_bounds() -> None:
    for told, seconds in (("7", 7.0), ("99999999", 3600.0), ("soon", 1.0), ("-4", 0.0)):
        found = (await exchange(replying(429, retry_after=told))).json()
        assert found["error"]["data"] == {"retry_after": seconds}


async def test_a_muted_connection_sends_nothing() -> None:
    response = await exchange(raising(AssertionError("sent")), state=Exchange(muted=True))
    assert response.status_code == 202


async def test_the_session_of_the_server_is_kept() -> None:
    state = Exchange()
    await exchange(replying(200, {"ok": True}, mcp_session_id="s-9"), state=state)
    assert state.session_id == "s-9"


def test_an_endless_line_is_followed_without_reading_it_again_and_again() -> None:
    """Twenty thousand pieces of one line: looked at anew with each piece, they would keep the loop for minutes."""
    scanner, piece = EventScanner(Trail()), b"x" * 1_000
    scanner.feed(b"id: 7\ndata: ")
    for _ in range(20_000):
        scanner.feed(piece)
    assert (scanner.count, scanner.pending) == (0, 20_000_012)
    scanner.feed(b"\r\n\r\nda")
    assert (scanner.count, scanner.pending) == (1, 2)


def test_a_stream_is_followed_to_the_event_before_each_question() -> None:
    question = json.dumps({"jsonrpc": "2.0", "id": 3, "method": "elicitation/create", "params": {}})
    mention = json.dumps(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "elicitation/create"}}
    )
    text = f"id: a\ndata:\n\nid: b\r\ndata: {mention}\r\n\r\n: comment\n\n"
    text += f"id: c\r\ndata: {question}\r\n\r\nid: d\ndata: {{}}\n\n"
    for size in (1, 2, 7, 1000):
        trail = Trail()
        scanner = EventScanner(trail)
        data = text.encode()
        for start in range(0, len(data), size):
            scanner.feed(data[start : start + size])
        assert (trail.before, trail.last_event) == ({"3": "b"}, "d"), size


async def test_a_flood_is_slowed_down_and_a_trickle_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, pauses, sleep = asyncio.get_running_loop(), list[float](), asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    began, pace = loop.time(), Pace(rate=1000.0, burst=100.0)
    for _ in range(100):
        await pace.keep()
    assert pauses == []
    for _ in range(200):
        await pace.keep()
    assert pauses and loop.time() - began > 0.15


def test_texts_of_servers_are_plain_and_bounded() -> None:
    assert clean("a\x1b[31mb\x1b]8;;http://x\x07c\x1b]0;t\x1b\\d\x00e\u202ef\u200bg\x9bh", 100) == "abcdefgh"
    assert clean("tab\tline\n", 100) == "tab\tline\n"
    assert (len(clean("x" * 5000, 100)), clean("x" * 5000, 100)[-4:]) == (100, " […]"[-4:])
    assert one_line("a\n\n  b\t\x1b[0mc", 100) == "a b c"
    assert hide("Bearer abcd and abcd", ["abcd"]) == "Bearer *** and ***"
    assert clean_json({"a\x1b[1m": ["b\x00", 1, None]}, 100) == {"a": ["b", 1, None]}
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        clean_json(deep, 100)  # type: ignore[arg-type]
