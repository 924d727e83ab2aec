"""The client that the official suite starts: it calls what a scenario offers, through Retinue's own connections.

    python -m tests.conformance.client URL

The suite names the scenario, the protocol and what is to be called in its environment. Nothing here speaks the
protocol: listing, calling, going on with a call and its questions are `McpConnections`, as a run's gateway uses it;
tools are pinned first, as they are in a project.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

from tests.unit.sessions.mcp.linking import caller

from retinue.runs import forms
from retinue.runs.contracts import Json
from retinue.runs.errors import EffectError
from retinue.runs.sessions import Pause, Question, Reply, Resumption, Token, Wire
from retinue.sessions.connections import Listing, RemoteResult
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.pins import pin
from retinue.sessions.servers import Server

ANY = {"a": 2, "b": 3}


class Keeping:
    """A link to no run: it keeps the token as a journal would."""

    def __init__(self, resumption: Resumption | None = None) -> None:
        self.resumption = resumption
        self.token: Token | None = resumption.token if resumption is not None else None

    def opened(self, wire: Wire) -> None:
        print(f"connected over {wire.transport}, {wire.protocol}", file=sys.stderr)

    def lost(self, cause: str) -> None:
        print(f"lost: {cause}", file=sys.stderr)

    def progress(self, done: float, total: float | None, message: str) -> None:
        print(f"progress {done} of {total} {message}", file=sys.stderr)

    async def keep(self, token: Token | None) -> None:
        self.token = token


class Host:
    """A server as a run has it: its tools are pinned, a call that asks is gone on with."""

    def __init__(self, connections: McpConnections, server: Server, listing: Listing) -> None:
        self._connections = connections
        self._server = server
        self._pins = pin(server, listing, "suite", "2026-01-01T00:00:00Z").pinned
        self._calls = 0
        self.tools = {tool.name: tool for tool in listing.tools}

    async def begin(self, tool: str, arguments: dict[str, Json]) -> tuple[RemoteResult | Pause, str, Token | None]:
        """A call: what came of it, the key it has, and the token it can be gone on with."""
        self._calls += 1
        key, link = f"call-{self._calls}", Keeping()
        said = await self._connections.call(self._server, tool, arguments, caller(key), link, self._pins)
        return said, key, link.token

    async def go_on(
        self, tool: str, arguments: dict[str, Json], key: str, pause: Pause, token: Token | None
    ) -> RemoteResult | Pause:
        """The call again, its questions accepted as a person would who presses enter."""
        replies = {question.key: accepted(question) for question in pause.questions}
        link = Keeping(Resumption(pause.token or token, replies))
        return await self._connections.call(self._server, tool, arguments, caller(key), link, self._pins)

    async def call(self, tool: str, arguments: dict[str, Json] | None = None) -> None:
        """A call to its end, however often it asks."""
        given = dict(arguments or {})
        said, key, token = await self.begin(tool, given)
        while isinstance(said, Pause):
            said = await self.go_on(tool, given, key, said, token)
        print(f"{tool}: {'error ' if said.is_error else ''}{said.text[:200]}", file=sys.stderr)


def accepted(question: Question) -> Reply:
    """What `retinue answer` makes of a form in which nothing was typed but what has to be."""
    schema = question.asked.get("schema")
    wanted = {name: value for name, value in forms.example(schema).items() if name in forms.required(schema)}
    return Reply(action="accept", content=forms.check(schema, wanted))


# -- what the scenarios want ---------------------------------------------------------------------------------


async def call_first(host: Host) -> None:
    for tool in list(host.tools)[:1]:
        await host.call(tool, ANY)


async def call_all(host: Host) -> None:
    for name, tool in host.tools.items():
        await host.call(name, forms.example(tool.input_schema))


async def list_only(host: Host) -> None:
    print(f"listed {', '.join(host.tools) or 'nothing'}", file=sys.stderr)


async def call_told(host: Host) -> None:
    """The calls that the suite names."""
    for one in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await host.call(one["name"], one["arguments"])


async def echo_schema(host: Host) -> None:
    await host.call("json_schema_echo", {"schema": host.tools["json_schema_2020_12_tool"].input_schema})


async def continue_calls(host: Host) -> None:
    """Another call between a question and its answer, and calls that ask with and without a state."""
    said, key, token = await host.begin("test_mrtr_echo_state", {})
    assert isinstance(said, Pause), said
    await host.call("test_mrtr_unrelated")
    await host.go_on("test_mrtr_echo_state", {}, key, said, token)
    await host.call("test_mrtr_no_state")
    await host.call("test_mrtr_no_result_type")


SCENARIOS: dict[str, Callable[[Host], Awaitable[None]]] = {
    "initialize": list_only,
    "tools_call": call_first,
    "elicitation-sep1034-client-defaults": call_all,
    "sse-retry": call_all,
    "request-metadata": list_only,
    "sep-2322-client-request-state": continue_calls,
    "http-standard-headers": call_all,
    "http-custom-headers": call_told,
    "http-invalid-tool-headers": call_all,
    "json-schema-ref-no-deref": list_only,
    "json-schema-2020-12-preservation": echo_schema,
}


async def main(url: str) -> int:
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    version = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    server = Server(name="suite", url=url, protocol="auto" if version == "2026-07-28" else "legacy", timeout=30)
    connections = McpConnections(os.environ)
    try:
        host = Host(connections, server, await connections.list_tools(server))
        await SCENARIOS[scenario](host)
    except EffectError as error:
        print(f"{type(error).__name__} {error.code}: {error}", file=sys.stderr)
        return 1
    finally:
        await connections.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[-1])))
