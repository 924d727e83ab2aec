"""What the journal says of a run's sandboxes: how each stands, and what was done in it since its head. Pure.

Owns the topic `sandbox`, whose records hold a sandbox's whole state after a move, and the facts of outcomes that name a
sandbox and the generation they made. A sandbox is known here by the id that steps know it by: in a fork of a run that
is the original's, while the workspace is the fork's own. What was done does not go away with a retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.journal import Intent, Outcome, Record
from retinue.runs.sandboxes import SandboxState, SandboxStatus

TOPIC = "sandbox"
RUN_ENDED = "the run ended"
"""The cause of a closing that a retry takes back."""
_MOST_OPERATIONS = 256
_MOST_BYTES = 16 * 1024 * 1024
_MOST_MICROS = 60_000_000


@dataclass(frozen=True, slots=True)
class Operation:
    """What made a generation: the call with the arguments it was made with. `micros` is the time it took."""

    key: str
    name: str
    arguments: dict[str, Json]
    generation: int
    replayable: bool
    micros: int = 0


@dataclass(slots=True)
class SandboxPast:
    """The state of each sandbox and, by the same id, the operations since its head snapshot, oldest first.

    A live owner keeps adding to it.
    """

    states: dict[str, SandboxState] = field(default_factory=dict)
    operations: dict[str, list[Operation]] = field(default_factory=dict)

    def add(self, entry: Record) -> None:
        """Take in a record of the topic, in journal order."""
        state = state_in(entry.facts)
        self.put(str(entry.facts.get("place") or state.sandbox_id), state)

    def ended(self, outcome: Outcome, intent: Intent | None) -> None:
        """Take in the outcome of a call in a sandbox, in journal order."""
        facts = outcome.facts
        place = str(facts["sandbox"])
        if place not in self.states and isinstance(facts.get("state"), dict):
            self.put(place, state_in(facts["state"]))
        state, generation = self.states.get(place), int(facts.get("generation", 0))
        if state is None:
            return
        changes: dict[str, Any] = {}
        if generation > state.generation:
            changes["generation"] = generation
            if intent is not None:
                self.done(place, _operation(intent, outcome))
        if facts.get("head") is not None and generation >= max(state.head_generation, state.generation):
            changes |= {"head_snapshot_id": facts["head"], "head_generation": generation}
        self.put(place, state.model_copy(update=changes))

    def put(self, place: str, state: SandboxState) -> None:
        """How a sandbox stands now; what its head holds need not be done again."""
        self.states[place] = state
        kept = [each for each in self.operations.get(place, ()) if each.generation > state.head_generation]
        self.operations[place] = kept

    def done(self, place: str, operation: Operation) -> None:
        """An operation has made a generation."""
        self.operations.setdefault(place, []).append(operation)

    def undone(self, place: str, operation: Operation) -> None:
        """The newest operation is not to be on record."""
        self.operations[place] = [known for known in self.operations.get(place, []) if known is not operation]

    def since_head(self, place: str) -> list[Operation] | None:
        """What is to be done after the head to have the workspace of today; None when that is not known, or not to be
        repeated."""
        state, known = self.states[place], self.operations.get(place, [])
        wanted = range(state.head_generation + 1, state.generation + 1)
        whole = [each.generation for each in known] == list(wanted)
        return known if whole and all(each.replayable for each in known) else None

    def is_heavy(self, place: str) -> bool:
        """Whether so much was done since the head that a new one costs less than doing it again might."""
        known = self.operations.get(place, [])
        return (
            len(known) >= _MOST_OPERATIONS
            or sum(each.micros for each in known) >= _MOST_MICROS
            or sum(map(_weight, known)) >= _MOST_BYTES
        )

    def open(self) -> dict[str, SandboxState]:
        """Those that are not closed, by the id that steps know them by."""
        return {place: state for place, state in self.states.items() if state.status is not SandboxStatus.closed}

    def named(self, name: str) -> str | None:
        """The open sandbox of a name."""
        return next((place for place, state in self.open().items() if state.name == name), None)

    def told(self) -> dict[str, SandboxState]:
        """What a checkpoint keeps. Operations are not kept: at a checkpoint the head is taken."""
        return self.open()

    def restart(self, states: Mapping[str, SandboxState]) -> None:
        """Begin again from a checkpoint."""
        self.states = dict(states)
        self.operations.clear()

    def reopen(self) -> None:
        """A run that had ended goes on: the sandboxes that were closed with it are needed again."""
        for place, state in self.states.items():
            if state.status is SandboxStatus.closed and state.cause == RUN_ENDED:
                changes = {"status": SandboxStatus.open, "closed_at": None}
                self.states[place] = state.model_copy(update=changes)


def state_in(facts: Mapping[str, Json]) -> SandboxState:
    """The state that facts hold among others."""
    return SandboxState.model_validate({name: facts[name] for name in SandboxState.model_fields if name in facts})


def _operation(intent: Intent, outcome: Outcome) -> Operation:
    arguments = intent.content if isinstance(intent.content, dict) else {}
    return Operation(
        key=intent.key,
        name=intent.name,
        arguments=arguments,
        generation=int(outcome.facts["generation"]),
        replayable=bool(outcome.facts.get("replayable")),
        micros=int(outcome.facts.get("micros", 0)),
    )


def _weight(operation: Operation) -> int:
    return sum(len(value) for value in operation.arguments.values() if isinstance(value, str))
