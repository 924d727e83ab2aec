"""Server-sent events, decoded from bytes as they arrive (WHATWG HTML, section 9.2.6).

Owns the line and field rules of the event stream. Knows no connection and no model: it is fed chunks cut
anywhere, also inside a character or a line end, and gives back whole events.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: `name` is "message" when the stream names none, `data` its lines joined by newlines."""

    name: str
    data: str


class Decoder:
    """Feed it chunks; it returns the events that are complete. An unfinished last event is dropped."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._name = ""
        self._data: list[str] = []
        self._after_return = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end inside `chunk`."""
        if self._after_return and chunk.startswith(b"\n"):
            chunk, self._after_return = chunk[1:], False
        if not chunk:
            return []
        self._after_return = chunk.endswith(b"\r")
        head, *rest = _LINE_END.split(chunk)
        self._line.append(head)
        events: list[Event] = []
        for piece in rest:
            line, self._line = b"".join(self._line), [piece]
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    def _take(self, line: bytes) -> Event | None:
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            return self._dispatch()
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, "\n".join(data)) if data else None
