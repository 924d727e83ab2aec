"""What is called and for whom, as the protocol's request, and the server's answer as a result.

Plain translations: owns the names of what Retinue adds to a request. Knows no connection and no time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import mcp_types as types
from pydantic import TypeAdapter

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentError
from retinue.sessions.connections import Pinned, RemoteResult
from retinue.sessions.mcp.faults import MAX_TEXT
from retinue.sessions.mcp.handshake import Hashes
from retinue.sessions.mcp.tasks import TaskBegun
from retinue.sessions.mcp.texts import hide, one_line
from retinue.sessions.servers import Server

KEY_META = "retinue/idempotencyKey"
"""Of a request's `_meta`: the stable key of the effect."""

Outcome = types.CallToolResult | types.InputRequiredResult | TaskBegun

OUTCOME: TypeAdapter[Outcome] = TypeAdapter(TaskBegun | types.InputRequiredResult | types.CallToolResult)
"""What the answer to a call may be. Tried in this order: a task and a question carry their own tag."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be called, and for whom."""

    server: Server
    tool: str
    arguments: dict[str, Json]
    caller: Caller

    @property
    def seconds(self) -> float:
        """What the call may take of the server's time."""
        return self.server.override(self.tool).timeout or self.server.timeout

    @property
    def where(self) -> str:
        """For messages."""
        return f"tool {self.tool!r} of server {self.server.name!r}"


def call_request(
    order: Order, responses: types.InputResponses | None = None, state: str | None = None
) -> types.CallToolRequest:
    """The request of a call, with its key and its place in the trace."""
    arguments = dict(order.arguments)
    key_argument = order.server.override(order.tool).key_argument
    if key_argument is not None:
        arguments.setdefault(key_argument, order.caller.key)
    meta = {"traceparent": order.caller.traceparent, KEY_META: order.caller.key}
    params = {"name": order.tool, "arguments": arguments, "_meta": meta, "requestState": state}
    request = types.CallToolRequestParams.model_validate(params, by_alias=True)
    if responses is not None:
        request = request.model_copy(update={"input_responses": responses})
    return types.CallToolRequest(params=request)


def read_result(order: Order, result: types.CallToolResult, secrets: Collection[str]) -> RemoteResult:
    """The result as JSON. PermanentError (`raised`) with the server's own words when the tool failed."""
    if result.is_error:
        said = " ".join(block.text for block in result.content if isinstance(block, types.TextContent))
        text = hide(one_line(said, MAX_TEXT), secrets) or "the server says that it failed, and not why"
        raise PermanentError(f"{order.where} failed: {text}", code="raised")
    content = (block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content)
    return RemoteResult(content=tuple(content), structured=result.structured_content)


def is_pinned(tool: str, hashes: Hashes | None, pins: Pinned) -> bool:
    """Whether the server lists the tool as it was approved."""
    found = hashes.tools.get(tool) if hashes is not None else None
    return bool(found) and found == pins.tools.get(tool)
