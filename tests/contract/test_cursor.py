"""Who follows the journal while others write: no entry is missed and none comes twice, whoever is slow to commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from tests.doubles.places import Place, Places, Store
from tests.doubles.postgres import PostgresServer
from tests.doubles.shapes import Owner, host, new_run, own, said
from tests.doubles.sides import Side, at_once, two_sides

from retinue.runs.journal import Frame
from retinue.runs.ownership import Append
from retinue.store import owning
from retinue.store.encoding import encode_append

pytestmark = pytest.mark.rule("R11")
Sides = tuple[Side, Side]


@pytest.fixture
def shared(places: Places) -> Iterator[Place]:
    """A database: with SQLite nobody writes while a transaction is open."""
    with places.new("postgres") as place:
        yield place


@pytest.fixture
def sides(shared: Place) -> Iterator[Sides]:
    with two_sides(shared) as both:
        yield both


async def lead(store: Store, host_id: str, name: str) -> Owner:
    """A submitted run in the hands of a new host."""
    await store.register(host(host_id))
    await store.submit([new_run(name)])
    return await own(store, name, host(host_id))


async def follow(store: Store, after: int, page: int = 200) -> list[Frame]:
    """All that a reader gets that goes from page to page."""
    found: list[Frame] = []
    while frames := await store.tail(after, page):
        found += frames
        after = frames[-1].seq
    return found


def topics(frames: list[Frame]) -> list[str]:
    return [entry.topic for frame in frames for entry in frame.entries if entry.kind == "record"]


class Held:
    """An append in a transaction of its own that has numbered its entries and commits when it may."""

    def __init__(self, side: Side, append: Append) -> None:
        self._go = threading.Event()
        self._written = threading.Event()

        def write(connection: Any) -> Any:
            store = side.store
            answer = owning.append(connection, encode_append(store._codec, append))
            self._written.set()
            assert self._go.wait(60)
            return answer

        async def submit(store: Store) -> Any:
            return await store._writer.submit(write)

        self._future: Future[Any] = side.begin(submit)
        assert self._written.wait(60)

    def commit(self) -> Any:
        self._go.set()
        return self._future.result(60)


@contextmanager
def held(side: Side, append: Append) -> Iterator[Held]:
    """It is committed at the end at the latest."""
    made = Held(side, append)
    try:
        yield made
    finally:
        made.commit()


def test_the_tail_stays_behind_an_open_transaction_and_goes_on_when_it_ends(sides: Sides) -> None:
    slow, quick = (side.run(lambda store, n=n: lead(store, f"h{n}", f"run-{n}")) for n, side in enumerate(sides))  # type: ignore[misc]
    start = sides[1].run(lambda store: store.newest())
    with held(sides[0], slow.make(said("slow"))) as open_one:
        for number in range(3):
            sides[1].run(lambda _, n=number: quick.append(said(f"quick {n}")))  # type: ignore[misc]
        seen = sides[1].run(lambda store: follow(store, start))
        assert topics(seen) == [], "behind the open transaction's number nothing may be told"
        assert sides[1].run(lambda store: store.newest()) <= start, "a reader that begins now would miss it"
        open_one.commit()
    seen = sides[1].run(lambda store: follow(store, start))
    assert sorted(topics(seen)) == ["quick 0", "quick 1", "quick 2", "slow"]
    assert topics(seen)[0] == "slow", "it had the first number"


def test_what_was_committed_before_a_transaction_began_is_told_while_it_is_open(sides: Sides) -> None:
    slow, quick = (side.run(lambda store, n=n: lead(store, f"h{n}", f"run-{n}")) for n, side in enumerate(sides))  # type: ignore[misc]
    start = sides[1].run(lambda store: store.newest())
    sides[1].run(lambda _: quick.append(said("before")))
    with held(sides[0], slow.make(said("slow"))):
        assert topics(sides[1].run(lambda store: follow(store, start))) == ["before"]


def test_a_transaction_that_was_taken_back_leaves_a_gap_and_stops_nobody(sides: Sides) -> None:
    slow, quick = (side.run(lambda store, n=n: lead(store, f"h{n}", f"run-{n}")) for n, side in enumerate(sides))  # type: ignore[misc]
    start = sides[1].run(lambda store: store.newest())

    def fail(connection: Any) -> None:
        owning.append(connection, encode_append(sides[0].store._codec, slow.make(said("never"))))
        raise ValueError("no")

    async def submit(store: Store) -> None:
        with pytest.raises(ValueError, match="no"):
            await store._writer.submit(fail)

    sides[0].run(submit)
    sides[1].run(lambda _: quick.append(said("after")))
    assert topics(sides[1].run(lambda store: follow(store, start))) == ["after"]


def test_transactions_of_other_databases_and_readers_do_not_freeze_the_tail(
    sides: Sides, shared: Place, postgres: PostgresServer
) -> None:
    """Neither a writer in another database of the server, nor a reader or another program's lock in this one."""
    quick = sides[1].run(lambda store: lead(store, "h1", "run-1"))
    start = sides[1].run(lambda store: store.newest())
    other = postgres.fresh()
    assert shared.url is not None
    with closing(psycopg.connect(other)) as writer, closing(psycopg.connect(shared.url)) as reader:
        writer.execute("CREATE TABLE elsewhere (number int)")
        writer.execute("SELECT pg_advisory_xact_lock((1::bigint << 62) + 1)")
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM journal")
        reader.execute("SELECT pg_advisory_lock(-1), pg_advisory_lock(7), pg_advisory_lock(8, 9)")
        sides[1].run(lambda _: quick.append(said("on")))
        assert topics(sides[1].run(lambda store: follow(store, start))) == ["on"]


def test_a_tail_beside_writers_on_two_hosts_tells_everything_once_in_order(sides: Sides, shared: Place) -> None:
    """Many short transactions; some hold their number for a while; the reader never waits."""
    count = 25
    begun = sides[0].run(lambda store: store.newest())
    done = threading.Event()

    def write(side: int) -> Callable[[Store], Awaitable[None]]:
        async def one(owner: Owner, name: str) -> None:
            for number in range(count):
                await owner.append(said(f"{name} {number}"))
                if number % 5 == side:
                    await owner.store.submit([new_run(f"{name}-{number}")])

        async def all_of(store: Store) -> None:
            names = [f"writer-{side}-{part}" for part in range(8)]
            owners = [await lead(store, f"host-{name}", name) for name in names]
            await asyncio.gather(*(one(owner, name) for owner, name in zip(owners, names, strict=True)))

        return all_of

    async def read(store: Store) -> list[Frame]:
        found: list[Frame] = []
        while True:
            last_round = done.is_set()
            found += await follow(store, found[-1].seq if found else begun, page=7)
            if last_round:
                return found

    with third_side(shared) as reader:
        reading = reader.begin(read)
        assert at_once(sides, [write(0), write(1)]) == [None, None]
        done.set()
        told = reading.result(60)
    every = sides[0].run(lambda store: follow(store, begun))
    assert all(one.seq < two.seq for one, two in pairwise(told))
    assert [frame.seq for frame in told] == [frame.seq for frame in every]
    wanted = {f"writer-{side}-{part} {number}" for side in (0, 1) for part in range(8) for number in range(count)}
    assert sorted(topics(told)) == sorted(wanted)


@contextmanager
def third_side(place: Place) -> Iterator[Side]:
    side = Side(place)
    try:
        yield side
    finally:
        side.close()
