"""The journal: what a run did, in the order it counts, and the port through which it is written.

The journal is the only truth about a run; status tables, event streams and traces are derived from it.

Theory. A run is a function whose every effect goes through its context. Before an effect may be seen or
paid its *intent* is durable; before anything depends on it its *outcome* is durable. Calling the function
again with the recorded outcomes delivered in the recorded order brings it to where it was, so a crash costs
at most the steps in flight. The function runs on a deterministic loop: outcomes that were delivered together
carry the same *activation* number, and between two activations it runs until it can do nothing more, live
and on replay alike. A *checkpoint* is continue-as-new: replay starts at the newest one.

Guarantees of `Journal.append`, whoever implements it:
  - all of an append is applied or none of it: entries, children, requests and the end of the run;
  - it is refused with Fenced unless the epoch is the run's newest and the position is the next one;
  - when it returns, the entries survive the death of every process;
  - appends of one caller are applied in the order they were submitted;
  - a bad append harms only itself, though many share one transaction;
  - a park is applied only if the run has seen all its news, else the append is applied without it;
  - failure case: when the answer is lost, the same append may be submitted again; if the store holds the
    same epoch, position and content, that is success.

Entries have plain *facts* (who, what, when, how much) and *content* (what was said), which is stored sealed
under the tenant's key. Facts never hold content.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, PlainSerializer, TypeAdapter

from retinue.runs.arrivals import News
from retinue.runs.contracts import (
    NOTHING,
    Amendment,
    Branch,
    ErrorInfo,
    Frozen,
    Json,
    PendingRequest,
    RunRequest,
    Status,
    StopReason,
    Usage,
)
from retinue.runs.sessions import Session, SessionRow

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

    `events`: the newest event taken, by name; `amendment`: what retries changed; `sessions`: the newest a server.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    name: str
    number: int
    spent: Spending = Field(default=NOTHING, exclude_if=_is_nothing)
    events: dict[str, int] = Field(default_factory=dict, exclude_if=_is_empty)
    amendment: Amendment | None = Field(default=None, exclude_if=_is_empty)
    sessions: tuple[Session, ...] = Field(default=(), exclude_if=_is_empty)


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


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created, with its input; `reserved` is what its parent's budget holds for it.

    `past` are entries that it begins with instead of with nothing: what a fork shares with its original.
    """

    request: RunRequest
    input: Json
    at: int
    reserved: Usage = NOTHING
    past: tuple[AnyEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Spawn:
    """A change of a group with the children that go with it; the group is created when it is new.

    Children and rejected inputs are added to the group's counters, the other fields replace the group's.
    `cancel_rest` cancels, as of `at`, the children that have not ended.
    """

    key: str
    children: tuple[NewRun, ...] = ()
    rejected: tuple[DeadLetter, ...] = ()
    low: int = 0
    need: int | None = None
    cursor: Json = None
    exhausted: bool = True
    cancel_rest: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input that could not become a run, or a run that failed for good. Content is sealed."""

    source: str
    line: int
    reason: str
    message: str
    at: int
    content: Json = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """Wait, holding nothing, until news arrives or `wake_at` (Unix ns) has passed."""

    status: Status
    reason: StopReason
    wake_at: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    """End the run; the parent's group and budget are settled with it. `usage` includes the children's, `below` tells
    how much of its money (micro-dollars) that is, as the owner heard; None: it does not tell."""

    status: Status
    reason: StopReason
    usage: Usage
    below: int | None = None


@dataclass(frozen=True, slots=True)
class Yield:
    """Give the run back to its queue, where it stays while it is held."""


@dataclass(frozen=True, slots=True)
class Append:
    """What an owner writes about its run in one step; `expected` is the position it continues at."""

    run_id: str
    tenant_id: str
    num: int
    epoch: int
    expected: int
    entries: tuple[AnyEntry, ...]
    spawn: Spawn | None = None
    request: PendingRequest | None = None
    sessions: tuple[SessionRow, ...] = ()
    seen: int | None = None
    end: Park | Finish | Yield | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The position the next append continues at; `parked` is False when news arrived before a park."""

    position: int
    parked: bool = False


@dataclass(frozen=True, slots=True)
class LeasedRun:
    """A run in its new owner's hands: what it takes to continue it, and nothing older than its checkpoint."""

    num: int
    request: RunRequest
    input: Json
    epoch: int
    position: int
    started_at: int
    frames: tuple[Frame, ...]
    news: News


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One incarnation of a host process: leases belong to it, not to a name that may come back."""

    host_id: str
    kind: str
    pid: int
    pid_started: float
    boot_id: str
    node: str
    actor_id: str | None = None


class Journal(Protocol):
    """The port through which hosts own and write runs. Guarantees: the module's docstring."""

    async def register(self, host: HostInfo) -> None:
        """Announce this incarnation; leases are only given to a registered one."""
        ...

    async def retire(self, host_id: str) -> None:
        """Give back all leases of a host that stops; its runs are queued again, a guest's own in the pool `runs`."""
        ...

    async def lease(self, host: HostInfo, pool: str, limit: int, at: int, only: str | None = None) -> list[LeasedRun]:
        """Take up to `limit` queued runs of the pool (or just the run `only`): new epoch, `Leased` entry."""
        ...

    def append(self, append: Append) -> Awaitable[Appended]:
        """Submit at once, in order; awaited, it is durable. Raises Fenced or StoreError when awaited."""
        ...

    async def news(self, host_id: str) -> dict[str, News]:
        """By run id, for this host's runs that have news they have not seen; bounded by what arrived."""
        ...

    async def look(self, run_id: str) -> News:
        """The news of one run, seen or not."""
        ...

    async def branches(self, run_id: str, key: str) -> list[Branch]:
        """The ended children of a group in index order, values opened."""
        ...

    async def tend(self, host: HostInfo, at: int, lease_seconds: float) -> int:
        """One round of the duties: beat, queue what is due, take over from the dead. Returns runs queued."""
        ...
