"""A call that is under way on a connection, whether somebody waits for it or not.

While a person thinks, the run that made the call is parked and nobody waits; the call stays here with its question.
Owns the questions of a call and the time it was worked on. Knows no request and no token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED

from retinue.runs.sessions import Link, Question, Reply
from retinue.sessions.mcp.texts import clean
from retinue.sessions.mcp.trail import TRAIL, Trail

MAX_ASKED = 64
"""Questions of one call over all its rounds."""

MAX_PROGRESS = 500
"""Characters of what a server says of its progress."""

CANCEL_WAIT = 0.5
"""Seconds that a cancelled request has to tell the server so, before nobody waits for that."""


@dataclass(slots=True)
class Asked:
    """A question that waits for its reply."""

    question: Question
    reply: asyncio.Future[Reply]


@dataclass(slots=True)
class Pending:
    """One call. `key` is its idempotency key, `spent` the seconds that were waited for it, `task` its request."""

    key: str
    run_id: str
    tool: str
    trail: Trail = field(default_factory=Trail)
    request_id: int | str | None = None
    resumed_id: int | str | None = None
    link: Link | None = None
    spent: float = 0.0
    open: dict[str, Asked] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: int = 0
    task: asyncio.Task[Any] | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self, send: Callable[[], Awaitable[Any]]) -> None:
        """Begin its request, in a task of its own."""
        self.task = asyncio.create_task(self._run(send), name=f"mcp call {self.tool}")
        self.task.add_done_callback(self._notice)

    async def ask(self, question: Question) -> Reply:
        """The reply to a question of the server, whenever it comes; at once where it is known already."""
        known = self.replies.pop(question.key, None)
        if known is not None:
            return known
        self.asked += 1
        asked = Asked(question, asyncio.get_running_loop().create_future())
        self.open[question.key] = asked
        self.news.set()
        try:
            return await asked.reply
        finally:
            self.open.pop(question.key, None)

    def answer(self, replies: Mapping[str, Reply]) -> None:
        """Pass on what was replied."""
        for key, reply in replies.items():
            asked = self.open.pop(key, None)
            if asked is not None and not asked.reply.done():
                asked.reply.set_result(reply)

    async def follow(self, seconds: float) -> Any | None:
        """What the request returned, or None when the server asks something. TimeoutError when its time is spent.

        Raises what the request raised, MCPError when it was given up from elsewhere. Cancellation and TimeoutError
        leave the request to the caller's `stop`.
        """
        assert self.task is not None
        if not self.task.done() and not self.open:
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(max(0.0, seconds - self.spent)):
                    while not self.task.done() and not self.open:
                        self.news.clear()
                        await self.news.wait()
            finally:
                self.spent += loop.time() - began
        if self.task.cancelled():
            raise MCPError(CONNECTION_CLOSED, "the connection was closed")
        return self.task.result() if self.task.done() else None

    async def settles_within(self, seconds: float) -> bool:
        """Whether it returns, fails or asks something soon."""
        if self.task is not None and not self.task.done() and not self.open:
            loop = asyncio.get_running_loop()
            began = loop.time()
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.news.wait()
            self.spent += loop.time() - began
        return bool(self.open) or self.task is None or self.task.done()

    async def stop(self) -> None:
        """Give the request up, and tell the server where the wire allows."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=CANCEL_WAIT)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """The server says how far it is."""
        if self.link is not None:
            self.link.progress(progress, total, clean(message or "", MAX_PROGRESS))

    async def _run(self, send: Callable[[], Awaitable[Any]]) -> Any:
        CALL.set(self)
        TRAIL.set(self.trail)
        return await send()

    def _notice(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()
        self.news.set()


CALL: ContextVar[Pending | None] = ContextVar("retinue_mcp_call", default=None)
"""The call in whose name a request is sent, or a request of the server arrives."""
