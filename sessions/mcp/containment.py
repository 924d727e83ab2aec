"""HTTP to a server, contained: whatever goes wrong with one request stays with that request.

The SDK ends a whole connection, and cancels the task that made it, when the transport raises for one POST. So nothing
is raised here: a failure becomes a JSON-RPC error in a reply, with one code for each kind, and sessions that a server
has forgotten have one code in all dialects. Owns bounds on sizes and rates. Knows JSON-RPC ids and the session header.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx2

from retinue.sessions.mcp.events import EventScanner
from retinue.sessions.mcp.faults import BROKEN, BUSY, DENIED, ENDED, SESSION_GONE, TOO_LARGE, UNREACHABLE
from retinue.sessions.mcp.pace import Pace
from retinue.sessions.mcp.pipes import MAX_MESSAGE
from retinue.sessions.mcp.trail import TRAIL, Trail

SESSION = "mcp-session-id"

MAX_ERROR = 65536
"""Bytes read of a reply that is an error."""

BETWEEN_GETS = 0.25
"""Seconds between two tries to open a stream: a server cannot make this side try faster."""

MAX_RETRY_AFTER = 3600.0

OWED = 2
"""Events of a reply that were asked for: the answer, and the id before it that it can be taken up again with."""

ENDING, MAX_ENDING = 0.05, 4096
"""Seconds and bytes that a stream may take to end once its answer was read, before its TCP connection is given up."""

Id = int | str | None

_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


@dataclass
class Exchange:
    """What the HTTP side of one connection knows. `session_id` is the server's for it, where it has sessions; once
    `muted`, nothing is sent any more and nobody is told.
    """

    session_id: str | None = None
    muted: bool = False
    pace: Pace = field(default_factory=Pace)
    next_get: float = 0.0


class ContainedTransport(httpx2.AsyncBaseTransport):
    """Wraps the transport of one connection."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The reply, or an error in its shape. Raises nothing of the transport's."""
        if self._exchange.muted:
            return httpx2.Response(202, request=request)
        trail = TRAIL.get()
        if request.method != "GET":
            return await self._exchange_one(request, trail)
        await self._space_out()
        response = await self._exchange_one(request, trail)
        return response if trail is None or response.status_code < 400 else _on_stream(request, response, trail)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()

    async def _exchange_one(self, request: httpx2.Request, trail: Trail | None) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except _NOT_SENT as error:
            return _error(request, UNREACHABLE, f"it cannot be reached ({type(error).__name__})")
        except Exception as error:  # whatever it is: it would cost all calls of the connection
            return _error(request, BROKEN, f"the connection broke ({type(error).__name__})")
        _acknowledge(response)
        self._exchange.session_id = response.headers.get(SESSION) or self._exchange.session_id
        return await self._contain(request, response, trail)

    async def _contain(
        self, request: httpx2.Request, response: httpx2.Response, trail: Trail | None
    ) -> httpx2.Response:
        if response.headers.get("content-encoding", "identity") != "identity":
            await _drop(response)
            return _error(request, BROKEN, "it compresses though it was asked not to")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code < 400 and kind == "text/event-stream":
            owed = OWED if request.method == "POST" else 0
            response.stream = _Events(response.stream, trail, self._exchange.pace, owed)  # type: ignore[arg-type]
            return response
        most = MAX_ERROR if response.status_code >= 400 else MAX_MESSAGE
        try:
            body = await _read(response, most)
        except Exception as error:  # as above
            return _error(request, BROKEN, f"its reply broke off ({type(error).__name__})")
        if body is None:
            return _error(request, TOO_LARGE, f"it answered with more than {most:,} bytes")
        if response.status_code >= 400:
            return _refused(request, response, body)
        return httpx2.Response(response.status_code, headers=_plain(response.headers), content=body, request=request)

    async def _space_out(self) -> None:
        now = asyncio.get_running_loop().time()
        at = max(now, self._exchange.next_get)
        self._exchange.next_get = at + BETWEEN_GETS
        if at > now:
            await asyncio.sleep(at - now)


class _Events(httpx2.AsyncByteStream):
    """A stream of events, scanned as it passes. The first `owed` of them are no matter of the pace."""

    def __init__(self, inner: httpx2.AsyncByteStream, trail: Trail | None, pace: Pace, owed: int) -> None:
        self._inner = inner
        self._parts = aiter(inner)
        self._scanner = EventScanner(trail)
        self._trail = trail
        self._pace = pace
        self._owed = owed
        self._reply = owed > 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._parts:
            before = self._scanner.count
            self._scanner.feed(chunk)
            if self._scanner.pending > MAX_MESSAGE:
                if self._trail is not None:
                    self._trail.too_large = True
                return
            for _ in range(self._unasked(self._scanner.count - before)):
                await self._pace.keep()
            yield chunk
        if self._trail is not None and self._trail.resuming:
            yield b"\n\n" + _event(ENDED, "the stream ended before the answer")

    async def aclose(self) -> None:
        """Close it; the end of a reply that is behind its answer is read before, so that its connection can be used
        again: the SDK closes a stream as soon as it has the answer.
        """
        try:
            if self._reply and self._scanner.count and not self._scanner.pending:
                await self._read_ending()
        finally:
            await self._inner.aclose()

    def _unasked(self, events: int) -> int:
        owed = min(events, self._owed)
        self._owed -= owed
        return events - owed

    async def _read_ending(self) -> None:
        size = 0
        with contextlib.suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError, OSError):
            async with asyncio.timeout(ENDING):
                async for part in self._parts:
                    size += len(part)
                    if size > MAX_ENDING:
                        return


def _acknowledge(response: httpx2.Response) -> None:
    """Have the kernel tell the server at once what has arrived, where it can.

    On a connection that is used again it waits 40 ms for something to send along, and a server that gathers small
    writes (Nagle's algorithm) keeps the rest of its reply for as long.
    """
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    if found is not None and (option := getattr(socket, "TCP_QUICKACK", None)) is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, option, 1)


def _refused(request: httpx2.Request, response: httpx2.Response, body: bytes) -> httpx2.Response:
    """An HTTP error as one code per kind; a JSON-RPC error that answers this very request is the server's own."""
    status = response.status_code
    answer, request_id = _answer_in(body), _id_of(request)
    own = answer is not None and request_id is not None and answer.get("id") == request_id
    in_session = SESSION in request.headers
    if status in (401, 403):
        return _error(request, DENIED, f"HTTP {status}")
    if status == 429:
        data = {"retry_after": _retry_after(response)}
        return _error(request, BUSY, "HTTP 429: it has too many requests", data)
    if in_session and (status == 404 or (status == 400 and not own)):
        return _error(request, SESSION_GONE, f"its session has ended (HTTP {status})")
    if status >= 500 and not own:
        return _error(request, BROKEN, f"HTTP {status}")
    return httpx2.Response(status, headers=_plain(response.headers), content=body, request=request)


def _on_stream(request: httpx2.Request, response: httpx2.Response, trail: Trail) -> httpx2.Response:
    """A refused stream of a call, as a stream with an error: the SDK would end the connection, or lose the reason.

    A server that is only not there just now is tried again by the SDK, where it reads on by itself.
    """
    answer = _answer_in(response.read()) or {}
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else BROKEN
    if not trail.resuming:
        if code != SESSION_GONE:
            return response
        code = BROKEN
    content = _event(
        code if isinstance(code, int) else BROKEN, f"its stream is not there (HTTP {response.status_code})"
    )
    headers = {"content-type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, content=content, request=request)


def _event(code: int, problem: str) -> bytes:
    message = {"jsonrpc": "2.0", "id": 0, "error": {"code": code, "message": problem}}
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


def _error(request: httpx2.Request, code: int, problem: str, data: dict[str, float] | None = None) -> httpx2.Response:
    error = {"code": code, "message": problem, **({"data": data} if data else {})}
    return httpx2.Response(503, json={"jsonrpc": "2.0", "id": _id_of(request), "error": error}, request=request)


def _id_of(request: httpx2.Request) -> Id:
    """The id of the JSON-RPC request in a POST; None for anything else."""
    if request.method != "POST":
        return None
    message = _answer_in(request.content)
    found = message.get("id") if message is not None and "method" in message else None
    return found if isinstance(found, int | str) else None


def _answer_in(body: bytes) -> dict[str, object] | None:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _retry_after(response: httpx2.Response) -> float:
    try:
        return min(MAX_RETRY_AFTER, max(0.0, float(response.headers.get("retry-after", "1"))))
    except ValueError:
        return 1.0


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """The headers that say something of a body which was read as a whole."""
    kept = ("content-type", "location", SESSION)
    return {name: headers[name] for name in kept if name in headers}


async def _read(response: httpx2.Response, most: int) -> bytes | None:
    """The body; None when it is larger than `most`."""
    parts, size = [], 0
    try:
        async for part in response.stream:  # type: ignore[union-attr]
            size += len(part)
            if size > most:
                return None
            parts.append(part)
    finally:
        await _drop(response)
    return b"".join(parts)


async def _drop(response: httpx2.Response) -> None:
    with contextlib.suppress(httpx2.HTTPError, httpx2.StreamError, OSError):
        await response.stream.aclose()  # type: ignore[union-attr]
