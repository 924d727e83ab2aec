"""What a call in progress on a server is continued with: the content of tokens, a union tagged by `kind`.

All of it is a credential of the session, sealed by whoever keeps it. Knows the shapes, not how they are used.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import TransientError
from retinue.runs.sessions import Token


class RetryToken(Frozen):
    """A call that is made again with replies (2026-07-28), or (`pages`) as it was, after pages were visited.

    Sent twice it is carried out twice. `round` counts how often the server has asked; `requests` are its own words.
    """

    kind: Literal["mrtr"] = "mrtr"
    state: str | None = None
    requests: dict[str, Json] = Field(default_factory=dict)
    pages: bool = False
    round: int = 1


class TaskToken(Frozen):
    """A task on the server. `answered` are the keys of questions that it has been told the replies to."""

    kind: Literal["task"] = "task"
    task_id: str
    requests: dict[str, Json] = Field(default_factory=dict)
    answered: tuple[str, ...] = ()
    poll_ms: int | None = None


class StreamToken(Frozen):
    """A stream of an older server over HTTP. Reading it again from after `event_id` delivers what came then, the open
    question among it. `initialized` is what the server said when the session began, `request_id` the call's.
    """

    kind: Literal["sse"] = "sse"
    session_id: str
    event_id: str
    request_id: int | str | None = None
    initialized: dict[str, Json]


Content = RetryToken | TaskToken | StreamToken

_CONTENT: TypeAdapter[Content] = TypeAdapter(Annotated[Content, Field(discriminator="kind")])


def pack(content: Content, *, expires_at: int | None = None) -> Token:
    """As the run keeps it. `expires_at` is Unix ns."""
    once = isinstance(content, RetryToken)
    return Token(content.model_dump(mode="json", exclude_defaults=False), once=once, expires_at=expires_at)


def unpack(token: Token) -> Content:
    """What was packed. TransientError (`lost`) for what this version cannot read."""
    try:
        return _CONTENT.validate_python(token.content)
    except ValidationError as error:
        kind = token.content.get("kind")
        problem = f"the call cannot be continued: its token of kind {kind!r} has {error.error_count()} faults"
        raise TransientError(f"{problem}. It may have happened.", code="lost") from None
