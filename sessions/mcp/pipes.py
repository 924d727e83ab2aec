"""The pipes of a server process, as the streams that the SDK's dispatcher reads and writes.

Owns the bounds: the length of a line, the amount of what is no message, the rate of what nobody asked for. Knows one
line per message and no meaning of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, cast

from anyio import BrokenResourceError, EndOfStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)

from retinue.sessions.mcp.faults import TOO_LARGE
from retinue.sessions.mcp.pace import Pace

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message from a server."""

MAX_GARBAGE = 1024 * 1024
"""Bytes of what is no message, since the last message, before a server is given up."""

KEPT = 8192
"""Bytes kept of what a server writes to its standard error."""

FLOOD = 1024 * 1024
"""Bytes of standard error after which its reading pauses for `PAUSE` seconds."""
PAUSE = 0.1

TURN = 64
"""Messages taken from what was read before others have their turn."""

_ID = re.compile(rb'"id"\s*:\s*(?:(\d{1,18})|"([^"\\]{1,128})")')
_ENDS = 4096


class Outlet(asyncio.Protocol):
    """The writing end. `send` waits while the server does not read; the caller has to bound that."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._open = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._open.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._open.set()

    def pause_writing(self) -> None:
        self._open.clear()

    def resume_writing(self) -> None:
        self._open.set()

    async def write(self, data: bytes) -> None:
        """Write; BrokenResourceError once the server has gone."""
        await self._open.wait()
        if self._transport is None or self._transport.is_closing():
            raise BrokenResourceError
        self._transport.write(data)

    def close(self) -> None:
        """End the server's input, without what it has not read yet."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()


class Tail(asyncio.Protocol):
    """Keeps the end of what is read."""

    def __init__(self) -> None:
        self._kept = b""
        self._read = 0
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data[-KEPT:])[-KEPT:]
        self._read += len(data)
        if self._read > FLOOD and self._transport is not None:
            self._read = 0
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE, self._go_on)

    @property
    def text(self) -> str:
        """What is kept."""
        return self._kept.decode("utf-8", "replace")

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


class Writing:
    """The dispatcher's way to a server's standard input."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    async def send(self, item: SessionMessage) -> None:
        """Write a message as one line."""
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        await self._outlet.write(text.encode() + b"\n")

    async def aclose(self) -> None:
        """Nothing: the child's end closes the pipe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Reading:
    """The dispatcher's view of a server's standard output. `trouble` says why reading was given up."""

    def __init__(self, source: asyncio.StreamReader, pace: Pace) -> None:
        self._source = source
        self._pace = pace
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False
        self._garbage = 0
        self._taken = 0
        self.trouble = ""

    async def receive(self) -> SessionMessage:
        """The next message; EndOfStream when the output has ended."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise EndOfStream from None

    def __aiter__(self) -> AsyncIterator[SessionMessage]:
        return self

    async def __anext__(self) -> SessionMessage:
        while not self.trouble:
            line = self._take()
            if line is None:
                chunk = await self._source.read(65536)
                if not chunk:
                    break
                self._buffer += chunk
                continue
            message = self._skip(line) if self._skipping else self._parse(line)
            await self._take_turns(message)
            if message is not None:
                return SessionMessage(message)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing: the child's end closes the pipe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _take(self) -> bytes | None:
        """A whole line, or the two ends of one that is too long; None while there is none."""
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            if len(self._buffer) > (2 * _ENDS if self._skipping else MAX_MESSAGE):
                self._begin_skipping()
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _begin_skipping(self) -> None:
        """Keep the two ends of a line that is too long: its id may be in either."""
        self._skipping = True
        del self._buffer[_ENDS:-_ENDS]

    def _skip(self, line: bytes) -> JSONRPCMessage | None:
        self._skipping = False
        return _refusal(line, TOO_LARGE, f"it answered with more than {MAX_MESSAGE:,} bytes")

    def _parse(self, line: bytes) -> JSONRPCMessage | None:
        try:
            message: JSONRPCMessage = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._garbage += len(line) + 1
            if self._garbage > MAX_GARBAGE:
                self.trouble = "it prints what is no message of the protocol"
            return _refusal(line, PARSE_ERROR, "it answered with what is no JSON")
        self._garbage = 0
        return message

    async def _take_turns(self, message: JSONRPCMessage | None) -> None:
        self._taken += 1
        if isinstance(message, JSONRPCNotification | JSONRPCRequest):
            await self._pace.keep()
        elif self._taken % TURN == 0:
            await asyncio.sleep(0)


def _refusal(line: bytes, code: int, problem: str) -> JSONRPCError | None:
    """An error in place of an answer that cannot be read; None when it does not look like one."""
    found = _ID.search(line[:_ENDS]) or _last(line[-_ENDS:])
    if found is None or not (b'"result"' in line or b'"error"' in line):
        return None
    request = int(found[1]) if found[1] else found[2].decode("utf-8", "replace")
    return JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(code=code, message=problem))


def _last(part: bytes) -> re.Match[bytes] | None:
    found = None
    for found in _ID.finditer(part):  # noqa: B007
        pass
    return found
