"""What the journal says of a run since its newest checkpoint, in the form that replay needs. Pure.

Folds frames into: the state to start with, the steps that were intended and ended, the deliveries in order,
the tries that failed, and what was spent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from retinue.runs.capabilities import NOT_MADE
from retinue.runs.contracts import NOTHING, Amendment, Json, RunRequest, Usage
from retinue.runs.identity import is_question
from retinue.runs.journal import Attempt, Checkpoint, Frame, Intent, Outcome, Record, Retried
from retinue.runs.sandbox_past import TOPIC as SANDBOX
from retinue.runs.sandbox_past import SandboxPast
from retinue.runs.session_past import TOPICS, SessionPast


@dataclass(frozen=True, slots=True)
class Recalled:
    """A step that ended well and was taken back by a retry: delivered again when it is asked for again."""

    intent: Intent | None
    outcome: Outcome


@dataclass(slots=True)
class History:
    """The past of a run as its owner holds it; a live owner keeps adding to it.

    `said` tells how many records of the function preceded each delivery, `unsure` names the steps of which an
    earlier try may have taken effect; a retry does not change that.
    """

    checkpoint: int = 0
    state: Json = None
    started_at: int = 0
    intents: dict[str, Intent] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    deliveries: list[list[Outcome]] = field(default_factory=list)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    events: dict[str, int] = field(default_factory=dict)
    records: int = 0
    said: list[int] = field(default_factory=list)
    spent: Usage = NOTHING
    admitted: bool = False
    amendment: Amendment | None = None
    recalled: dict[str, Recalled] = field(default_factory=dict)
    taken_back: set[str] = field(default_factory=set)
    remote: SessionPast = field(default_factory=SessionPast)
    boxes: SandboxPast = field(default_factory=SandboxPast)

    def amended(self, request: RunRequest) -> RunRequest:
        """The request with what retries changed of it."""
        change = self.amendment
        if change is None:
            return request
        version, budget = change.version or request.target_version, change.budget or request.budget
        return request.model_copy(
            update={"target_version": version, "budget": budget.within(request.budget), "deadline": change.deadline}
        )

    def add(self, entry: object) -> None:
        """Take in one entry, in journal order."""
        match entry:
            case Intent():
                if entry.key in self.begun:
                    self.unsure.add(entry.key)
                self.intents[entry.key] = entry
                self.begun.add(entry.key)
                self.taken_back.discard(entry.key)
            case Outcome():
                self._add_outcome(entry)
            case Attempt():
                self.attempts.setdefault(entry.key, []).append(entry)
                self.begun.discard(entry.key)
                if entry.error.code not in NOT_MADE:
                    self.unsure.add(entry.key)
                self.spent = self.spent + entry.charged
            case Record():
                self._add_record(entry)
            case Checkpoint():
                self._restart(entry)
            case Retried():
                self._take_back(entry)

    def before(self, key: str | None) -> int:
        """How many deliveries precede that of the step; all when it was not delivered."""
        places = (place for place, delivery in enumerate(self.deliveries) if any(each.key == key for each in delivery))
        return next(places, len(self.deliveries))

    def delivered(self, count: int) -> frozenset[str]:
        """The keys of the steps in the first `count` deliveries."""
        return frozenset(outcome.key for delivery in self.deliveries[:count] for outcome in delivery)

    def interrupted(self, key: str) -> bool:
        """True when a try of the step was begun and nobody knows how it ended."""
        return key in self.begun

    def forget(self, key: str) -> None:
        """The step has been delivered live: nothing of it is needed before the next replay."""
        self.intents.pop(key, None)
        self.attempts.pop(key, None)
        self.begun.discard(key)
        self.unsure.discard(key)
        self.remote.calls.pop(key, None)

    def unfinished_inside(self, key: str) -> list[Intent]:
        """Steps inside an adopted function (their keys begin with `key!`) that were begun and have not ended."""
        return [intent for place, intent in self.intents.items() if place.startswith(f"{key}!") and place in self.begun]

    def forget_inside(self, key: str) -> None:
        """The adopted function has ended: nothing inside it is needed any more."""
        for past in (self.intents, self.outcomes, self.attempts):
            for place in [place for place in past if place.startswith(f"{key}!")]:
                del past[place]

    def unsettled(self) -> dict[str, Usage]:
        """What is held for tries that were begun and have not ended, by key."""
        return {key: intent.reserved for key, intent in self.intents.items() if key in self.begun}

    def lost(self) -> list[Usage]:
        """What is held for paid calls that nobody saw end: spent, when the run ends before anybody knows better."""
        return [reserved for reserved in self.unsettled().values() if reserved.micros]

    def _add_record(self, entry: Record) -> None:
        if entry.by == "function":
            self.records += 1
        elif entry.topic == "forked":
            self.started_at = int(entry.facts["started_at"])
        elif entry.topic in TOPICS:
            self.remote.add(entry)
        elif entry.topic == SANDBOX:
            self.boxes.add(entry)

    def _add_outcome(self, entry: Outcome) -> None:
        self.outcomes[entry.key] = entry
        if "sandbox" in entry.facts:
            self.boxes.ended(entry, self.intents.get(entry.key))
        known = self.recalled.pop(entry.key, None)
        if known is not None and known.intent is not None and entry.facts.get("recalled"):
            self.intents[entry.key] = known.intent
        self.begun.discard(entry.key)
        self.remote.calls.pop(entry.key, None)
        self.spent = self.spent + entry.usage
        if "event" in entry.facts:
            self.events[entry.name] = int(entry.facts["event"])
        if entry.activation == 0:
            return
        while len(self.deliveries) < entry.activation:
            self.deliveries.append([])
            self.said.append(self.records)
        self.deliveries[entry.activation - 1].append(entry)

    def _restart(self, entry: Checkpoint) -> None:
        self.checkpoint = entry.number
        self.state = entry.content
        self.started_at = entry.at
        self.spent = entry.spent
        self.events = dict(entry.events)
        self.records = 0
        self.amendment = entry.amendment
        self.remote.restart(entry.sessions)
        self.boxes.restart(entry.sandboxes)
        for past in (self.intents, self.outcomes, self.attempts, self.begun, self.unsure, self.recalled):
            past.clear()
        self.taken_back.clear()
        self.deliveries.clear()
        self.said.clear()

    def _take_back(self, entry: Retried) -> None:
        """Forget what followed the deliveries that hold; keep aside what need not be done again."""
        self.amendment = entry.amendment
        self.remote.calls.clear()  # their sessions were closed with the failure
        self.boxes.reopen()
        self.admitted = bool(self.checkpoint or entry.keep)
        self.records = min([self.records, *self.said[entry.keep : entry.keep + 1]])
        del self.deliveries[entry.keep :], self.said[entry.keep :]
        held = self.delivered(entry.keep)
        loose = [key for key in {**self.intents, **self.outcomes} if key not in held]
        for key in loose:
            self.taken_back.add(key)
            outcome = self.outcomes.get(key)
            if outcome is not None and outcome.result == "ok" and "!" in key and not is_question(key):
                continue
            self.outcomes.pop(key, None)
            intent = self.intents.pop(key, None)
            doubtful = key in self.begun or (intent is not None and intent.writes and key in self.unsure)
            if self.attempts.pop(key, None) and outcome is None and not doubtful:
                continue  # its last try failed for sure
            if outcome is None or _is_open(outcome, entry.again):
                self._leave_open(intent, entry.at)
            elif outcome.result == "ok" and key != entry.again and outcome.effect != "gate" and not is_question(key):
                self.recalled[key] = Recalled(intent, outcome)

    def _leave_open(self, intent: Intent | None, at: int) -> None:
        """It was begun and nobody knows how it ended, or its children are to be heard again."""
        if intent is not None and not is_question(intent.key) and intent.effect not in ("input", "approval"):
            self.intents[intent.key] = intent.model_copy(update={"at": at}) if intent.effect == "children" else intent
            self.begun.add(intent.key)


def _is_open(outcome: Outcome, again: str | None) -> bool:
    """True when a step that was taken back is not done: nobody knows how it ended, or children of it failed."""
    if outcome.effect == "children" and outcome.result == "ok":
        return outcome.key == again or bool(outcome.facts.get("failed"))
    return outcome.result == "unknown"


def fold(frames: Iterable[Frame], started_at: int) -> History:
    """The history in the frames since the newest checkpoint (frames before it do no harm)."""
    history = History(started_at=started_at)
    for frame in frames:
        history.admitted = history.admitted or frame.epoch > 0
        for entry in frame.entries:
            history.add(entry)
    return history
