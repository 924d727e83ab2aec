"""Server-sent events as they pass: their size, their ids, and which of them are requests of the server.

Owns a scanner that changes nothing. Knows the format of events and the two methods that ask a person or a model.
"""

from __future__ import annotations

import json

from retinue.sessions.mcp.trail import Trail

ASKS = (b"elicitation/create", b"sampling/createMessage", b"roots/list")
"""Methods of requests that a server makes while a call is open."""


class EventScanner:
    """Follows one stream of events. `count` is the events so far, `pending` the bytes of the one that is arriving."""

    def __init__(self, trail: Trail | None) -> None:
        self._trail = trail
        self._begun: list[bytes] = []
        self._held = b""
        self._data: list[bytes] = []
        self._id: str | None = None
        self.pending = 0
        self.count = 0

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the stream."""
        self.pending += len(chunk)
        text = self._held + chunk
        self._held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *lines = text.split(b"\n")
        self._begun.append(first)
        if not lines:
            return
        whole, self._begun = b"".join(self._begun), [lines[-1]]
        for line in (whole, *lines[:-1]):
            self._take(line)

    def _take(self, line: bytes) -> None:
        if not line:
            self._end()
        elif self._trail is not None:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
            elif name == b"id" and b"\0" not in value:
                self._id = value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.pending = len(self._begun[0]) + len(self._held)
        self.count += 1
        data, self._data = b"\n".join(self._data), []
        event, self._id = self._id, None
        if self._trail is None:
            return
        if any(method in data for method in ASKS) and (request := _request_id(data)) is not None:
            self._trail.note_request(request)
        if event:
            self._trail.note_event(event)


def _request_id(data: bytes) -> str | None:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(message, dict) and "method" in message and isinstance(message.get("id"), int | str):
        return str(message["id"])
    return None
