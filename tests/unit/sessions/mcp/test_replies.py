"""Streams of replies over HTTP: what was asked for is not slowed down, and a TCP connection is used again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import pytest

from retinue.sessions.mcp.containment import ENDING, MAX_ENDING, ContainedTransport, Exchange
from retinue.sessions.mcp.pace import Pace

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "work"}}
ANSWER = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {}}).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NEWS = b'data: {"jsonrpc": "2.0", "method": "notifications/message"}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


REPLY = chunk(b"id: 1\ndata:\n\n") + chunk(b"id: 2\ndata: " + ANSWER + b"\n\n")


@dataclass
class Server:
    """Answers each POST with a stream of events, `ending` behind the answer; counts who connected."""

    ending: bytes
    url: str = ""
    connected: int = 0
    posts: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.answer(reader, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        self.left.release()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        self.posts += 1
        self.asked.set()
        for part in (HEAD, REPLY, self.ending):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(ending: bytes) -> AsyncIterator[Server]:
    server = Server(ending)
    listener = await asyncio.start_server(server.talk, sock=socket.create_server(("127.0.0.1", 0)))
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp"
    async with listener:
        yield server
        async with asyncio.timeout(20):
            for _ in range(server.connected):
                await server.left.acquire()


async def answered(client: httpx2.AsyncClient, url: str) -> float:
    """Read a reply up to its answer, as the SDK does; the seconds that closing it took."""
    loop = asyncio.get_running_loop()
    async with client.stream("POST", url, json=CALL) as response:
        seen = b""
        async for part in response.aiter_raw():
            seen += part
            if ANSWER in seen:
                break
        began = loop.time()
    assert ANSWER in seen
    return loop.time() - began


@pytest.mark.parametrize(
    ("ending", "connections"),
    [
        (b"0\r\n\r\n", 1),
        (chunk(b": bye\n\n") + b"0\r\n\r\n", 1),
        (b"", 3),
        (chunk(NEWS) * (MAX_ENDING // len(NEWS) + 2) + b"0\r\n\r\n", 3),
        (b"no chunk\r\n", 3),
    ],
    ids=["it ends", "it says goodbye", "it does not end", "it says more", "it breaks"],
)
@pytest.mark.promise("D5")
async def test_a_connection_is_used_again_when_its_reply_ends_and_given_up_soon_when_not(
    ending: bytes, connections: int
) -> None:
    async with serving(ending) as server:
        transport = ContainedTransport(httpx2.AsyncHTTPTransport(), Exchange())
        async with httpx2.AsyncClient(transport=transport) as client:
            closing = [await answered(client, server.url) for _ in range(3)]
    assert (server.posts, server.connected) == (3, connections)
    assert max(closing) < 100 * ENDING


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the kernel decides alone when it acknowledges")
async def test_a_server_that_gathers_small_writes_is_not_waited_for() -> None:
    async with serving(b"0\r\n\r\n") as server:
        transport = ContainedTransport(httpx2.AsyncHTTPTransport(), Exchange())
        async with httpx2.AsyncClient(transport=transport) as client:
            loop, seconds = asyncio.get_running_loop(), []
            for _ in range(30):
                began = loop.time()
                await answered(client, server.url)
                seconds.append(loop.time() - began)
    assert min(seconds[-10:]) < 0.025


async def test_a_reply_that_nobody_waits_for_any_more_is_left_at_once() -> None:
    async with serving(b"") as server:
        transport = ContainedTransport(httpx2.AsyncHTTPTransport(), Exchange())
        async with httpx2.AsyncClient(transport=transport) as client:
            reading = asyncio.create_task(read_all(client, server.url))
            await server.asked.wait()
            reading.cancel()
            done, _ = await asyncio.wait({reading}, timeout=20 * ENDING)
            assert done


async def read_all(client: httpx2.AsyncClient, url: str) -> None:
    async with client.stream("POST", url, json=CALL) as response:
        async for _ in response.aiter_raw():
            pass


class Parts(httpx2.AsyncByteStream):
    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


class Inner(httpx2.AsyncBaseTransport):
    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Parts(*self.parts), headers={"content-type": "text/event-stream"})


class Counting(Pace):
    """A pace that counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0

    async def keep(self) -> None:
        self.kept += 1


@pytest.mark.promise("D5")
@pytest.mark.parametrize(
    ("method", "parts", "kept"),
    [
        ("POST", (b"id: 1\ndata:\n\n", b"data: " + ANSWER + b"\n\n"), 0),
        ("POST", (b"data: " + ANSWER + b"\n\n",), 0),
        ("POST", (NEWS, NEWS, NEWS + NEWS, b"data: " + ANSWER + b"\n\n"), 3),
        ("GET", (NEWS, NEWS), 2),
    ],
    ids=["an id and an answer", "an answer", "news and an answer", "news"],
)
async def test_an_answer_is_no_matter_of_the_pace_and_what_nobody_asked_for_is(
    method: str, parts: tuple[bytes, ...], kept: int
) -> None:
    pace = Counting()
    transport = ContainedTransport(Inner(*parts), Exchange(pace=pace))
    async with httpx2.AsyncClient(transport=transport) as client:
        await client.request(method, "http://server/mcp", json=CALL)
    assert pace.kept == kept
