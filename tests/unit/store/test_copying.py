"""Stores copied into others of each kind: all that a user can read comes along, and what waited there goes on here."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.doubles.places import REAL, Place, Places
from tests.doubles.processes import python
from tests.doubles.shapes import START, child_of, host, new_run, own, said
from tests.doubles.worlds import ALLOW_ALL, World
from tests.journals.fixtures import VERSIONS
from tests.journals.record import definitions_of
from tests.journals.test_data_folders import unpacked

from retinue.runs.alerts import Cause, Changes, Cursor
from retinue.runs.contracts import RunRecord, Status
from retinue.runs.control import RunQuery, SessionQuery
from retinue.runs.errors import InvalidInput, SchemaMismatch, StoreBusy, StoreError
from retinue.runs.journal import DeadLetter, Spawn
from retinue.runs.limits import Limits
from retinue.runs.memories import Memory, Recall, Space
from retinue.runs.sessions import Session, SessionRow
from retinue.store.copying import HOSTS, TABLES, Copied, Source, Target, copy
from retinue.store.memories import Listing
from retinue.store.postgres import copying as postgres_copying
from retinue.store.postgres.copying import postgres_source, postgres_target
from retinue.store.sqlite_copying import sqlite_source, sqlite_target
from retinue.store.store import Store

pytestmark = pytest.mark.rule("R16")

NEWEST = VERSIONS[-1]
EVERY = RunQuery(limit=10_000)
LARGE = "x" * 200_000
STRANGE = "a\0b \N{CAT} 'q' \U000f0000"
LIMITS = Limits.model_validate({"tenants": {"*": {"usd": 1000}}, "queues": {"slow": {"rate": 5}}})
MINE = Space(scope="agent", owner=STRANGE.replace("\0", ""))
Pair = tuple[Place, Place]


@pytest.fixture(scope="module")
def filled(places: Places) -> Iterator[dict[str, Place]]:
    """A filled place of each kind; filled once."""
    with places.new("sqlite") as one, places.new("postgres") as other:
        for place in (one, other):
            asyncio.run(fill(place))
        yield {"sqlite": one, "postgres": other}


@pytest.fixture(params=[(source, target) for source in REAL for target in REAL], ids="-to-".join)
def pair(request: pytest.FixtureRequest, places: Places, filled: dict[str, Place]) -> Iterator[Pair]:
    """A filled place to copy from and an empty one to copy into, of each kind."""
    with pair_of(request, places, filled) as made:
        yield made


@pytest.fixture(params=[REAL, REAL[::-1]], ids="-to-".join)
def across(request: pytest.FixtureRequest, places: Places, filled: dict[str, Place]) -> Iterator[Pair]:
    """The same, of two kinds."""
    with pair_of(request, places, filled) as made:
        yield made


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
        await owner.append(said(STRANGE, LARGE[1:]), spawn=spawn, sessions=sessions)
        await store.signal("busy", STRANGE, {"by": LARGE}, START)
        await store.stream([("busy", "step", 1, "so"), ("busy", "step", 1, STRANGE)])
        await store.breakers.failed("mail", STRANGE, START)
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
        "letters": await store.dead_letters(),
        "inputs": await store.dead_inputs(None, None, 100),
        "alerts": await store.alerts.listed(everything=True),
        "breakers": await store.breakers.listed(),
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


async def test_all_that_can_be_read_comes_along(pair: Pair) -> None:
    source, target = pair
    before = await reading(source)
    done = await asyncio.to_thread(copied, source, target)
    rows = {part.name: part.rows for part in done.parts}
    assert min(rows.values()) >= 1 and rows["keys"] == 2 and rows["blobs"] >= 2, rows
    assert await reading(target) == before
    assert await reading(source) == before, "the source is as it was"
    async with store_at(target) as store, store_at(source) as old:
        assert await store.incarnation() != await old.incarnation()
        for name in ("new-1", "new-2", "new-3"):
            await store.register(host(name))
        records = {record.run_id: record for record in await store.list_runs(EVERY)}
        assert {record.pid for record in records.values()} == {None}, "none is any host's here"
        assert done.held == sum(record.held for record in records.values()) > 0
        assert all(record.held is not record.status.terminal for record in records.values())
        assert (records["busy"].status, records["failed"].status) == (Status.queued, Status.failed)
        assert [each[0] for each in await store.hosts()] == ["new-1", "new-2", "new-3"]


@pytest.mark.promise("K2")
async def test_what_waited_is_answered_and_ends(pair: Pair) -> None:
    source, target = pair
    await asyncio.to_thread(copied, source, target)
    async with world_at(target, "of-the-copy") as made:
        newest = await made.store.newest()
        await made.settle()
        assert (await made.store.get("asking")).status is Status.waiting_for_input, "it is held"
        assert await made.store.hold("asking", False) == 1
        for answer in ("north", None, "done"):
            request = await made.asked("asking")
            status = "answered" if request.kind == "input" else "approved"
            await made.store.resolve(request.request_id, status, "ben", made.clock(), answer)
        result = await made.finish("asking")
        assert result.value == ["north", True, "done"]
        tail = await made.store.tail(newest, 1_000)
        assert tail and min(frame.seq for frame in tail) > newest, "numbers go on above those that were copied"
        again = await made.run("fan", ["d"], run_id="new", root_run_id="new")
        assert again.status is Status.completed
        assert await made.store.list_runs(RunQuery(held=True))


async def test_a_second_copy_changes_nothing_and_a_used_one_is_refused(across: Pair) -> None:
    source, target = across
    first = await asyncio.to_thread(copied, source, target)
    before = await reading(target)
    again = await asyncio.to_thread(copied, source, target)
    assert (first.again, again.again) == (False, True)
    assert [(part.name, part.rows, part.digest) for part in again.parts] == [
        (part.name, part.rows, part.digest) for part in first.parts
    ]
    assert await reading(target) == before
    async with store_at(target) as store:
        await store.hold("asking", False)
    with pytest.raises(InvalidInput, match=r"one of the two has gone on since: table runs has .* name an empty store"):
        await asyncio.to_thread(copied, source, target)


async def test_a_store_that_is_used_is_no_target(across: Pair) -> None:
    source, target = across
    async with store_at(target) as store:
        await store.submit([new_run("mine")])
    with pytest.raises(InvalidInput, match=r"has a store: name one that|holds a store already \(table runs\): name an"):
        await asyncio.to_thread(copied, source, target)
    async with store_at(target) as store:
        assert [record.run_id for record in await store.list_runs(EVERY)] == ["mine"]
        await store.submit([new_run("more")])


async def test_hosts_that_live_forbid_a_planned_move(across: Pair) -> None:
    source, target = across
    async with store_at(source) as store:
        assert [each[0] for each in await store.hosts()] == ["h1"], "filling left it, and this process lives"
        with pytest.raises(StoreBusy, match=r"hosts use .* \(1 alive\): stop all of them first"):
            await asyncio.to_thread(copied, source, target, keep_running=True)
        await store.retire("h1")
    done = await asyncio.to_thread(copied, source, target, keep_running=True)
    assert done.held == 0
    async with store_at(target) as store:
        await store.register(host("h2"))
        found = {lease.request.run_id for lease in await store.lease(host("h2"), "runs", 10, START)}
        assert "busy" in found, "it goes on by itself"


PARTIAL = """
import sys
from tests.doubles.places import Place
from tests.unit.store.test_copying import copied, source_of, target_of
from retinue.store.copying import copy

between = sys.argv.index("/")
source, target = Place.of(*sys.argv[2:between]), Place.of(*sys.argv[between + 1:])
stop = sys.argv[1]

class Stopping:
    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        return getattr(self._target, name)

    def insert(self, table, columns, rows):
        self._target.insert(table, columns, rows if table.name != stop else rows[: len(rows) // 2])
        self.reached(table.name)

    def put_blobs(self, blobs):
        self._target.put_blobs(blobs[:1] if stop == "blobs" else blobs)
        self.reached("blobs")

    def finish(self):
        self._target.finish()
        self.reached("finish")

    def reached(self, name):
        if name == stop:
            print("reached", name, flush=True)
            sys.stdin.readline()

with source_of(source) as one, target_of(target) as other:
    copy(one, Stopping(other))
"""
"""A copy that stops in the middle of a table, with part of its rows written, and waits for its death."""


@pytest.mark.parametrize("stop", ["runs", "journal", "blobs", "finish"])
async def test_a_copy_that_was_killed_ends_as_any_other(across: Pair, stop: str) -> None:
    """Between the two tries the source goes on, and what the second brings is the newest."""
    source, target = across
    with python(PARTIAL, stop, *source.arguments, "/", *target.arguments) as other:
        await asyncio.to_thread(other.wait_for, "reached")
        if stop != "finish" and target.url is not None:
            with pytest.raises(StoreError, match="a copy into this store has not ended: repeat the command"):
                await asyncio.to_thread(target.open)
        other.kill()
    if stop == "finish" and target.url is not None:
        assert (await asyncio.to_thread(copied, source, target)).again
        return
    assert target.url is not None or not (target.folder / "data" / "store.db").exists()
    async with world_at(source, "later") as made:
        await made.run("fan", ["late"], run_id="late", root_run_id="late")
        await made.store.cancel("asking", "ben", START + 5)
    done = await asyncio.to_thread(copied, source, target)
    assert not done.again
    found = await reading(target)
    assert found == await reading(source) and found["late"]["result"].status is Status.completed
    left = [path.name for path in (*source.folder.rglob("*"), *target.folder.rglob("*")) if path.name.startswith("sna")]
    assert left == [], "what the dead one left is gone"


async def test_a_copy_of_another_store_is_not_continued(places: Places, filled: dict[str, Place]) -> None:
    with places.new("sqlite") as other, places.new("postgres") as target:
        source = filled["sqlite"]
        async with store_at(other) as store:
            await store.submit([new_run("mine")])
        with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as process:
            await asyncio.to_thread(process.wait_for, "reached")
        with pytest.raises(InvalidInput, match="is a copy of another store: name an empty one"):
            await asyncio.to_thread(copied, other, target)
        with pytest.raises(InvalidInput, match="is being filled by a copy: let that one end first"):
            await asyncio.to_thread(copied, target, other)


async def test_a_store_that_somebody_made_meanwhile_is_left_alone(places: Places, filled: dict[str, Place]) -> None:
    """What was copied waits beside it, until the command is given again."""
    source = filled["postgres"]
    with places.new("sqlite") as target:
        refused = pytest.raises(InvalidInput, match="was made while the copy was")
        with source_of(source) as one, refused, target_of(target) as other:
            copy(one, other)
            async with store_at(target) as store:
                await store.submit([new_run("mine")])
        with pytest.raises(InvalidInput, match="has a store: name one that has none"):
            await asyncio.to_thread(copied, source, target)
        async with store_at(target) as store:
            assert [record.run_id for record in await store.list_runs(EVERY)] == ["mine"]
        (target.folder / "data" / "store.db").unlink()
        await asyncio.to_thread(copied, source, target)
        assert await reading(target) == await reading(source)


async def test_two_copies_into_one_store_do_not_meet(across: Pair) -> None:
    source, target = across
    with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as other:
        await asyncio.to_thread(other.wait_for, "reached")
        with pytest.raises(StoreBusy, match="another process copies into"):
            await asyncio.to_thread(copied, source, target)


async def test_who_had_the_target_open_writes_nothing_into_it(places: Places, filled: dict[str, Place]) -> None:
    source = filled["sqlite"]
    with places.new("postgres") as target:
        async with store_at(target) as early:
            with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as other:
                await asyncio.to_thread(other.wait_for, "reached")
                with pytest.raises(SchemaMismatch):
                    await early.submit([new_run("early")])
        await asyncio.to_thread(copied, source, target)
        assert await reading(target) == await reading(source)


async def test_a_difference_is_told_by_its_table(places: Places, filled: dict[str, Place]) -> None:
    """Whatever changes a row on its way, the target stays closed."""
    source = filled["sqlite"]
    with places.new("postgres") as target:
        assert target.url is not None
        with ExitStack() as stack:
            one, other = stack.enter_context(source_of(source)), stack.enter_context(target_of(target))
            insert = other.insert

            def harm(table: Any, columns: Any, rows: Any) -> None:
                insert(table, columns, rows)
                if table.name == "events":
                    with psycopg.connect(str(target.url)) as connection:
                        connection.execute("UPDATE events SET at = at + 1 WHERE num = (SELECT min(num) FROM events)")

            other.insert = harm  # type: ignore[method-assign]
            with pytest.raises(StoreError, match=r"table events is not the same after copying: .*stays closed"):
                copy(one, other)
        with pytest.raises(StoreError, match="a copy into this store has not ended"):
            await asyncio.to_thread(target.open)


async def test_keys_are_wrapped_anew(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_KEY", "old")
    monkeypatch.setenv("NEW_KEY", "new")
    with places.new("postgres") as source, places.new("postgres") as target:
        async with store_at(source, key="${OLD_KEY}") as store:
            await store.submit([new_run("top", {"word": "marzipan"})])
        with source_of(source) as one, target_of(target) as other, pytest.raises(StoreError, match="give `store_key`"):
            copy(one, other)
        with source_of(source, key="${OLD_KEY}") as one, target_of(target, key="${NEW_KEY}") as other:
            copy(one, other)
        async with store_at(target, key="${NEW_KEY}") as store:
            assert await store.inputs(["top"]) == {"top": {"word": "marzipan"}}
        async with store_at(target, key="${OLD_KEY}") as store:
            with pytest.raises(StoreError, match="does not open with `store_key`"):
                await store.inputs(["top"])


async def test_without_keys_the_contents_stay_closed(across: Pair) -> None:
    source, target = across
    done = await asyncio.to_thread(copied, source, target, keys=False)
    assert "keys" not in {part.name for part in done.parts}
    async with store_at(target) as store:
        assert await store.inputs(["busy"]) == {"busy": None}


async def test_blobs_in_a_shared_place_stay_there(places: Places, tmp_path: Path) -> None:
    place = {"blobs": f"file://{tmp_path}/shared"}
    with places.new("sqlite") as source, places.new("postgres") as target:
        async with store_at(source, **place) as store:
            await store.submit([new_run("top", LARGE)])
        done = await asyncio.to_thread(copied, source, target)
        assert {part.name: part.rows for part in done.parts}["blobs"] == 0
        async with store_at(target, **place) as store:
            assert await store.inputs(["top"]) == {"top": LARGE}


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
async def test_a_data_folder_of_an_older_version_is_copied(folder: Path, places: Places, tmp_path: Path) -> None:
    """It stays of its version."""
    data = unpacked(folder, tmp_path)
    with places.new("postgres") as target:
        before = (data / "store.db").read_bytes()
        with sqlite_source(data) as one, target_of(target) as other:
            copy(one, other)
        assert (data / "store.db").read_bytes()[100:] == before[100:]
        found = await reading(target)
    assert found == await reading(Place("sqlite", tmp_path)) and len(found) > 6


async def test_an_empty_store_is_copied(places: Places) -> None:
    with places.new("sqlite") as source, places.new("postgres") as target, places.new("sqlite") as back:
        async with store_at(source):
            pass
        await asyncio.to_thread(copied, source, target)
        await asyncio.to_thread(copied, target, back)
        for place in (target, back):
            async with store_at(place) as store:
                assert (await store.list_runs(EVERY), await store.tail(0, 10)) == ([], [])
                await store.submit([new_run("first")])
                assert [frame.run_id for frame in await store.tail(0, 10)] == ["first"]


async def test_a_copy_is_of_one_moment_while_runs_are_written(across: Pair) -> None:
    """No acknowledged entry that was there before is missing, no position has a gap, and writing goes on after."""
    source, target = across
    async with store_at(source) as store:
        await store.register(host("writing"))
        await store.submit([new_run(name) for name in ("left", "right")])
        owners = [await own(store, name, host("writing")) for name in ("left", "right")]
        stopping, wrote = asyncio.Event(), threading.Event()

        def copy_slowly() -> None:
            """Something is written between the reading of one table and that of the next."""
            with source_of(source) as one, target_of(target) as other:
                insert = other.insert

                def lag(table: Any, columns: Any, rows: Any) -> None:
                    insert(table, columns, rows)
                    wrote.clear()
                    assert wrote.wait(30)

                other.insert = lag  # type: ignore[method-assign]
                copy(one, other)

        async def write() -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                for owner in owners:
                    await owner.append(said(f"s{number}", "y" * 500))
                    await owner.append(said("large", f"{number}" * 70_000))
                    wrote.set()

        before = [owner.position for owner in owners]
        writing = asyncio.create_task(write())
        await asyncio.to_thread(copy_slowly)
        stopping.set()
        await writing
        for owner in owners:
            await owner.append(said("after"))
        names = ("left", "right")
        written = {name: [frame async for frame in store.read(name)] for name in names}
    async with store_at(target) as store:
        for name, least in zip(names, before, strict=True):
            kept = [frame async for frame in store.read(name)]
            assert least <= kept[-1].position < written[name][-1].position
            assert kept == written[name][: len(kept)]
            assert (await store.get(name)).position == kept[-1].position


async def test_more_than_a_page_is_copied(across: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages end by rows and by bytes."""
    source, target = across
    monkeypatch.setattr(postgres_copying, "_ROWS", 7)
    async with store_at(source) as store:
        for page in range(3):
            await store.submit([new_run(f"run-{page}-{number}", "y" * 20_000) for number in range(400)])
        before = len(await store.list_runs(EVERY))
    done = await asyncio.to_thread(copied, source, target)
    assert {part.name: part.rows for part in done.parts}["runs"] == before > 1_200
    async with store_at(target) as store:
        assert len(await store.list_runs(EVERY)) == before


async def test_every_table_of_a_store_is_copied_or_left_out_on_purpose(places: Places) -> None:
    known = {table.name for table in TABLES} | {HOSTS}
    with places.new("sqlite") as place, places.new("postgres") as other:
        async with store_at(place) as store, store_at(other) as far:
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            assert {row[0] for row in await store._read(lambda c: c.execute(query).fetchall())} == known
            query = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
            found = {row[0] for row in await far._read(lambda c: c.execute(query).fetchall())}
            assert found == known | {"keys", "blobs"}


@contextmanager
def no_store() -> Iterator[None]:
    with pytest.raises(InvalidInput, match="has no store: nothing is to be copied"):
        yield


async def test_nothing_is_copied_from_nowhere(across: Pair) -> None:
    with no_store():
        await asyncio.to_thread(copied, *reversed(across))
