"""Capability sessions: a run's relation with a server of capabilities, as durable state.

Owns the statuses and their moves, and how a call in progress speaks with its run. Knows no wire: what a token means is
the business of the room that made it.

The connection behind a session is a cache of some process; the session belongs to the run and is in its journal. It is
opened by the run's first call to a server and closed when the run ends. What a server says or keeps silent about moves
it; running out of time is one of the ordinary moves.

                        asked ┌──────────────────────┐ answered
                     ┌───────▶│ waiting_for_input    ├───────┐
      opened         │        │ waiting_for_approval │       │
    ─────────▶ in_progress ◀──┴──────────┬───────────┴───────┘
                │  ▲  │ ▲                │ lost, with a token │ lost, without
     lost, no   │  │  │ └── resumed ── resumable             │
     token      │  │  └────── lost ──────▲ │ expired           │
                ▼  │ reopened              ▼                   ▼
             reinitialize_required ◀──────────────────────────┘            all of them ── closed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import RetinueError


class SessionStatus(StrEnum):
    """Where a capability session stands."""

    in_progress = "in_progress"
    waiting_for_input = "waiting_for_input"
    waiting_for_approval = "waiting_for_approval"
    resumable = "resumable"
    reinitialize_required = "reinitialize_required"
    closed = "closed"


_S = SessionStatus
_WAITS = frozenset({_S.waiting_for_input, _S.waiting_for_approval})

MOVES: dict[SessionStatus, frozenset[SessionStatus]] = {
    _S.in_progress: _WAITS | {_S.resumable, _S.reinitialize_required, _S.closed},
    _S.waiting_for_input: frozenset({_S.in_progress, _S.resumable, _S.reinitialize_required, _S.closed}),
    _S.waiting_for_approval: frozenset({_S.in_progress, _S.resumable, _S.reinitialize_required, _S.closed}),
    _S.resumable: _WAITS | {_S.in_progress, _S.reinitialize_required, _S.closed},
    _S.reinitialize_required: frozenset({_S.in_progress, _S.closed}),
    _S.closed: frozenset(),
}


CLOSE = "retinue.session.close"
"""The event by which a person closes a session: {"session_id", "by"}; the run's owner acts on it."""


class IllegalSessionMove(RetinueError):
    """A move that the table does not have; names the session and both statuses."""


def check_move(session_id: str, found: SessionStatus, wanted: SessionStatus) -> None:
    """Raise IllegalSessionMove unless the table allows the move."""
    if wanted not in MOVES[found]:
        allowed = ", ".join(sorted(MOVES[found])) or "nothing: it is closed"
        raise IllegalSessionMove(
            f"capability session {session_id} is {found} and cannot become {wanted}; from {found}: {allowed}"
        )


class Wire(Frozen):
    """What is known of the connection behind a session. `session_id` is the wire's own, where there is one; `pins` is
    the digest of the tool definitions that were found; `expires_at` is Unix ns, `expires_from` says who disclosed it.
    """

    server: str
    transport: Literal["stdio", "http"]
    scope: Literal["run", "worker", "shared"] = "worker"
    protocol: str = ""
    session_id: str | None = None
    pins: str = ""
    expires_at: int | None = None
    expires_from: str = ""


class SessionPolicy(Frozen):
    """What is kept of sessions and done about them (`capability_sessions:`).

    Without `track_session_ids` the wire's own id of a session is not stored, without `emit_progress_events` a call's
    progress is not journaled, without `support_reinit_on_expiry` a call whose session must begin anew fails.
    """

    track_session_ids: bool = True
    emit_progress_events: bool = True
    support_reinit_on_expiry: bool = True


EVERYTHING = SessionPolicy()


class Session(Frozen):
    """A capability session as its run's journal has it: the run's newest with a server.

    `number` counts the run's sessions with this server from 0. `approval` is where the newest approval of a call stands
    (`pending`, `approved`, `denied`, `expired`, empty: none was asked). `wire` is None until there was a connection.
    Times are Unix ns.
    """

    session_id: str
    server: str
    number: int = 0
    status: SessionStatus = SessionStatus.in_progress
    cause: str = ""
    approval: str = ""
    wire: Wire | None = None
    opened_at: int
    changed_at: int
    closed_at: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What the store keeps of a session beside the journal. `tokens` by step key are credentials: they are sealed."""

    session: Session
    trace_id: str
    tokens: Mapping[str, Json]


class Question(Frozen):
    """What a server must be told before a call goes on; `key` names it within its round.

    `asked` is for `form` {"schema": JSON Schema}, for `url` {"url", "id"}, for `sampling` the request's parameters.
    """

    key: str
    kind: Literal["form", "url", "sampling"]
    message: str
    asked: dict[str, Json] = Field(default_factory=dict)


class Reply(Frozen):
    """What came back for a question. `content` is for `form` the values, for `sampling` what the model said."""

    action: Literal["accept", "decline", "cancel"]
    content: Json = None


@dataclass(frozen=True, slots=True)
class Token:
    """What a call that is in progress on a server can be continued with, in any process.

    `content` is a credential, kept sealed; its field `kind` is `mrtr`, `task` or `sse`. `once`: it must not be used
    twice. `expires_at` is Unix ns where the server discloses it.
    """

    content: dict[str, Json]
    once: bool = False
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Instead of a result: the call goes on when these questions are answered.

    Without a token it goes on only in this process, for as long as the connection lives.
    """

    questions: tuple[Question, ...]
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a call that was begun before goes on: with the token that was kept, and what was replied, by question key."""

    token: Token | None
    replies: Mapping[str, Reply]


class Link(Protocol):
    """How a call in progress speaks with its run. Given to a call that goes to a server."""

    @property
    def resumption(self) -> Resumption | None:
        """How the call goes on; None for one that begins."""
        ...

    def opened(self, wire: Wire) -> None:
        """The call has a connection: a new one, or one that changed."""
        ...

    def lost(self, cause: str) -> None:
        """The connection is gone, or no longer good, for this reason: the next call has to begin anew."""
        ...

    def progress(self, done: float, total: float | None, message: str) -> None:
        """How far the call is; what comes too often is left out."""
        ...

    async def keep(self, token: Token | None) -> None:
        """Keep what the call can be continued with; durable when this returns. None: it is of no use any more."""
        ...
