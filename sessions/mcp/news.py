"""What a server says without being asked: that its tools have changed.

The older world sends notifications; 2026-07-28 only tells who listens. Owns the listener of one connection. Knows that
something changed, not what.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack

import mcp_types as types
from mcp import MCPError
from mcp.client import ClientSession
from mcp.client.subscriptions import SubscriptionLost, ToolsListChanged, listen

ACKNOWLEDGED = 5.0
"""Seconds for a server to say that it will tell."""

AGAIN = (1.0, 5.0, 30.0, 120.0)
"""Seconds before the next try to listen, after each loss; then it is not tried any more."""


class Newsreader:
    """Calls `changed` when the list of tools is not what it was, or may not be."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    async def receive(self, message: types.ServerNotification | Exception) -> None:
        """The session's handler for notifications."""
        if isinstance(message, types.ToolListChangedNotification):
            self._changed()

    async def listen(self, session: ClientSession, stack: AsyncExitStack) -> None:
        """Listen for as long as the stack is open, where the server offers it."""
        capabilities = session.server_capabilities
        tools = capabilities.tools if capabilities is not None else None
        if session.discover_result is None or tools is None or not tools.list_changed:
            return
        task = asyncio.create_task(self._listen(session), name="mcp listener")
        stack.push_async_callback(_end, task)

    async def _listen(self, session: ClientSession) -> None:
        for pause in AGAIN:
            with contextlib.suppress(MCPError, SubscriptionLost, TimeoutError):
                async with listen(session, tools_list_changed=True) as events:
                    async for event in events:
                        if isinstance(event, ToolsListChanged):
                            self._changed()
            self._changed()
            await asyncio.sleep(pause)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=1.0)
