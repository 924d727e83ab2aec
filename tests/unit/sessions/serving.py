"""A wire that answers from a list, and what the tests of remote tools pin and call over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.sessions import Link, Pause
from retinue.sessions.connections import Listing, Pinned, RemoteResult, ToolDefinition
from retinue.sessions.pins import Lock, PinnedServer, pin
from retinue.sessions.remotes import RemoteTools
from retinue.sessions.servers import Server

AT = "2026-01-02T03:04:05Z"


class Answers:
    """Implements `sessions.connections.Connections`: gives its answers in order and keeps what was sent."""

    def __init__(self, *answers: RemoteResult | Pause | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str, dict[str, Json]]] = []
        self.pins: list[Pinned | None] = []
        self.released: list[tuple[str, bool]] = []
        self.ended: list[tuple[str, str]] = []
        self.closed = 0

    async def list_tools(self, server: Server) -> Listing:
        raise NotImplementedError

    async def call(
        self, server: Server, tool: str, arguments: dict[str, Json], caller: Caller, link: Link, pins: Pinned | None
    ) -> RemoteResult | Pause:
        self.sent.append((server.name, tool, arguments))
        self.pins.append(pins)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def release(self, run_id: str, ended: bool) -> None:
        self.released.append((run_id, ended))

    def end_session(self, run_id: str, server: str) -> None:
        self.ended.append((run_id, server))

    def held_sessions(self) -> list[tuple[str, str]]:
        return []

    async def close(self) -> None:
        self.closed += 1


def definition(name: str, takes: Mapping[str, Json] | None = None, **more: Any) -> ToolDefinition:
    """A tool with these properties, all required."""
    properties = dict(takes or {})
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ToolDefinition(name, more.pop("description", f"Does {name}."), more.pop("input_schema", schema), **more)


def pinned(server: Server, *tools: ToolDefinition) -> PinnedServer:
    return pin(server, Listing(tools, "2026-07-28", {"name": "desk", "version": "1"}), "ana", AT)


def remotes(wire: Answers, *tools: ToolDefinition, **overrides: Any) -> RemoteTools:
    """The tools of one declared and pinned server `desk`."""
    server = Server.model_validate({"name": "desk", "command": ["desk"], "tools": overrides})
    return RemoteTools({"desk": server}, Lock(servers={"desk": pinned(server, *tools)}), wire)


def text(*lines: str) -> RemoteResult:
    return RemoteResult(tuple({"type": "text", "text": line} for line in lines))
