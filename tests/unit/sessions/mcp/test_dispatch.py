"""What the dispatcher does beside the SDK's: a result that does not name its kind is a complete one."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.jsonrpc import JSONRPCResponse

from retinue.sessions.mcp.dispatch import NumberedDispatcher

NEW = {"_meta": {PROTOCOL_VERSION_META_KEY: "2026-07-28"}}


@pytest.mark.parametrize(
    ("params", "result", "kind"),
    [
        (NEW, {"content": []}, "complete"),
        (NEW, {"content": [], "resultType": "input_required"}, "input_required"),
        ({}, {"content": []}, None),
        (None, {"content": []}, None),
    ],
)
async def test_a_result_without_a_kind_is_complete(
    params: dict[str, Any] | None, result: dict[str, Any], kind: str | None
) -> None:
    to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](1)
    theirs, from_us = anyio.create_memory_object_stream[SessionMessage](1)
    dispatcher = NumberedDispatcher(ours, theirs, lambda: None)

    async def ignore(*_: Any) -> Any:
        return {}

    running = asyncio.create_task(dispatcher.run(ignore, ignore))
    asking = asyncio.create_task(dispatcher.send_raw_request("tools/call", params))
    asked = (await from_us.receive()).message
    reply = JSONRPCResponse(jsonrpc="2.0", id=asked.id, result=result)  # type: ignore[union-attr]
    await to_us.send(SessionMessage(reply))
    assert (await asking).get("resultType") == kind
    to_us.close()
    await running
    for stream in (ours, theirs, from_us):
        stream.close()
