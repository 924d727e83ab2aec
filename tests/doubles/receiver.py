"""A webhook's receiver on the loopback: real HTTP/1.1, every post kept, statuses as planned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Posted:
    """One post as it came. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """`statuses` are used in turn, then 200 for ever; while `silent` nothing is answered."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    silent: bool = False
    posts: list[Posted] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver that listens; `port` 0 takes a free one."""
    made = Receiver()
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                made.posts.append(await _read(reader))
                made.came.set()
                if made.silent:
                    await asyncio.Event().wait()
                status = made.statuses.pop(0) if made.statuses else 200
                writer.write(f"HTTP/1.1 {status} Planned\r\ncontent-length: 2\r\n\r\nok".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/s3cr3t"
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Posted:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Posted(first.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"])))
