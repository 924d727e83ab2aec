"""Remote capabilities in a process: the servers and the lock of a project, and connections when they are first needed.

What speaks with servers takes most of a second to import: a project without servers never does, and one with servers
does so at its first call, aside from the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING

from retinue.host.settings import Settings
from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.sessions import Link, Pause
from retinue.sessions.connections import Connections, Listing, Pinned, RemoteResult
from retinue.sessions.pins import read_lock
from retinue.sessions.servers import Server

if TYPE_CHECKING:
    from retinue.sessions.remotes import RemoteTools

_WIRE = "retinue.sessions.mcp.pool"


def load_remotes(settings: Settings, connections: Connections) -> RemoteTools | None:
    """The remote tools of a project, from its declarations and its lock; None where it declares no server.

    ConfigError when the lock cannot be used or does not fit the declarations.
    """
    if not settings.capabilities:
        return None
    from retinue.sessions.remotes import RemoteTools

    return RemoteTools(settings.servers, read_lock(settings.folder), connections)


class LateConnections:
    """Connections that come into being with the first call. Implements `sessions.connections.Connections`."""

    def __init__(self) -> None:
        self._made: Connections | None = None

    async def list_tools(self, server: Server) -> Listing:
        """See Connections."""
        return await (await self._real()).list_tools(server)

    async def call(
        self, server: Server, tool: str, arguments: dict[str, Json], caller: Caller, link: Link, pins: Pinned | None
    ) -> RemoteResult | Pause:
        """See Connections."""
        return await (await self._real()).call(server, tool, arguments, caller, link, pins)

    async def release(self, run_id: str, ended: bool) -> None:
        """See Connections."""
        if self._made is not None:
            await self._made.release(run_id, ended)

    def end_session(self, run_id: str, server: str) -> None:
        """See Connections."""
        if self._made is not None:
            self._made.end_session(run_id, server)

    def held_sessions(self) -> Collection[tuple[str, str]]:
        """See Connections."""
        return self._made.held_sessions() if self._made is not None else ()

    async def close(self) -> None:
        """See Connections."""
        if self._made is not None:
            await self._made.close()

    async def _real(self) -> Connections:
        if self._made is None:
            wire = await asyncio.to_thread(import_module, _WIRE)
            self._made = self._made or wire.McpConnections(os.environ)
        return self._made
