"""What is noted of one call while its request is on its way: who made it, and what of its stream can be taken up again.

The wire finds it through a context variable, since libraries lie between the caller and the stream. Knows no bytes.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trail:
    """The trail of a request over HTTP. `events` counts the ids seen; `before` has, for a request that the server made
    on this stream, the id of the event before it: reading on from there delivers it again. `resuming`: it is read on.
    """

    last_event: str | None = None
    events: int = 0
    before: dict[str, str | None] = field(default_factory=dict)
    too_large: bool = False
    resuming: bool = False

    def note_event(self, event_id: str) -> None:
        """The stream has come to this event."""
        self.last_event = event_id
        self.events += 1

    def note_request(self, request_id: str) -> None:
        """The server asks something on this stream."""
        self.before.setdefault(request_id, self.last_event)


TRAIL: ContextVar[Trail | None] = ContextVar("retinue_mcp_trail", default=None)
"""The trail of the call whose request is being sent or read."""
