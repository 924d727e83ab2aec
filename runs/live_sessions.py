"""A run's capability sessions in its owner's hands: their statuses follow from the calls that are in flight.

Several calls of one session may be open at once, so nobody sets a status: it is derived, and journaled when it has
changed, with the cause and the step. Every move is one of the table. Knows no wire and no question's meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from retinue.runs.arrivals import News
from retinue.runs.contracts import Json, RunRequest
from retinue.runs.history import History
from retinue.runs.identity import APPROVAL, session_id, step_of
from retinue.runs.journal import Record
from retinue.runs.ports import Services
from retinue.runs.session_past import SESSION
from retinue.runs.sessions import CLOSE, MOVES, Session, SessionRow, SessionStatus, Wire, check_move

PINS_CHANGED = "pins_changed"
"""The cause of a loss that nothing resumes: what is kept was made for other tools."""
Phase = Literal["active", "asking", "approving"]
_S = SessionStatus


@dataclass(frozen=True, slots=True)
class Ways:
    """What the sessions need of the execution they belong to; `keep` sends a row with the next append."""

    request: RunRequest
    services: Services
    history: History
    note: Callable[[Record], None]
    keep: Callable[[SessionRow], None]


@dataclass(slots=True)
class _Live:
    """A session in memory. `fresh`: this owner has not used it; `lost`: its connection is gone; `other`: the server has
    other tools than were approved; `stops` end the calls in flight when a person closes it.
    """

    phases: dict[str, Phase] = field(default_factory=dict)
    fresh: bool = True
    lost: bool = False
    other: bool = False
    stops: dict[str, Callable[[], None]] = field(default_factory=dict)


class Sessions:
    """The sessions of one execution. Costs nothing until a call goes to a server."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._past = ways.history.remote
        self._live: dict[str, _Live] = {}
        self.ended = False

    @property
    def used(self) -> bool:
        """Whether the run has dealt with any server."""
        return bool(self._past.sessions)

    def get(self, server: str) -> Session | None:
        """The open session with a server."""
        found = self._past.sessions.get(server)
        return None if found is None or found.status is _S.closed else found

    def is_open(self, session: str) -> bool:
        """Whether the session of this id is open."""
        return any(each.session_id == session for each in self._past.open())

    # -- what calls do -------------------------------------------------------------------------------------

    def enter(self, server: str, key: str, phase: Phase, cause: str) -> Session:
        """A call of this step is in a phase from now on; the first one opens the session."""
        live = self._of(server)
        if self.get(server) is None:
            self._open(server, key, cause)
        live.phases[key] = phase
        live.fresh = live.fresh and phase != "active"
        self._derive(server, cause, key)
        return self._past.sessions[server]

    def leave(self, server: str, key: str, cause: str) -> None:
        """The call of this step is not in flight any more."""
        live = self._of(server)
        live.stops.pop(key, None)
        if live.phases.pop(key, None) is not None and self.get(server) is not None:
            self._derive(server, cause, key)

    def interrupted(self, server: str, key: str) -> None:
        """The call of this step was in flight when an earlier owner died, and the connection with it."""
        if self.get(server) is not None and self._of(server).fresh:
            self.lost(server, key, "its owner died")

    def connected(self, server: str, key: str, wire: Wire) -> None:
        """There is a connection, a new one or one that changed."""
        session = self.get(server)
        if session is None:
            return
        live, known = self._of(server), wire
        if not self._ways.services.defaults.sessions.track_session_ids:
            known = wire.model_copy(update={"session_id": None})
        cause = "resumed" if session.status is _S.resumable else "reopened" if session.wire else "connected"
        if live.lost or session.wire != known:
            live.lost = live.other = False
            changed = session.wire != known
            self._past.sessions[server] = session.model_copy(update={"wire": known})
            if not self._derive(server, cause, key) and changed:
                self._note(self._past.sessions[server], self._past.sessions[server].status, cause, key)

    def lost(self, server: str, key: str | None, cause: str) -> None:
        """The connection is gone, or no longer good."""
        if self.get(server) is not None:
            live = self._of(server)
            live.lost, live.other = True, cause == PINS_CHANGED
            self._derive(server, cause, key)

    def approval(self, server: str, state: str) -> None:
        """Where the newest approval of a call of the server stands."""
        session = self.get(server)
        if session is not None and session.approval != state:
            self._past.sessions[server] = session.model_copy(update={"approval": state})
            self.touch(server)

    def touch(self, server: str) -> None:
        """What is kept of the session beside its status has changed: its row goes with the next append."""
        session = self._past.sessions.get(server)
        if session is not None:
            self._ways.keep(SessionRow(session, self._ways.request.trace_id, self._past.tokens(server)))

    def stoppable(self, server: str, key: str, stop: Callable[[], None]) -> None:
        """What ends the call of this step when a person closes its session."""
        self._of(server).stops[key] = stop

    # -- what others do ------------------------------------------------------------------------------------

    def hear(self, news: News) -> None:
        """Act on what people said of sessions."""
        for event in news.events:
            if event.name == CLOSE and isinstance(event.value, dict):
                wanted, by = event.value.get("session_id"), event.value.get("by")
                for session in self._past.open():
                    if session.session_id == wanted:
                        self._close(session.server, f"closed by {by}")
                        self._ways.services.gateway.end_session(self._ways.request.run_id, session.server)

    def end(self) -> None:
        """The run ends: close what is open, in the same append."""
        self.ended = True
        for session in self._past.open():
            self._close(session.server, "the run ended")

    # -- inside --------------------------------------------------------------------------------------------

    def _of(self, server: str) -> _Live:
        if server not in self._live:
            session = self.get(server)
            gone = session is not None and session.status in (_S.resumable, _S.reinitialize_required)
            other = session is not None and gone and session.cause == PINS_CHANGED
            self._live[server] = _Live(self._before(server), lost=gone, other=other)
        return self._live[server]

    def _before(self, server: str) -> dict[str, Phase]:
        """The phases of the calls that waited when an earlier owner let go of the run."""
        session = self.get(server)
        if session is None:
            return {}
        phases: dict[str, Phase] = {
            key: "asking" for key, call in self._past.calls.items() if call.server == server and call.paused
        }
        history = self._ways.history
        for key, intent in history.intents.items():
            if key.endswith(APPROVAL) and key not in history.outcomes and intent.facts.get("server") == server:
                phases[step_of(key)] = "approving"
        return phases

    def _open(self, server: str, key: str, cause: str) -> None:
        before = self._past.sessions.get(server)
        number, now = 0 if before is None else before.number + 1, self._ways.services.now_ns()
        made = session_id(self._ways.request.run_id, server, number)
        session = Session(session_id=made, server=server, number=number, opened_at=now, changed_at=now)
        self._note(session, None, cause, key)

    def _derive(self, server: str, cause: str, key: str | None) -> bool:
        """Journal the status if it is another one now. What the table does not have leads through `in_progress`."""
        session = self._past.sessions[server]
        wanted = self._status(server)
        if wanted is session.status:
            return False
        if wanted not in MOVES[session.status] and session.status is not _S.in_progress:
            self._move(server, _S.in_progress, cause, key)
        self._move(server, wanted, cause, key)
        return True

    def _status(self, server: str) -> SessionStatus:
        live = self._live[server]
        phases = live.phases.values()
        resumable = bool(live.lost and not live.other and self._past.tokens(server))
        if live.lost and not resumable:
            return _S.reinitialize_required
        if "approving" in phases:
            return _S.waiting_for_approval
        if "asking" in phases:
            return _S.waiting_for_input
        return _S.resumable if resumable else _S.in_progress

    def _close(self, server: str, cause: str) -> None:
        self._move(server, _S.closed, cause, None)
        live = self._live.pop(server, None)
        for stop in live.stops.values() if live is not None else ():
            stop()

    def _move(self, server: str, wanted: SessionStatus, cause: str, key: str | None) -> None:
        session = self._past.sessions[server]
        if wanted is session.status:
            return
        check_move(session.session_id, session.status, wanted)
        now = self._ways.services.now_ns()
        changes: dict[str, Any] = {"status": wanted, "changed_at": now}
        if wanted is _S.closed:
            changes["closed_at"] = now
        self._note(session.model_copy(update=changes), session.status, cause, key)

    def _note(self, session: Session, before: SessionStatus | None, cause: str, key: str | None) -> None:
        """Put a session on record as it is now; `before` is the status it had."""
        session = session.model_copy(update={"cause": cause})
        facts: dict[str, Json] = session.model_dump(mode="json") | {"before": before, "key": key}
        self._ways.note(Record(at=self._ways.services.now_ns(), topic=SESSION, by="runtime", facts=facts))
        self.touch(session.server)
