"""What the journal says of a run's capability sessions, and of calls that were begun on a server and go on. Pure.

Owns the two topics: `session`, a move of a session with its cause; `continuation`, what a call can be continued with
and what it asked. Tokens and questions are content. A call's continuation is forgotten with its outcome.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from retinue.runs.contracts import Json
from retinue.runs.identity import ELICITED, SAMPLED, digest_of
from retinue.runs.journal import Record
from retinue.runs.sessions import Question, Session, SessionStatus, Token

SESSION, CONTINUATION = "session", "continuation"
TOPICS = frozenset({SESSION, CONTINUATION})


@dataclass(frozen=True, slots=True)
class Continuation:
    """A call in progress on a server, as far as it is durable.

    `issue` counts how often it was begun, `round` how often it asked since; `asked` are the questions of the newest
    Pause by the key of their step, `times` how often each was asked in this issue. `paused`: its replies were not sent
    yet. `deadline` (Unix ns) is that of the newest sending.
    """

    session_id: str
    server: str
    token: Token | None = None
    issue: int = 0
    round: int = 0
    asked: tuple[tuple[str, Question], ...] = ()
    times: Counter[str] = field(default_factory=Counter)
    paused: bool = False
    deadline: int = 0

    def keyed(self, step: str, questions: tuple[Question, ...], anew: bool) -> tuple[tuple[str, Question], ...]:
        """The questions with keys: the n-th of a content within one issue has one key, whichever issue it is.

        So a call that was lost and begun `anew` finds what it was told before, and a server that asks twice gets two
        answers.
        """
        times = Counter[str]() if anew else self.times.copy()
        keyed = []
        for question in questions:
            asked = {name: value for name, value in question.asked.items() if name != "id"}
            digest = digest_of([question.kind, question.message, asked])
            mark = SAMPLED if question.kind == "sampling" else ELICITED
            keyed.append((f"{step}{mark}{digest}#{times[digest]}", question))
            times[digest] += 1
        return tuple(keyed)


@dataclass(slots=True)
class SessionPast:
    """The newest session with each server, closed ones too, and the calls that go on, by step key."""

    sessions: dict[str, Session] = field(default_factory=dict)
    calls: dict[str, Continuation] = field(default_factory=dict)

    def add(self, entry: Record) -> None:
        """Take in a record of one of the topics, in journal order."""
        if entry.topic == SESSION:
            session = Session.model_validate({k: v for k, v in entry.facts.items() if k in Session.model_fields})
            self.sessions[session.server] = session
        else:
            key = str(entry.facts["key"])
            known = self.calls.get(key) or Continuation(str(entry.facts["session_id"]), str(entry.facts["server"]))
            self.calls[key] = _continued(known, entry)

    def restart(self, sessions: tuple[Session, ...]) -> None:
        """Begin again from a checkpoint, at which no call is in progress."""
        self.sessions = {session.server: session for session in sessions}
        self.calls.clear()

    def open(self) -> list[Session]:
        """The sessions that are not closed."""
        return [session for session in self.sessions.values() if session.status is not SessionStatus.closed]

    def tokens(self, server: str) -> dict[str, Json]:
        """What calls of a server can be continued with, by step key."""
        return {
            key: call.token.content
            for key, call in self.calls.items()
            if call.server == server and call.token is not None
        }

    def told(self) -> tuple[Session, ...]:
        """What a checkpoint keeps."""
        return tuple(self.sessions.values())


def _continued(known: Continuation, entry: Record) -> Continuation:
    facts, content = entry.facts, entry.content if isinstance(entry.content, dict) else {}
    match facts["event"]:
        case "paused":
            issue = int(facts["issue"])
            asked = tuple(zip(facts["asked"], map(Question.model_validate, content.get("questions", ())), strict=False))
            before = known.times if issue == known.issue else Counter[str]()
            times = before + Counter(digest_in(key) for key, _ in asked)
            token, place = _token(facts, content), int(facts["round"])
            changes = {"session_id": facts["session_id"], "issue": issue, "round": place, "times": times}
            return replace(known, **changes, token=token, asked=asked, paused=True)
        case "resumed":
            token = None if facts.get("once") else known.token
            return replace(known, token=token, paused=False, deadline=int(facts["deadline"]))
        case "unsent":
            return replace(known, token=_token(facts, content), paused=bool(known.asked))
        case "kept":
            return replace(known, session_id=facts["session_id"], token=_token(facts, content), asked=())
        case _:
            return replace(known, token=None, asked=() if not known.paused else known.asked)


def _token(facts: dict[str, Json], content: dict[str, Json]) -> Token | None:
    """The token; None when there is none, or nobody can read it any more."""
    told = content.get("token")
    return Token(told, bool(facts.get("once")), facts.get("expires_at")) if isinstance(told, dict) else None


def digest_in(key: str) -> str:
    """The digest of the question whose step has this key."""
    return key.rpartition(":")[2].partition("#")[0]
