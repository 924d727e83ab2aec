"""Stores to copy, filled with all that there is, and what can be read of a copy. Knows no test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.shapes import START, child_of, host, new_run, own, said
from tests.doubles.worlds import ALLOW_ALL, World
from tests.journals.fixtures import VERSIONS
from tests.journals.record import definitions_of

from retinue.runs.alerts import Cause, Changes, Cursor
from retinue.runs.contracts import RunRecord, Status
from retinue.runs.control import RunQuery, SandboxQuery, SessionQuery, SnapshotPin
from retinue.runs.limits import Limits
from retinue.runs.memories import Memory, Recall, Space
from retinue.runs.ownership import DeadLetter, Spawn
from retinue.runs.rollouts import Rollout
from retinue.runs.sandboxes import SandboxRow, SandboxState
from retinue.runs.sessions import Session, SessionRow
from retinue.store.copying import Copied, Source, Target, copy
from retinue.store.memories import Listing
from retinue.store.postgres.copying import postgres_source, postgres_target
from retinue.store.sqlite_copying import sqlite_source, sqlite_target
from retinue.store.store import Store

NEWEST = VERSIONS[-1]
EVERY = RunQuery(limit=10_000)
LARGE = "x" * 200_000
STRANGE = "a\0b \N{CAT} 'q' \U000f0000"
_STATE = SandboxState(
    sandbox_id="box-1",
    name="work",
    manifest="coder",
    manifest_version="m1",
    profile="strict",
    profile_digest="p1",
    cause=STRANGE,
    head_snapshot_id="s1-a",
    omitted=(STRANGE,),
    changed_at=START,
)
_SANDBOX = SandboxRow(_STATE, "t" * 32)
_PIN = SnapshotPin(tenant_id="acme", name="base", snapshot_id="s1-b", manifest="coder", at=START, by="ben")
LIMITS = Limits.model_validate({"tenants": {"*": {"usd": 1000}}, "queues": {"slow": {"rate": 5}}})
MINE = Space(scope="agent", owner=STRANGE.replace("\0", ""))
Pair = tuple[Place, Place]


@contextmanager
def pair_of(request: pytest.FixtureRequest, places: Places, filled: dict[str, Place]) -> Iterator[Pair]:
    source, target = request.param
    with places.new(source) as first, places.new(target) as second:
        again(filled[source], first)
        yield first, second


def again(filled: Place, place: Place) -> None:
    """What is in a closed store, in a new place of its kind, as the database itself copies it."""
    if filled.url is None or place.url is None:
        shutil.copytree(filled.folder / "data", place.folder / "data")
        return
    server, name = place.url.rsplit("/", 1)
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {filled.url.rsplit('/', 1)[1]}")


def source_of(place: Place, **given: Any) -> AbstractContextManager[Source]:
    return sqlite_source(place.folder / "data") if place.url is None else postgres_source(place.url, **given)


def target_of(place: Place, **given: Any) -> AbstractContextManager[Target]:
    return sqlite_target(place.folder / "data") if place.url is None else postgres_target(place.url, **given)


def copied(source: Place, target: Place, **given: Any) -> Copied:
    with source_of(source) as one, target_of(target) as other:
        return copy(one, other, **given)


@asynccontextmanager
async def store_at(place: Place, **given: Any) -> AsyncIterator[Store]:
    store = await asyncio.to_thread(place.open, **given)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def world_at(place: Place, name: str, broken: str = "") -> AsyncIterator[World]:
    module = definitions_of(NEWEST)
    module.broken.add(broken)
    async with store_at(place, limits=LIMITS) as store:
        made = World(store, (*module.DEFINITIONS, *module.AGENTS), place.folder, ALLOW_ALL)
        made.host = host(name)
        await made.begin()
        yield made
        assert not made.active
        await store.retire(made.host.host_id)


async def fill(place: Place) -> None:
    """Runs of every kind and all that may hang on one; two tenants; one that somebody was just working on."""
    async with world_at(place, "filling", broken="b") as made:
        made.script(*definitions_of(NEWEST).SCRIPT)
        await made.run("fan", ["a", "b", "c"], run_id="ended", root_run_id="ended")
        await made.submit("strict", ["a", "b"], run_id="failed", root_run_id="failed", queue="slow")
        await made.submit("patient", run_id="asking", root_run_id="asking")
        await made.submit("researcher", "find it", run_id="agent", root_run_id="agent")
        await made.settle()
        store = made.store
        assert isinstance(store, Store)
        await store.register(host("h1"))
        given = {"tenant_id": STRANGE, "idempotency_key": STRANGE, "input_id": STRANGE}
        await store.submit([new_run("busy", LARGE, **given)])
        owner = await own(store, "busy")
        letters = (DeadLetter(source="rows", line=7, reason="invalid", message=STRANGE, at=START, content={"raw": 1}),)
        spawn = Spawn("g", (child_of("busy", "g", 0),), rejected=letters)
        session = Session(session_id="session-1", server="desk", cause=STRANGE, opened_at=START, changed_at=START)
        sessions = (SessionRow(session, "t" * 32, {"step": {"state": STRANGE}}),)
        await owner.append(said(STRANGE, LARGE[1:]), spawn=spawn, sessions=sessions, sandboxes=(_SANDBOX,))
        await store.sandbox_records.pin(_PIN)
        await store.signal("busy", STRANGE, {"by": LARGE}, START)
        await store.stream([("busy", "step", 1, "so"), ("busy", "step", 1, STRANGE)])
        await store.breakers.failed("mail", STRANGE, START)
        await store.rollouts.stop(
            Rollout(kind="agent", name="clerk", version="2", stage="stopped", at=START, reason=STRANGE)
        )
        origin = {"run_id": "busy", "step": "s", "agent": "work", "version": "1", "principal": "ana"}
        for number in (1, 2):
            memory = Memory(memory_id=f"m{number}", space=MINE, content=f"{STRANGE} lamp", key="k", at=START, **origin)
            await store.memories.remember(STRANGE, memory)
        cause = Cause("breaker", STRANGE, {"since": 1, "failures": 5, "reason": STRANGE})
        await store.alerts.change(Changes(START, Cursor(3, 0), causes=(cause,), channels=("log",)))


async def readable(store: Store) -> dict[str, Any]:
    """All that a user can read of a store, but for where a run was worked on and whether it is held."""
    records = await store.list_runs(EVERY)
    found: dict[str, Any] = {
        "requests": await store.requests(open_only=False),
        "sessions": await store.sessions(SessionQuery(limit=10_000)),
        "sandboxes": [
            (one.run_id, one.state) for one in await store.sandbox_records.listed(SandboxQuery(limit=10_000))
        ],
        "snapshots": [await store.sandbox_records.in_use("acme", 0), await store.sandbox_records.pins()],
        "letters": await store.dead_letters(),
        "inputs": await store.dead_inputs(None, None, 100),
        "alerts": await store.alerts.listed(everything=True),
        "breakers": await store.breakers.listed(),
        "accounts": sorted(await store.accounts.listed(), key=lambda account: account.tenant_id),
        "rollouts": await store.rollouts.history(None, 10),
        "memories": await store.memories.listed(Listing(everything=True)),
        "recalled": await store.memories.recall(STRANGE, Recall(spaces=(MINE,), text="lamps")),
        "tail": [(frame.seq, frame.run_id, frame.position) for frame in await store.tail(0, 10_000)],
    }
    for record in records:
        name = record.run_id
        found[name] = {
            "record": unplaced(record),
            "result": await store.result(name),
            "frames": [frame async for frame in store.read(name)],
            "groups": await store.groups(name),
            "given": await store.inputs([name]),
            "deltas": await store.deltas(name, 0),
            "events": (await store.look(name)).events,
        }
    return found


def unplaced(record: RunRecord) -> RunRecord:
    status = Status.queued if record.status is Status.in_progress else record.status
    return record.model_copy(update={"status": status, "held": False, "actor_id": None, "pid": None, "node": None})


async def reading(place: Place) -> dict[str, Any]:
    async with store_at(place) as store:
        return await readable(store)
