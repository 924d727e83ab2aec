"""The wire over this process's own stdin and stdout, and nothing else on it.

While it serves, what anything prints goes to stderr, and what anything reads is empty. Two threads of the process do
the blocking reads and writes: they die with it, so that a client which neither speaks nor leaves holds nothing up.
Knows no message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

_LOG = logging.getLogger("retinue.ingress")
_CHUNK = 65_536
_LONGEST = 4 * 1024 * 1024
"""Bytes of one message; a longer one is dropped and answered as one that cannot be read."""


async def serve_stdio(server: Server[Any]) -> None:
    """Serve the one client of this process until it closes its end."""
    loop = asyncio.get_running_loop()
    with _wire() as (incoming, outgoing):
        lines, pen = cast(Any, _Lines(incoming, loop)), cast(Any, _Pen(outgoing, loop))
        try:
            async with stdio_server(lines, pen) as (read, write):
                await server.run(read, write, server.create_initialization_options())
        except* (BrokenPipeError, ConnectionResetError):
            _LOG.info("the client has left")


@contextmanager
def _wire() -> Iterator[tuple[int, int]]:
    """Both ends as descriptors that nobody else has, and harmless ones in their place."""
    sys.stdout.flush()
    incoming, outgoing, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    try:
        yield incoming, outgoing
    finally:
        sys.stdout.flush()
        os.dup2(incoming, 0)
        os.dup2(outgoing, 1)


class _Lines:
    """Lines of UTF-8 as they come; ends with the other side."""

    def __init__(self, incoming: int, loop: asyncio.AbstractEventLoop) -> None:
        self._incoming = incoming
        self._loop = loop
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=8)
        Thread(target=self._read, name="retinue-mcp-in", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        rest, dropping = b"", False
        while chunk := await self._chunks.get():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield "" if dropping else line.decode(errors="replace")
                dropping = False
            if len(rest) > _LONGEST:
                rest, dropping = b"", True

    def _read(self) -> None:
        chunk = b"x"
        while chunk:
            try:
                chunk = os.read(self._incoming, _CHUNK)
            except OSError:
                chunk = b""
            try:
                asyncio.run_coroutine_threadsafe(self._chunks.put(chunk), self._loop).result()
            except (RuntimeError, asyncio.CancelledError):
                return


class _Pen:
    """Writes text, whole and in order; BrokenPipeError when nobody reads it any more."""

    def __init__(self, outgoing: int, loop: asyncio.AbstractEventLoop) -> None:
        self._outgoing = outgoing
        self._loop = loop
        self._texts: SimpleQueue[tuple[bytes, asyncio.Future[None]]] = SimpleQueue()
        Thread(target=self._write, name="retinue-mcp-out", daemon=True).start()

    async def write(self, text: str) -> None:
        """Return when it was taken."""
        taken: asyncio.Future[None] = self._loop.create_future()
        self._texts.put((text.encode(), taken))
        await taken

    async def flush(self) -> None:
        """Everything was written when `write` returned."""

    def _write(self) -> None:
        while True:
            data, taken = self._texts.get()
            error: OSError | None = None
            try:
                while data:
                    data = data[os.write(self._outgoing, data) :]
            except OSError as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(_settle, taken, error)
            except RuntimeError:
                return


def _settle(taken: asyncio.Future[None], error: OSError | None) -> None:
    if taken.done():
        return
    if error is None:
        taken.set_result(None)
    else:
        taken.set_exception(error)
