"""The one door to HTTP: JSON posted, a whole reply or a stream of events received, all of it bounded.

Owns connections (one pool for each event loop and process, made when first needed), the total time limit,
the size cap and what a broken transport means. Knows no model protocol, judges no status code
(`inference.faults` does) and never retries. No type of the client library leaves this module.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import cast
from weakref import WeakKeyDictionary

import httpx as web

from retinue.inference.sse import Decoder, Event
from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentModelError, TransientModelError

MAX_BYTES = 8 * 1024 * 1024
"""Default cap of one reply, decoded, streamed or not."""

CONNECT_SECONDS = 10.0
"""Longest wait for a connection, within the call's own time limit."""

DRAIN_SECONDS = 0.25
"""After the last event: how long the end of the stream is awaited, so that the connection can be reused."""

OnEvent = Callable[[Event], bool]
"""Takes an event of a stream; True says that it was the last one."""


@dataclass(frozen=True)
class Call:
    """One POST of a JSON object. `timeout` is in seconds, from the connection to the last byte."""

    url: str
    headers: Mapping[str, str]
    payload: Mapping[str, Json]
    timeout: float


@dataclass(frozen=True)
class Answer:
    """What the server sent, whatever its status. Header names are lower case; a stream leaves no body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        """The content type without its parameters, lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Http:
    """Posts calls. Raises TransientModelError for time-outs and broken transport, PermanentModelError for
    an address that is none, a payload that is no JSON, and a reply above `max_bytes`."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, connections: int = 256) -> None:
        self._max_bytes = max_bytes
        self._connections = connections
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, web.AsyncClient] = WeakKeyDictionary()
        self._pid = os.getpid()

    async def post(self, call: Call) -> Answer:
        """The whole answer."""
        return await self._bounded(call, None)

    async def stream(self, call: Call, on_event: OnEvent) -> Answer:
        """Feeds `on_event`; an answer that is refused or is no event stream comes back whole instead.

        A connection that ends inside the stream is TransientModelError("stream_cut").
        """
        return await self._bounded(call, on_event)

    async def close(self) -> None:
        """Closes the pool of the running loop; pools of loops that are gone went with them."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()

    async def _bounded(self, call: Call, on_event: OnEvent | None) -> Answer:
        started: list[bool] = []
        try:
            async with asyncio.timeout(call.timeout):
                return await self._send(call, on_event, started)
        except (TimeoutError, web.HTTPError, web.InvalidURL, web.StreamError) as error:
            raise _fault(call, error, streaming=bool(started) and on_event is not None) from None

    async def _send(self, call: Call, on_event: OnEvent | None, started: list[bool]) -> Answer:
        seconds = web.Timeout(call.timeout, connect=min(CONNECT_SECONDS, call.timeout))
        headers = {
            **call.headers,
            "content-type": "application/json",
            "accept": "application/json" if on_event is None else "text/event-stream",
            "accept-encoding": "identity",
        }
        request = self._pool().stream("POST", call.url, headers=headers, content=encoded(call), timeout=seconds)
        async with request as response:
            started.append(True)
            answer = Answer(response.status_code, dict(response.headers))
            if on_event is None or not answer.ok or answer.media_type != "text/event-stream":
                return replace(answer, body=await self._whole(response, call.url))
            await self._events(response, call.url, on_event)
            return answer

    async def _whole(self, response: web.Response, url: str) -> bytes:
        body = bytearray()
        async with _chunks(response) as chunks:
            async for chunk in chunks:
                body += chunk
                self._check_size(len(body), url)
        return bytes(body)

    async def _events(self, response: web.Response, url: str, on_event: OnEvent) -> None:
        decoder, size = Decoder(), 0
        async with _chunks(response) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                self._check_size(size, url)
                if any(on_event(event) for event in decoder.feed(chunk)):
                    await _drain(chunks)
                    return

    def _check_size(self, size: int, url: str) -> None:
        if size > self._max_bytes:
            raise PermanentModelError(
                f"the reply of {url} is larger than {self._max_bytes} bytes; it was not read further",
                code="reply_too_large",
            )

    def _pool(self) -> web.AsyncClient:
        if self._pid != os.getpid():  # forked: the parent's sockets are not ours, and not ours to close
            self._pools, self._pid = WeakKeyDictionary(), os.getpid()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            limits = web.Limits(max_connections=self._connections, max_keepalive_connections=32)
            pool = self._pools[loop] = web.AsyncClient(limits=limits, follow_redirects=False)
        return pool


def _chunks(response: web.Response) -> aclosing[AsyncGenerator[bytes, None]]:
    return aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes()))


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    with suppress(TimeoutError, web.HTTPError):  # all was received; at worst the connection is not reused
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                continue


def encoded(call: Call) -> bytes:
    """The body that is posted for a call. PermanentModelError when its payload is no JSON."""
    try:
        return json.dumps(call.payload, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise PermanentModelError(
            f"the request to {call.url} cannot be written as JSON: {error}; check the model's parameters",
            code="bad_parameters",
        ) from error


def _fault(call: Call, error: Exception, *, streaming: bool) -> TransientModelError | PermanentModelError:
    what = str(error) or type(error).__name__
    match error:
        case web.ConnectTimeout():
            return TransientModelError(
                f"no connection to {call.url} in time; is the server running, is the address right?",
                code="timeout",
            )
        case TimeoutError() | web.TimeoutException():
            return TransientModelError(
                f"no complete reply from {call.url} within {round(call.timeout, 1):g} s; raise the call's timeout or "
                "use a faster model",
                code="timeout",
            )
        case web.ConnectError():
            return TransientModelError(
                f"cannot connect to {call.url}: {what}; is the server running, is the address right?",
                code="connection_failed",
            )
        case web.LocalProtocolError():  # its text would show the header, and with it a key
            return PermanentModelError(
                f"a header of the call to {call.url} holds characters that HTTP forbids; check the key and "
                "the traceparent for line breaks",
                code="bad_header",
            )
        case web.TransportError() if not isinstance(error, web.UnsupportedProtocol):
            where = "inside the stream" if streaming else "before its reply was whole"
            return TransientModelError(
                f"{call.url} broke the connection {where}: {what}",
                code="stream_cut" if streaming else "connection_lost",
            )
        case web.DecodingError():
            return PermanentModelError(
                f"{call.url} sent a body that its content encoding does not describe: {what}",
                code="bad_reply",
            )
    return PermanentModelError(
        f"{call.url!r} is not an address that can be called: {what}; use http://host[:port]/path",
        code="bad_url",
    )
