"""What remote capabilities need of the wire: the port to connections with servers, and what goes over it.

Owns the shapes of a listing and of a result. Knows no protocol and no transport: those implement it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.sessions import Link, Pause
from retinue.sessions.servers import Server


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as its server describes it. All of it is the server's word: hints and text, not truth."""

    name: str
    description: str
    input_schema: dict[str, Json]
    output_schema: dict[str, Json] | None = None
    annotations: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server says of itself: its tools, the protocol that was agreed, who it says it is, what it can."""

    tools: tuple[ToolDefinition, ...]
    protocol: str
    server_info: dict[str, Json] = field(default_factory=dict)
    capabilities: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pinned:
    """What was approved of a server: the hash of each tool's definition by its name, and that of the names."""

    tools: Mapping[str, str]
    names: str


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """What a server returned: content blocks as JSON, the structured value where there is one."""

    content: tuple[dict[str, Json], ...]
    structured: Json | None = None
    is_error: bool = False

    @property
    def text(self) -> str:
        """Its text blocks, a line apart."""
        return "\n".join(str(block.get("text", "")) for block in self.content if block.get("type") == "text")

    @property
    def only_text(self) -> bool:
        """Whether all its blocks are text."""
        return all(block.get("type") == "text" for block in self.content)


class Connections(Protocol):
    """The connections of one process and event loop: caches, made when they are needed, which may die at any time."""

    async def list_tools(self, server: Server) -> Listing:
        """All tools of a server, over a connection of their own, within `connect_seconds`. TransientError otherwise."""
        ...

    async def call(
        self, server: Server, tool: str, arguments: dict[str, Json], caller: Caller, link: Link, pins: Pinned | None
    ) -> RemoteResult | Pause:
        """Call a tool, or go on with a call as the link says.

        Raises TransientError (`timeout`, `lost`: it may have happened; `not_made`: it has not) or PermanentError
        (`pin_changed`, `too_large`, `protocol`).
        """
        ...

    async def release(self, run_id: str, ended: bool) -> None:
        """This process executes a run no longer; what only it used is closed when it ended, else when it is idle."""
        ...

    def end_session(self, run_id: str, server: str) -> None:
        """The run's session with this server was closed: let go of what only it used there. Does not wait."""
        ...

    def held_sessions(self) -> Collection[tuple[str, str]]:
        """(run, server) of what is held for single runs: connections, and calls that nobody waits for."""
        ...

    async def close(self) -> None:
        """Close all of them."""
        ...
