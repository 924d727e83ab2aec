"""The journal: what a run did, in the order it counts.

The journal is the only truth about a run; status tables, event streams and traces are derived from it.

Theory. A run is a function whose every effect goes through its context. Before an effect may be seen or
paid its *intent* is durable; before anything depends on it its *outcome* is durable. Calling the function
again with the recorded outcomes delivered in the recorded order brings it to where it was, so a crash costs
at most the steps in flight. The function runs on a deterministic loop: outcomes that were delivered together
carry the same *activation* number, and between two activations it runs until it can do nothing more, live
and on replay alike. A *checkpoint* is continue-as-new: replay starts at the newest one.

Entries have plain *facts* (who, what, when, how much) and *content* (what was said), which is stored sealed
under the tenant's key. Facts never hold content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, TypeAdapter

from retinue.runs.contracts import (
    NOTHING,
    Amendment,
    ErrorInfo,
    Frozen,
    Json,
    RunRequest,
    Status,
    StopReason,
    Usage,
)
from retinue.runs.sandboxes import SandboxState
from retinue.runs.sessions import Session

SCHEMA = 1
"""Version of the entries below; every frame carries the one it was written with. What is absent has its default."""


def _is_empty(value: object) -> bool:
    return not value


def _is_nothing(usage: Usage) -> bool:
    return usage is NOTHING


def _amounts(usage: Usage) -> dict[str, int]:
    return {name: amount for name, amount in usage.__dict__.items() if amount}


Spending = Annotated[Usage, PlainSerializer(_amounts)]
"""Usage in an entry: what is zero is not written."""


class Entry(Frozen):
    """What all entries share: when (Unix ns, the writer's clock) and the sealed part."""

    at: int
    content: Json = Field(default=None, exclude=True)


class Accepted(Entry):
    """The run exists. Content: its input."""

    kind: Literal["accepted"] = "accepted"
    request: RunRequest


class Leased(Entry):
    """A host took the run; entries that follow are its doing."""

    kind: Literal["leased"] = "leased"
    epoch: int
    host_id: str
    actor_id: str | None
    pid: int
    node: str


_Memo = Literal["remember", "recall", "forget"]
EffectKind = Literal["model", "call", "children", "timer", "approval", "input", "event", "step", "adopt", _Memo, "gate"]


class Intent(Entry):
    """An effect is about to happen. Content: its arguments.

    `key` is scope path + name + ordinal; `digest` is the hash of the arguments: replay needs both to match.
    `reserved` is held against the budget until an outcome says what was spent.
    """

    kind: Literal["intent"] = "intent"
    key: str
    effect: EffectKind
    name: str
    digest: str
    reserved: Spending = Field(default=NOTHING, exclude_if=_is_nothing)
    facts: dict[str, Json] = Field(default_factory=dict, exclude_if=_is_empty)

    @property
    def writes(self) -> bool:
        """True of a call that changes the world."""
        return self.facts.get("side_effect") == "write"

    @property
    def leaves_doubt(self) -> bool:
        """True when it may have changed the world though nobody saw it end: a write, or a step never to be repeated."""
        return self.writes or self.facts.get("repeatable") is False


class Outcome(Entry):
    """An effect ended, or was found to have ended. Content: its value.

    `activation` numbers the delivery to the function: equal numbers were delivered together, and 0 means
    the outcome belongs to the runtime and is not delivered. `result` is `unknown` when the effect may have
    happened though nobody saw it end.
    """

    kind: Literal["outcome"] = "outcome"
    key: str
    effect: EffectKind
    name: str
    activation: int
    result: Literal["ok", "refused", "error", "unknown", "canceled"] = "ok"
    error: ErrorInfo | None = Field(default=None, exclude_if=_is_empty)
    usage: Spending = Field(default=NOTHING, exclude_if=_is_nothing)
    facts: dict[str, Json] = Field(default_factory=dict, exclude_if=_is_empty)


class Attempt(Entry):
    """One try of an effect failed and another will follow, not before `not_before` (Unix ns)."""

    kind: Literal["attempt"] = "attempt"
    key: str
    number: int
    error: ErrorInfo
    not_before: int
    charged: Spending = Field(default=NOTHING, exclude_if=_is_nothing)


class Record(Entry):
    """Something worth knowing that replay does not need: a decision, a context packet, a validation.

    `by` tells whose it is: the function says the same again on replay, the runtime does not.
    """

    kind: Literal["record"] = "record"
    topic: str
    by: Literal["function", "runtime"] = "function"
    facts: dict[str, Json] = Field(default_factory=dict)


class Checkpoint(Entry):
    """Continue as new from here. Content: the state the function is called with.

    `events`: the newest event taken, by name; `amendment`: what retries changed; `sessions`: the newest a server;
    `sandboxes`: those that are open, by the id that steps know them by.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    name: str
    number: int
    spent: Spending = Field(default=NOTHING, exclude_if=_is_nothing)
    events: dict[str, int] = Field(default_factory=dict, exclude_if=_is_empty)
    amendment: Amendment | None = Field(default=None, exclude_if=_is_empty)
    sessions: tuple[Session, ...] = Field(default=(), exclude_if=_is_empty)
    sandboxes: dict[str, SandboxState] = Field(default_factory=dict, exclude_if=_is_empty)


class Parked(Entry):
    """The run waits and holds nothing. `waits` names the keys of what it waits for."""

    kind: Literal["parked"] = "parked"
    status: Status
    reason: StopReason
    waits: tuple[str, ...]
    wake_at: int | None = None


class Finished(Entry):
    """The run ended. Content: its output. `usage` includes its children's."""

    kind: Literal["finished"] = "finished"
    status: Status
    reason: StopReason
    usage: Spending = NOTHING
    error: ErrorInfo | None = None
    facts: dict[str, Json] = Field(default_factory=dict)


class Retried(Entry):
    """A failed run goes on from its newest checkpoint, in the same journal.

    Deliveries after the first `keep` are taken back: what ended well among them is delivered again when the
    function asks for it with the same arguments; the step `again` (a key) is made anew.
    """

    kind: Literal["retried"] = "retried"
    by: str
    keep: int
    again: str | None = None
    amendment: Amendment


AnyEntry = Annotated[
    Accepted | Leased | Intent | Outcome | Attempt | Record | Checkpoint | Parked | Finished | Retried,
    Field(discriminator="kind"),
]
ENTRIES: TypeAdapter[tuple[AnyEntry, ...]] = TypeAdapter(tuple[AnyEntry, ...])
"""Reads and writes the facts of a frame; content is sealed apart."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The entries of one append as they are stored. `seq` is the store's order of commit, `erased` says that they had
    contents, and that the key to these was destroyed.
    """

    seq: int
    run_id: str
    tenant_id: str
    position: int
    epoch: int
    entries: tuple[AnyEntry, ...]
    erased: bool = False
