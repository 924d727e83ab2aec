"""The SDK's dispatcher, with ids that callers know and an end that somebody hears of.

Owns the numbering of requests: a request can only be cancelled, or be taken up again, by who knows its id. Knows no
method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio.abc
from anyio import TASK_STATUS_IGNORED
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types import PROTOCOL_VERSION_META_KEY

from retinue.sessions.mcp.pending import CALL


def _in_new_world(params: Mapping[str, Any] | None) -> bool:
    return PROTOCOL_VERSION_META_KEY in ((params or {}).get("_meta") or {})


class NumberedDispatcher(JSONRPCDispatcher[TransportContext]):
    """One for each connection."""

    def __init__(self, reading: Any, writing: Any, ended: Callable[[], None]) -> None:
        super().__init__(reading, writing)
        self._ended = ended
        self._last = 0

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: str | int | None = None,
    ) -> dict[str, Any]:
        """As the SDK's, under a number of ours; a stream that is read on speaks of the number it had before.

        A result of 2026-07-28 that does not say so is complete.
        """
        options = opts if opts is not None else CallOptions()
        call = CALL.get()
        if call is not None and call.resumed_id is not None:
            options["request_id"] = call.resumed_id
        elif "request_id" not in options:
            self._last += 1
            options["request_id"] = self._last
        if call is not None:
            call.request_id = options["request_id"]
        said = await super().send_raw_request(method, params, options, _related_request_id=_related_request_id)
        return {"resultType": "complete", **said} if _in_new_world(params) else said

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """As the SDK's; says so when it has ended."""
        try:
            await super().run(on_request, on_notify, on_notify_intercept, task_status=task_status)
        finally:
            self._ended()
