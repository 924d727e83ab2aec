"""Hosts and servers that go away: who is cut off loses its runs and cannot write late; what was acknowledged stays."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import psycopg
import pytest
from tests.doubles.places import Place, Places, Store
from tests.doubles.postgres import PostgresServer
from tests.doubles.processes import python
from tests.doubles.shapes import START, Owner, entries_of, host, new_run, own, said

from retinue.runs.contracts import Status
from retinue.runs.errors import Fenced, SchemaMismatch, StoreError
from retinue.runs.ownership import HostInfo
from retinue.store import liveness
from retinue.store.postgres.connection import PostgresConnection
from retinue.store.postgres.opening import connect, session_name

LEASE = 0.4  # seconds
SHOWN = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
OWN = """
import asyncio, sys
from tests.doubles.places import Place
from tests.doubles.shapes import START, host, own, said
from retinue.runs.errors import StoreError

async def main():
    store = Place.of(*sys.argv[1:]).open()
    me = host("other", node="elsewhere", boot_id="another machine")
    await store.register(me)
    owner = await own(store, "top", me)
    await owner.append(said("mine"))
    print("owns", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            if line == "tend\\n":
                await store.tend(me, START, 60.0)
            else:
                await owner.append(said(line.strip()))
            print("did", flush=True)
        except StoreError as error:
            print("refused", type(error).__name__, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def shared(places: Places) -> Iterator[Place]:
    with places.new("postgres") as place:
        yield place


@pytest.fixture
async def store(shared: Place) -> AsyncIterator[Store]:
    store = shared.open()
    await store.register(host())
    await store.submit([new_run("top")])
    yield store
    await store.close()


async def until_taken_back(store: Store, judge: HostInfo, lease_seconds: float = LEASE) -> None:
    """The duties of a host, until a lease has run out by the database's clock; they say START all the time."""
    async with asyncio.timeout(30):
        while not await store.tend(judge, START, lease_seconds):
            await asyncio.to_thread(threading.Event().wait, 0.02)


def topics(entries: list[object]) -> list[str]:
    return [entry.topic for entry in entries if getattr(entry, "kind", "") == "record"]  # type: ignore[attr-defined]


@pytest.mark.rule("R9")
@pytest.mark.promise("C3", "C6")
async def test_a_host_that_is_frozen_elsewhere_loses_its_runs_and_is_fenced_when_it_wakes(
    store: Store, shared: Place
) -> None:
    with python(OWN, *shared.arguments) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        other.freeze()
        await until_taken_back(store, host())
        new = await own(store, "top")
        assert new.leased.epoch == 2
        await new.append(said("its heir's"))
        other.process.send_signal(signal.SIGCONT)
        other.tell("late")
        assert await asyncio.to_thread(other.wait_for, "refused") == "refused Fenced"
        assert other.process.poll() is None, "nobody is killed on another machine"
    assert topics(await entries_of(store, "top")) == ["mine", "its heir's"]
    assert "other" not in [name for name, *_ in await store.hosts()]


@pytest.mark.rule("R9")
@pytest.mark.promise("C3", "C6")
async def test_what_a_host_that_was_cut_off_has_locked_holds_nobody_up(store: Store, shared: Place) -> None:
    me = host("other", node="elsewhere", boot_id="another machine", pid=4711, pid_started=1.0)
    assert shared.url is not None
    await store.register(me)
    await own(store, "top", me)
    with psycopg.connect(
        shared.url, application_name=session_name(liveness.Owner(me.pid, me.pid_started), me.boot_id)
    ) as lost:
        lost.execute("SELECT num FROM runs FOR UPDATE")
        lost.execute("SELECT num FROM hosts WHERE host_id = 'other' FOR UPDATE")
        await until_taken_back(store, host())
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
    assert (await own(store, "top")).leased.epoch == 2


def test_the_server_misses_a_client_within_seconds_whatever_it_waits_for(shared: Place) -> None:
    """A server that waits for the rest of a pipeline knows no other bound; without these it is hours."""
    assert shared.url is not None
    with closing(connect(shared.url, 10.0)) as connection:
        told = {name: connection.execute(f"SHOW {name}").fetchone() for name in SHOWN}
    assert told == dict(zip(SHOWN, (("2",), ("1",), ("3",), ("5000",)), strict=True))


@pytest.mark.rule("R9")
async def test_a_host_elsewhere_that_shows_itself_keeps_its_runs(store: Store, shared: Place) -> None:
    """Its pid and its boot mean nothing here: only its silence counts."""
    with python(OWN, *shared.arguments) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        for _ in range(3):
            assert await store.tend(host(), START, lease_seconds=60.0) == 0
        other.tell("tend")
        await asyncio.to_thread(other.wait_for, "did")
        assert await store.tend(host(), START, lease_seconds=60.0) == 0
        other.tell("still mine")
        await asyncio.to_thread(other.wait_for, "did")
    assert (await store.get("top")).status is Status.in_progress


@pytest.mark.rule("R9")
async def test_who_could_not_reach_the_store_itself_takes_nobody_for_silent(
    store: Store, shared: Place, postgres: PostgresServer
) -> None:
    """A server that was away silences all hosts; the first to come back must not inherit the others' runs."""
    with python(OWN, *shared.arguments) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        await store.tend(host(), START, LEASE)
        other.tell("tend")
        await asyncio.to_thread(other.wait_for, "did")
        postgres.pause()
        await asyncio.to_thread(threading.Event().wait, 2 * LEASE)
        postgres.resume()
        assert await store.tend(host(), START, LEASE) == 0
        other.tell("tend")
        await asyncio.to_thread(other.wait_for, "did")
        assert (await store.get("top")).status is Status.in_progress


@pytest.mark.rule("R9")
async def test_a_store_whose_connections_were_cut_goes_on_with_new_ones(
    store: Store, shared: Place, postgres: PostgresServer
) -> None:
    owner = await own(store, "top")
    await owner.append(said("before"))
    assert shared.url is not None
    with closing(psycopg.connect(shared.url, autocommit=True)) as killer:
        killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await insist(owner, "after")
    assert (await store.get("top")).position == 3
    assert topics(await entries_of(store, "top")) == ["before", "after"]


async def insist(owner: Owner, topic: str) -> None:
    """Send one append until it is acknowledged; the same one, as whoever heard no answer does."""
    append = owner.make(said(topic))
    async with asyncio.timeout(60):
        while True:
            try:
                owner.position = (await owner.store.append(append)).position
            except Fenced:
                raise
            except StoreError:
                await asyncio.sleep(0.02)
                continue
            return


@pytest.mark.rule("R3")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_lease_whose_answer_was_lost_is_given_back_by_who_does_not_know_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Else a living host would own a run that it knows nothing of. A host reclaims after every such error."""
    run = PostgresConnection.run
    lost = []

    def run_and_lose(self: PostgresConnection, statement: str, values: object = ()) -> object:
        if statement == "COMMIT" and not lost:
            lost.append(statement)
            if committed:
                run(self, statement)
            self.raw.close()
            raise psycopg.OperationalError("the answer was lost")
        return run(self, statement, values)

    monkeypatch.setattr(PostgresConnection, "run", run_and_lose)
    with pytest.raises(StoreError, match="look whether it was done"):
        await store.lease(host(), "runs", 5, START)
    assert lost and await store.reclaim(host().host_id, []) == committed
    [leased] = await store.lease(host(), "runs", 5, START)
    assert leased.epoch == 1 + committed
    await Owner(store, leased).append(said("mine"))
    assert await store.lease(host(), "runs", 5, START) == []


@pytest.mark.rule("R3")
@pytest.mark.promise("C1")
@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_server_restarted_between_appends_loses_none_and_doubles_none(
    store: Store, shared: Place, postgres: PostgresServer, mode: str
) -> None:
    names = [f"run-{number:02d}" for number in range(12)]
    await store.submit([new_run(name) for name in names])
    owners = [await own(store, name) for name in names]
    done = asyncio.Event()
    written = dict.fromkeys(names, 0)
    progress: asyncio.Queue[str] = asyncio.Queue()

    async def write(owner: Owner) -> None:
        name = owner.leased.request.run_id
        while not done.is_set():
            await insist(owner, f"said {written[name]}")
            written[name] += 1
            progress.put_nowait(name)

    writing = [asyncio.ensure_future(write(owner)) for owner in owners]
    for _ in range(4):
        async with asyncio.timeout(60):
            for _ in range(50):
                await progress.get()
        await asyncio.to_thread(postgres.restart, mode)
    done.set()
    await asyncio.gather(*writing)
    for name in names:
        assert topics(await entries_of(store, name)) == [f"said {number}" for number in range(written[name])]
    again = shared.open()
    assert topics(await entries_of(again, names[0])) == [f"said {number}" for number in range(written[names[0]])]
    await again.close()


@pytest.mark.rule("R3")
async def test_a_server_restarted_while_nobody_asked_is_not_noticed(
    store: Store, shared: Place, postgres: PostgresServer
) -> None:
    owner = await own(store, "top")
    postgres.restart("immediate")
    await owner.append(said("large", "x" * 200_000))
    assert (await store.get("top")).position == 2
    postgres.restart("immediate")
    assert (await store.get("top")).position == 2
    postgres.restart("immediate")
    await store.submit([new_run("other", "x" * 200_000, tenant_id="a new tenant")])
    assert [entry.content for entry in await entries_of(store, "other")] == ["x" * 200_000]


@pytest.mark.rule("R3")
async def test_a_server_that_is_away_for_too_long_is_told_and_nothing_hangs(
    shared: Place, postgres: PostgresServer
) -> None:
    store = shared.open(patience=1.0)
    try:
        await store.register(host())
        await store.submit([new_run("top")])
        owner = await own(store, "top")
        postgres.stop("immediate")
        try:
            async with asyncio.timeout(30):
                with pytest.raises(StoreError):
                    await store.append(owner.make(said("x")))
                with pytest.raises(StoreError):
                    await store.get("top")
                with pytest.raises(StoreError):
                    await store.submit([new_run("other")])
        finally:
            postgres.start()
        await insist(owner, "x")
        async with asyncio.timeout(10):
            assert (await store.get("top")).position == 2
    finally:
        await store.close()


@pytest.mark.rule("R3")
async def test_a_server_that_is_frozen_is_told_within_the_bound(shared: Place, postgres: PostgresServer) -> None:
    store = shared.open(patience=1.0)
    try:
        await store.register(host())
        await store.submit([new_run("top")])
        owner = await own(store, "top")
        postgres.pause()
        try:
            async with asyncio.timeout(30):
                with pytest.raises(StoreError):
                    await store.append(owner.make(said("x")))
                with pytest.raises(StoreError):
                    await store.get("top")
        finally:
            postgres.resume()
        await insist(owner, "x")
        assert topics(await entries_of(store, "top")) == ["x"]
    finally:
        await store.close()


@pytest.mark.rule("R16")
async def test_an_old_process_cannot_write_into_a_migrated_store(store: Store, shared: Place) -> None:
    owner = await own(store, "top")
    assert shared.url is not None
    with closing(psycopg.connect(shared.url, autocommit=True)) as migration:
        changed = migration.execute("UPDATE meta SET value = '99' WHERE name = 'schema'").rowcount
    assert changed == 1
    for refused in (owner.append(said("late")), store.submit([new_run("other")]), store.signal("top", "go", 1, START)):
        with pytest.raises(SchemaMismatch, match="schema 99"):
            await refused
    assert len(await entries_of(store, "top")) == 1
    with pytest.raises(SchemaMismatch, match="schema 99"):
        shared.open()


@pytest.mark.rule("R3", "R9")
async def test_what_a_host_holds_unknowingly_goes_back_to_its_queue_and_the_rest_stays(place: Place) -> None:
    store = place.open()
    try:
        await store.register(host())
        await store.register(host("h2"))
        await store.submit([new_run("known"), new_run("unknown"), new_run("another's")])
        owner = await own(store, "known")
        await own(store, "unknown")
        other = await own(store, "another's", host("h2"))
        assert await store.reclaim("h1", ["known"]) == 1
        assert await store.reclaim("h1", ["known"]) == 0
        await owner.append(said("still mine"))
        await other.append(said("still mine"))
        assert (await own(store, "unknown")).leased.epoch == 2
    finally:
        await store.close()
