"""What the tests of the wire share: servers to talk with, callers, and a link that remembers what it was told."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.doubles.processes import Other, running

from retinue.runs.capabilities import Caller
from retinue.runs.sessions import Pause, Reply, Resumption, Token, Wire
from retinue.sessions.connections import RemoteResult
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server

DOUBLES = Path(__file__).resolve().parents[3] / "doubles"
TALKER = str(DOUBLES / "wire_servers" / "talker.py")


def caller(key: str = "k1", run_id: str = "r1", tenant: str = "acme") -> Caller:
    return Caller(
        run_id=run_id,
        root_run_id=run_id,
        tenant_id=tenant,
        principal_id="ana",
        agent="clerk",
        route="cli",
        depth=0,
        key=key,
        epoch=1,
        deadline=2**62,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        budget={},
    )


class Keeping:
    """A link that keeps everything it is told."""

    def __init__(self, resumption: Resumption | None = None) -> None:
        self.resumption = resumption
        self.wires: list[Wire] = []
        self.losses: list[str] = []
        self.steps: list[tuple[float, float | None, str]] = []
        self.kept: list[Token | None] = []

    def opened(self, wire: Wire) -> None:
        self.wires.append(wire)

    def lost(self, cause: str) -> None:
        self.losses.append(cause)

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.steps.append((done, total, message))

    async def keep(self, token: Token | None) -> None:
        self.kept.append(token)


def stdio(**changes: Any) -> Server:
    """The talker as a process of this one."""
    given: dict[str, Any] = {"name": "talker", "command": (sys.executable, TALKER, "stdio"), "idle_seconds": 60.0}
    return Server(**{**given, **changes})


def bad(script: str, *arguments: str, **changes: Any) -> Server:
    """One of the servers that misbehave."""
    command = (sys.executable, "-I", str(DOUBLES / "bad_servers" / f"{script}.py"), *arguments)
    return Server(**{"name": "bad", "command": command, "connect_seconds": 5.0, "timeout": 5.0, **changes})


@contextmanager
def talking(port: int = 0, key: str = "") -> Iterator[tuple[Other, int]]:
    """The talker on HTTP; yields the process and its port."""
    with running([TALKER, "http", str(port), key]) as other:
        yield other, int(other.wait_for("ready").split()[1])


def http(port: int, **changes: Any) -> Server:
    given: dict[str, Any] = {"name": "talker", "url": f"http://127.0.0.1:{port}/mcp"}
    return Server(**{**given, **changes})


@asynccontextmanager
async def connections(**changes: Any) -> AsyncIterator[McpConnections]:
    pool = McpConnections(os.environ, **changes)
    try:
        yield pool
    finally:
        await pool.close()


async def call(
    pool: McpConnections, server: Server, tool: str, link: Keeping | None = None, key: str = "k1", **arguments: Any
) -> RemoteResult | Pause:
    return await pool.call(server, tool, arguments, caller(key), link or Keeping(), None)


def text_of(result: RemoteResult | Pause) -> str:
    assert isinstance(result, RemoteResult), result
    text = result.content[0]["text"]
    assert isinstance(text, str)
    return text


def answered(
    pause: RemoteResult | Pause, content: Any = None, action: str = "accept", *, token: bool = True
) -> Keeping:
    """A link for going on with a call, every question replied in the same way."""
    assert isinstance(pause, Pause), pause
    reply = Reply.model_validate({"action": action, "content": content})
    replies = {question.key: reply for question in pause.questions}
    return Keeping(Resumption(pause.token if token else None, replies))
