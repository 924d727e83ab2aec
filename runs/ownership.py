"""Owning runs: what a host is given with a run, what it writes about it, and the port through which it does both.

Guarantees of `Journal.append`, whoever implements it:
  - all of an append is applied or none of it: entries, children, requests and the end of the run;
  - it is refused with Fenced unless the epoch is the run's newest and the position is the next one;
  - when it returns, the entries survive the death of every process;
  - appends of one caller are applied in the order they were submitted;
  - a bad append harms only itself, though many share one transaction;
  - a park is applied only if the run has seen all its news, else the append is applied without it;
  - failure case: when the answer is lost, the same append may be submitted again; if the store holds the
    same epoch, position and content, that is success.

Knows the entries of the journal, and no store.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from retinue.runs.arrivals import News
from retinue.runs.contracts import NOTHING, Branch, Json, PendingRequest, RunRequest, Status, StopReason, Usage
from retinue.runs.journal import AnyEntry, Frame
from retinue.runs.sandboxes import SandboxRow
from retinue.runs.sessions import SessionRow


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
    sandboxes: tuple[SandboxRow, ...] = ()
    seen: int | None = None
    end: Park | Finish | Yield | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The position the next append continues at; `parked` is False when news arrived before a park."""

    position: int
    parked: bool = False


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
