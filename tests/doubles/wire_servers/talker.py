"""A server written with the SDK, for the tests of the wire: it speaks both worlds, over stdio or HTTP.

    talker.py stdio [stubborn]
    talker.py http PORT [STATE_KEY]

Over HTTP it keeps events in memory, so that streams can be read on. `ready PORT` is printed when it listens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.server.request_state import RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import (
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestURLParams,
    InputRequiredResult,
    JSONRPCMessage,
    SamplingMessage,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field


class Amount(BaseModel):
    euros: int


class Events(EventStore):
    """Events of all streams in one list; ids are places in it."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        number = int(last_event_id)
        if not 0 < number <= len(self.kept):
            return None
        stream = self.kept[number - 1][0]
        for place, (of, message) in enumerate(self.kept[number:], number + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream


def ask_amount(subject: str) -> Elicit[Amount]:
    return Elicit(f"How much for \x1b[31m{subject}\x1b[0m?", Amount)


def ask_model(subject: str) -> Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=f"Rhyme with {subject}"))
    return Sample([message], max_tokens=20)


def note(path: str, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def slow(seconds: float, context: Context, path: str = "") -> str:
    """Take some time, and say so."""
    note(path, "begun")
    try:
        for part in range(1, 5):
            await context.report_progress(part, 4, f"part \x1b[2J{part}")
            await asyncio.sleep(seconds / 4)
    except BaseException:
        note(path, "cancelled")
        raise
    note(path, "ended")
    return "done"


def order(subject: str, amount: Annotated[Amount, Resolve(ask_amount)], path: str = "") -> str:
    """Order something, once a person said for how much."""
    note(path, f"{subject} {amount.euros}")
    return f"ordered {subject} for {amount.euros}"


def rhyme(subject: str, said: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Let a model rhyme."""
    return said.content.text if isinstance(said.content, TextContent) else "?"


PAGE = ElicitRequestURLParams(message="Sign in", url="https://example.com/sign-in?x=1", elicitation_id="e-1")


async def visit(context: Context, path: str = "") -> str | InputRequiredResult:
    """Have a page visited: asked for as each of the worlds does."""
    note(path, "asked" if context.input_responses is None else "told")
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        said = (await context.elicit_url(PAGE.message, PAGE.url, "e-1")).action
        note(path, "told")
        return said
    if context.input_responses is None:
        return InputRequiredResult(input_requests={"page": ElicitRequest(params=PAGE)}, request_state="asked")
    return str(getattr(context.input_responses["page"], "action", "?"))


def enter(path: str, pages: int = 1) -> str:
    """Only for those who have visited as many pages: each leaves a line `visited`."""
    note(path, "called")
    visited = Path(path).read_text().splitlines().count("visited")
    if visited < pages:
        raise UrlElicitationRequiredError([PAGE.model_copy(update={"elicitation_id": f"e-{visited + 1}"})])
    return "entered"


def routed_by(header: str) -> Any:
    """A tool whose argument is told in a header too."""

    def routed(region: str, path: str = "") -> str:
        note(path, region)
        return region

    routed.__annotations__["region"] = Annotated[str, Field(json_schema_extra={"x-mcp-header": header})]
    return routed


def reroute(header: str) -> str:
    """Have another header for the tool `routed`, and tell nobody."""
    SERVERS[0].remove_tool("routed")
    SERVERS[0].add_tool(routed_by(header), name="routed", description="Route.")
    return header


def fail(word: str) -> str:
    """Fail with words."""
    raise ToolError(f"\x1b[31m{word}\x1b[0m" + "x" * 2000)


def crash() -> str:
    """End the whole server."""
    os._exit(7)


def big(size: int) -> str:
    """Return a long text."""
    return "x" * size


def meta(context: Context) -> dict[str, Any]:
    """What came with the request."""
    return dict(context.request_context.meta or {})


def environment() -> dict[str, str]:
    """What the server was started with."""
    return dict(os.environ)


def pid() -> int:
    """The number of this process."""
    return os.getpid()


def daemon() -> int:
    """Start a process that leaves its group and outlives its parent; its number."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
    return child.pid


async def grow(context: Context, name: str) -> str:
    """Have one more tool, or change one."""
    server = SERVERS[0]

    async def extra() -> str:
        return name

    if name in [tool.name for tool in await server.list_tools()]:
        server.remove_tool(name)
    server.add_tool(extra, name=name, description=f"grown for {context.request_id}")
    await context.request_context.session.send_tool_list_changed()
    await context.notify_tools_changed()
    return name


TOOLS = [add, slow, order, rhyme, visit, enter, reroute, fail, crash, big, meta, environment, pid, daemon, grow]
SERVERS: list[MCPServer] = []


def build(security: RequestStateSecurity | None) -> MCPServer:
    server = MCPServer("talker", version="1.0", log_level="ERROR", request_state_security=security)
    for tool in TOOLS:
        server.add_tool(tool)
    server.add_tool(routed_by("Region"), name="routed", description="Route.")
    SERVERS.append(server)
    return server


def serve(port: int, key: str) -> None:
    security = RequestStateSecurity(keys=[key.encode()]) if key else None
    app = build(security).streamable_http_app(event_store=Events())
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    print("ready", listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        if sys.argv[2:] == ["stubborn"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        build(None).run()
        while sys.argv[2:] == ["stubborn"]:
            time.sleep(60)
    else:
        serve(int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
