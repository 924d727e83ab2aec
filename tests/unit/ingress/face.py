"""The MCP way in of a project that is hosted in this process, and the SDK's own client at the other end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult
from tests.doubles.projects import project
from tests.unit.ingress import shipping

from retinue import Client, connect
from retinue.ingress.mcp.rights import Rights
from retinue.ingress.mcp.server import make_server
from retinue.ingress.mcp.targets import target_tools
from retinue.ingress.mcp.tools import Face
from retinue.runs.contracts import Json

MODES = ("legacy", "2026-07-28")
BOT = Rights(principal="mcp:ana", tenant="default")
REVIEWER = Rights(principal="mcp:rita", tenant="default", others=True, approvals=True)


@dataclass(frozen=True)
class Office:
    """A project and servers of it, one for each principal that is asked for."""

    client: Client

    def server(self, rights: Rights = BOT, keys: Sequence[str] = (), targets: Sequence[str] = ()) -> Server[Any]:
        """What `retinue mcp` serves such a principal."""

        async def client() -> Client:
            return self.client

        tools = target_tools(self.client.project.registry, targets)
        return make_server(Face(rights, client), keys, tools)

    def agent(self, mode: str, rights: Rights = BOT, targets: Sequence[str] = (), **options: Any) -> mcp.Client:
        """An agent elsewhere, to be entered."""
        return mcp.Client(self.server(rights, targets=targets), mode=mode, read_timeout_seconds=30, **options)


@asynccontextmanager
async def open_office(folder: Path, **settings: Any) -> AsyncIterator[Office]:
    """A project of `shipping`, hosted here."""
    made = project(folder, modules=[shipping.MODULE], policy=shipping.POLICY, settings=settings)
    async with connect(settings=made, local=True) as client:
        yield Office(client)


async def ask(agent: mcp.Client, tool: str, **arguments: Json) -> dict[str, Any]:
    """What a tool gives back; fails when that is an error."""
    result = await agent.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refused(agent: mcp.Client, tool: str, **arguments: Json) -> str:
    """What a tool says that refuses."""
    result = await agent.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is not None
    [text] = result.content
    assert text.type == "text"
    assert result.structured_content["error"]["message"] == text.text
    return text.text


def user(*replies: ElicitResult) -> Any:
    """A user at the client who replies in order, and keeps what was asked in `asked`."""
    left = list(replies)

    async def reply(context: Any, asked: ElicitRequestParams) -> ElicitResult:
        reply.asked.append(asked)  # type: ignore[attr-defined]
        return left.pop(0)

    reply.asked = []  # type: ignore[attr-defined]
    return reply
