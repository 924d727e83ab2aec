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

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter

from retinue.runs.contracts import (
    NOTHING,
    Branch,
    ErrorInfo,
    Frozen,
    Json,
    PendingRequest,
    RunRecord,
    RunRequest,
    Status,
    StopReason,
    Usage,
)

SCHEMA = 1
"""Version of the entries below; every frame carries the one it was written with."""


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


EffectKind = Literal[
    "model", "call", "children", "timer", "approval", "input", "event", "step", "recall", "gate"
]


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
    reserved: Usage = NOTHING
    facts: dict[str, Json] = {}


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
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    facts: dict[str, Json] = {}


class Attempt(Entry):
    """One try of an effect failed and another will follow, not before `not_before` (Unix ns)."""

    kind: Literal["attempt"] = "attempt"
    key: str
    number: int
    error: ErrorInfo
    not_before: int


class Record(Entry):
    """Something worth knowing that replay does not need: a decision, a context packet, a validation."""

    kind: Literal["record"] = "record"
    topic: str
    facts: dict[str, Json] = {}


class Checkpoint(Entry):
    """Continue as new from here. Content: the state the function is called with."""

    kind: Literal["checkpoint"] = "checkpoint"
    name: str
    number: int
    spent: Usage = NOTHING


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
    usage: Usage = NOTHING
    error: ErrorInfo | None = None
    facts: dict[str, Json] = {}


AnyEntry = Annotated[
    Accepted | Leased | Intent | Outcome | Attempt | Record | Checkpoint | Parked | Finished,
    Field(discriminator="kind"),
]
ENTRIES: TypeAdapter[tuple[AnyEntry, ...]] = TypeAdapter(tuple[AnyEntry, ...])
"""Reads and writes the facts of a frame; content is sealed apart."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The entries of one append as they are stored. `seq` is the store's order of commit."""

    seq: int
    run_id: str
    tenant_id: str
    position: int
    epoch: int
    entries: tuple[AnyEntry, ...]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created, with its input; `reserved` is what its parent's budget holds for it."""

    request: RunRequest
    input: Json
    at: int
    reserved: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Group:
    """Children that one step of a parent waits for; the children's rows are the join state.

    The parent has news when `pending <= low`, or when `need` successes are reached or out of reach.
    `cursor` is where the input goes on and `exhausted` says that no child will be added. `total` counts
    the children created; `rejected` the inputs that could not become one.
    """

    key: str
    total: int = 0
    pending: int = 0
    ok: int = 0
    failed: int = 0
    rejected: int = 0
    low: int = 0
    need: int | None = None
    cursor: Json = None
    exhausted: bool = False
    reserved: Usage = NOTHING
    used: Usage = NOTHING

    @property
    def waiting(self) -> int:
        """Children that have not ended."""
        return self.pending

    @property
    def decided(self) -> bool:
        """True when enough is known: all ended, or `need` is reached or out of reach."""
        if self.exhausted and self.pending == 0:
            return True
        if self.need is None:
            return False
        return self.ok >= self.need or (self.exhausted and self.ok + self.pending < self.need)


@dataclass(frozen=True, slots=True)
class Spawn:
    """A change of a group with the children that go with it; the group is created when it is new.

    `created` and `rejected` are added to the group's counters, the other fields replace the group's.
    """

    key: str
    children: tuple[NewRun, ...] = ()
    rejected: tuple[DeadLetter, ...] = ()
    low: int = 0
    need: int | None = None
    cursor: Json = None
    exhausted: bool = True
    cancel_rest: bool = False


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
    """End the run. `usage` includes the children's; the parent's group and budget are settled with it."""

    status: Status
    reason: StopReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Append:
    """Everything an owner writes about its run in one step. `expected` is the position it continues at."""

    run_id: str
    tenant_id: str
    num: int
    epoch: int
    expected: int
    entries: tuple[AnyEntry, ...]
    spawn: Spawn | None = None
    request: PendingRequest | None = None
    seen: int | None = None
    end: Park | Finish | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The position the next append continues at; `parked` is False when news arrived before a park."""

    position: int
    parked: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What has arrived for a run: the counter to park with, its groups, resolved requests, events, cancel."""

    seq: int
    groups: dict[str, Group] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    cancel: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said to a request: approved, denied or answered, by whom, with what value."""

    request_id: str
    status: Literal["approved", "denied", "answered"]
    by: str
    at: int
    value: Json = None


@dataclass(frozen=True, slots=True)
class Event:
    """A signal sent to a run. `number` orders the signals of one run."""

    number: int
    name: str
    at: int
    value: Json = None


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
        """Give back all leases of a host that stops; its runs are queued again."""
        ...

    async def lease(self, host: HostInfo, pool: str, limit: int, at: int, only: str | None = None) -> list[LeasedRun]:
        """Take up to `limit` queued runs of the pool (or just the run `only`): new epoch, `Leased` entry."""
        ...

    async def append(self, append: Append) -> Appended:
        """Write as the module's docstring guarantees. Raises Fenced or StoreError."""
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


class Control(Protocol):
    """The port for everyone who does not own runs: submit, answer, cancel, and read."""

    async def submit(self, runs: Sequence[NewRun]) -> list[RunRecord]:
        """Accept runs, durably. A known (tenant, idempotency key) gives the run that has it."""
        ...

    async def resolve(self, request_id: str, status: str, by: str, at: int, value: Json = None) -> PendingRequest:
        """Approve, deny or answer an open request; wakes its run. InvalidInput when it is not open."""
        ...

    async def signal(self, run_id: str, name: str, value: Json, at: int) -> None:
        """Send an event to a run that has not ended."""
        ...

    async def cancel(self, run_id: str, by: str, at: int) -> int:
        """Mark the run and all below it, children first; returns how many were marked or ended."""
        ...

    async def get(self, run_id: str) -> RunRecord:
        """The record of a run; an unambiguous prefix or suffix of its id will do. UnknownName otherwise."""
        ...

    async def result(self, run_id: str) -> Branch | None:
        """The result of a run that ended, as a value; None while it has not."""
        ...

    async def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """Newest first."""
        ...

    async def requests(self, open_only: bool = True) -> list[PendingRequest]:
        """What people are asked, oldest first."""
        ...

    def read(self, run_id: str, after: int = 0) -> AsyncIterator[Frame]:
        """The frames of a run from position `after` + 1 on; ends at the newest."""
        ...

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """Frames of all runs in commit order after `after_seq`; misses nothing, repeats nothing."""
        ...


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list. None: any."""

    status: Status | None = None
    tenant_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    job_id: str | None = None
    roots_only: bool = False
    limit: int = 50
