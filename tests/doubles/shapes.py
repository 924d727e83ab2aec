"""The nouns of a test: hosts, new runs, appends, filled in so that a test names only what it is about."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
from tests.doubles.memory_store import MemoryStore
from tests.doubles.places import AnyStore, Place

from retinue.runs.contracts import NOTHING, Json, RunRequest, Status, StopReason, Usage
from retinue.runs.journal import AnyEntry, Finished, Parked, Record
from retinue.runs.ownership import Append, Finish, HostInfo, LeasedRun, NewRun, Park
from retinue.store.liveness import boot_id

START = 1_700_000_000_000_000_000
"""When every test begins, Unix ns."""


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[AnyStore]:
    """A store at a place, closed at the end."""
    store: AnyStore = MemoryStore() if place.kind == "memory" else place.open()
    try:
        yield store
    finally:
        await store.close()


def host(name: str = "h1", **changes: Any) -> HostInfo:
    """A host incarnation in this very process."""
    pid = os.getpid()
    given = {"host_id": name, "kind": "test", "pid": pid, "node": "here", "boot_id": boot_id()}
    return HostInfo(**given | {"pid_started": psutil.Process(pid).create_time()} | changes)


def new_run(name: str, input: Json = None, reserved: Usage = NOTHING, **changes: Any) -> NewRun:
    """A run to be, named so that prefixes tell runs apart."""
    given: dict[str, Any] = {
        "run_id": name,
        "trace_id": "t" * 32,
        "span_id": "s" * 16,
        "tenant_id": "acme",
        "principal_id": "ana",
        "kind": "workflow",
        "target": "work",
        "target_version": "1",
        "root_run_id": name,
        "effect_scope": name,
    }
    return NewRun(RunRequest(**given | changes), input, START, reserved)


def child_of(parent: str, key: str, index: int, reserved: Usage = NOTHING, **changes: Any) -> NewRun:
    """A child in a group of its parent."""
    place = {"parent_run_id": parent, "root_run_id": parent, "group_key": key, "group_index": index}
    given = {"pool": "workers", "depth": 1}
    return new_run(f"{parent}-{key}-{index}", index, reserved, **place | given | changes)


def said(topic: str, content: Json = None, at: int = START) -> Record:
    """An entry that says something."""
    return Record(at=at, topic=topic, content=content)


class Owner:
    """An owner of one run, by hand: it keeps the position that its next append continues at."""

    def __init__(self, store: AnyStore, leased: LeasedRun) -> None:
        self.store = store
        self.leased = leased
        self.position = leased.position
        self.seen = leased.news.seq

    def make(self, *entries: AnyEntry, **extra: Any) -> Append:
        """The next append, not submitted."""
        given = {"epoch": self.leased.epoch, "expected": self.position, "seen": self.seen}
        request = self.leased.request
        return Append(
            **{"run_id": request.run_id, "tenant_id": request.tenant_id, "num": self.leased.num, "entries": entries}
            | given
            | extra
        )

    async def append(self, *entries: AnyEntry, **extra: Any) -> bool:
        """Append and go on behind it; whether it parked."""
        done = await self.store.append(self.make(*entries, **extra))
        self.position = done.position
        return done.parked

    async def park(self, wake_at: int | None = None, status: Status = Status.waiting) -> bool:
        """Park; whether the store let it."""
        reason = StopReason.timer if wake_at else StopReason.child
        entry = Parked(at=START, status=status, reason=reason, waits=("x",), wake_at=wake_at)
        return await self.append(entry, end=Park(status, reason, wake_at))

    async def finish(self, value: Json = None, status: Status = Status.completed, usage: Usage = NOTHING) -> None:
        """End the run."""
        reason = StopReason.success if status is Status.completed else StopReason.tool_failure
        entry = Finished(at=START + 1, content=value, status=status, reason=reason, usage=usage)
        await self.append(entry, end=Finish(status, reason, usage))


async def own(store: AnyStore, name: str, owner: HostInfo | None = None) -> Owner:
    """Lease the run `name`, for the host `h1` unless told otherwise."""
    [leased] = await store.lease(owner or host(), "", 1, START, only=name)
    return Owner(store, leased)


async def entries_of(store: AnyStore, run_id: str) -> list[AnyEntry]:
    """The journal of a run, entry by entry."""
    return [entry async for frame in store.read(run_id) for entry in frame.entries]
