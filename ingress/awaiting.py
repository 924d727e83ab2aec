"""What a run waits for, read from its journal: people, events, moments, children, tries, effects nobody saw end. Pure.

An effect that was intended and has no outcome since the newest checkpoint is what the run waits for, once it is
parked. Knows no store and no terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from retinue.runs.contracts import Frozen, Json, PendingRequest
from retinue.runs.gate import in_full
from retinue.runs.journal import AnyEntry, Attempt, Checkpoint, Frame, Intent, Leased, Outcome, Parked, Retried
from retinue.runs.reviewing import MARK, REVIEW

AwaitedKind = Literal["approval", "input", "event", "timer", "child", "retry", "unknown"]

_PLAIN: dict[str, AwaitedKind] = {
    "approval": "approval",
    "input": "input",
    "event": "event",
    "timer": "timer",
    "children": "child",
}


class Awaited(Frozen):
    """One thing a run waits for. `name` is the capability, event or target concerned; `why` is for people, or empty.

    `since` and `due` are Unix ns: when it was asked for, and when it is over without any news (None: never).
    `reason` and `rules` are the gate's, for the approval of a call. `unknown` is a write that may have happened.
    """

    kind: AwaitedKind
    key: str
    name: str
    since: int
    due: int | None = None
    why: str = ""
    reason: str = ""
    rules: tuple[str, ...] = ()
    request_id: str | None = None


@dataclass(slots=True)
class Open:
    """What is open after the entries so far, in journal order; all since the newest checkpoint must be among them."""

    intents: dict[str, Intent] = field(default_factory=dict)
    tries: dict[str, Attempt] = field(default_factory=dict)
    parked: Parked | None = None

    def take(self, entry: AnyEntry) -> None:
        """One entry."""
        match entry:
            case Intent():
                self.intents[entry.key] = entry
            case Outcome():
                self.intents.pop(entry.key, None)
                self.tries.pop(entry.key, None)
            case Attempt():
                self.tries[entry.key] = entry
            case Checkpoint():
                self.intents.clear()
                self.tries.clear()
            case Retried():
                self.intents = {k: i for k, i in self.intents.items() if i.effect not in {"input", "approval"}}
                self.tries.clear()
        if not isinstance(entry, Leased):
            self.parked = entry if isinstance(entry, Parked) else None

    def awaited(self) -> tuple[Awaited, ...]:
        """What the run waits for, oldest first.

        A run that is not parked may still wait for something beside what it does; effects in flight are not listed,
        nor is a call about which a person is asked: the question stands for it.
        """
        found = [waits for intent in self.intents.values() if (waits := _of_intent(self, intent)) is not None]
        found += [_of_try(key, key, attempt) for key, attempt in self.tries.items() if key not in self.intents]
        return tuple(sorted(found, key=lambda waits: waits.since))


def awaited(frames: Iterable[Frame]) -> tuple[Awaited, ...]:
    """What the run of these frames waits for, as `Open.awaited`."""
    state = Open()
    for frame in frames:
        for entry in frame.entries:
            state.take(entry)
    return state.awaited()


def awaited_of(request: PendingRequest) -> Awaited:
    """What an open request asks, told as the intent is that its run wrote with it."""
    facts = request.facts
    plain = "approve" if request.kind == "approval" else REVIEW if MARK in facts else "ask"
    name = facts.get("doubt") or facts.get("capability") or plain
    intent = Intent(
        at=request.created_at,
        content={"prompt": request.prompt},
        key=request.key,
        effect=request.kind,
        name=str(name),
        digest="",
        facts={**facts, "expires_at": request.expires_at, "request_id": request.request_id},
    )
    return _of_question(intent, request.kind)


def _of_intent(state: Open, intent: Intent) -> Awaited | None:
    kind = _PLAIN.get(intent.effect)
    if kind in {"approval", "input"}:
        return _of_question(intent, kind)
    if kind is not None:
        return _of_arrival(intent, kind)
    if intent.key in state.tries:
        return _of_try(intent.key, intent.name, state.tries[intent.key])
    if any(other.startswith(f"{intent.key}!") for other in state.intents):
        return None
    if state.parked is not None and intent.key in state.parked.waits and intent.effect == "call":
        why = f"whether {intent.name} took effect is not known; it is asked once its deadline has passed"
        return Awaited(
            kind="unknown", key=intent.key, name=intent.name, since=intent.at, due=state.parked.wake_at, why=why
        )
    return None


def _of_question(intent: Intent, kind: AwaitedKind) -> Awaited:
    gate = in_full(intent.facts.get("gate") or {})
    content = intent.content if isinstance(intent.content, dict) else {}
    in_doubt = "doubt" in intent.facts
    return Awaited(
        kind="unknown" if in_doubt else kind,
        key=intent.key.partition("!")[0],
        name=intent.name,
        due=intent.facts.get("expires_at"),
        since=intent.at,
        why=str(content.get("prompt", "(content erased)")),
        reason=str(gate.get("reason", "")),
        rules=tuple(str(hit["rule"]) for hit in gate.get("rules", ()) if hit.get("outcome") == "approval_required"),
        request_id=intent.facts.get("request_id"),
    )


def _of_arrival(intent: Intent, kind: AwaitedKind) -> Awaited:
    content = intent.content if isinstance(intent.content, dict) else {}
    due, why = None, ""
    if kind == "timer":
        due = content.get("until")
    elif kind == "child":
        join = intent.facts.get("join") or {}
        due, why = _join_due(intent, join), _join_text(join)
    return Awaited(kind=kind, key=intent.key, name=intent.name, since=intent.at, due=due, why=why)


def _of_try(key: str, name: str, attempt: Attempt) -> Awaited:
    plain = name.rpartition("/")[2].partition("#")[0]
    why = f"another try of {plain}; try {attempt.number} failed: {attempt.error.message}"
    return Awaited(kind="retry", key=key, name=plain, since=attempt.at, due=attempt.not_before, why=why)


def _join_due(intent: Intent, join: dict[str, Json]) -> int | None:
    seconds = join.get("deadline")
    return None if seconds is None else intent.at + int(seconds * 1e9)


def _join_text(join: dict[str, Json]) -> str:
    need = join.get("need")
    return "all must end" if need is None else f"{need} must complete"
