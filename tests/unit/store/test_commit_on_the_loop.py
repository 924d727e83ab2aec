"""Commits on the event loop's own thread: only when short, in order with the thread's, with the same guarantees."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import Owner, entries_of, host, new_run, own, said

from retinue.runs.errors import Fenced
from retinue.store.sqlite import SqliteStore

pytestmark = pytest.mark.rule("R3")
_BOUND = 20.0

HOLD = """
import pathlib, sys, threading
from retinue.store.lock import WriterLock
lock = WriterLock(pathlib.Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
threading.Event().wait(60)
"""


@pytest.fixture(autouse=True)
def a_disk_of_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not decide what these tests see."""
    monkeypatch.setattr("retinue.store.writer._QUICK", 5.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data", patience=60.0)
    await store.register(host())
    yield store
    await store.close()


async def thread_of(store: SqliteStore, brief: bool = True) -> int:
    """The thread that commits an operation submitted now."""
    return await store._writer.submit(lambda _: threading.get_ident(), brief=brief)


async def settle(store: SqliteStore) -> None:
    """Bring the writer to where one run that writes alone finds it."""
    for _ in range(100):
        if await thread_of(store) == threading.get_ident():
            await asyncio.sleep(0)
            return
        await asyncio.sleep(0)
    raise AssertionError("the loop never commits")


async def lead(store: SqliteStore, name: str = "top") -> Owner:
    await store.submit([new_run(name)])
    return await own(store, name)


async def test_who_writes_alone_finds_the_future_done(store: SqliteStore) -> None:
    await settle(store)
    written = store._writer.submit(lambda _: threading.get_ident(), brief=True)
    assert written.done() and written.result() == threading.get_ident()


async def test_what_one_round_brings_shares_a_transaction(store: SqliteStore) -> None:
    await settle(store)
    seen: list[int] = []

    def look(connection: apsw.Connection) -> None:
        seen.append(connection.total_changes())
        connection.execute("UPDATE hosts SET beat = beat + 1")

    commits = store.version()
    waiting = [store._writer.submit(look, brief=True) for _ in range(8)]
    await asyncio.gather(*waiting)
    assert len(set(seen)) == 8 and store.version() - commits <= 2


async def test_a_long_operation_and_a_crowd_are_left_to_the_thread(store: SqliteStore) -> None:
    await settle(store)
    assert await thread_of(store, brief=False) != threading.get_ident()
    await settle(store)
    crowd = await asyncio.gather(*(thread_of(store) for _ in range(40)))
    assert threading.get_ident() not in crowd[1:]


async def test_after_a_slow_commit_the_next_is_left_to_the_thread(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settle(store)
    monkeypatch.setattr("retinue.store.writer._QUICK", 0.01)
    await store._writer.submit(lambda _: time.sleep(0.02), brief=True)
    await asyncio.sleep(0)
    assert await thread_of(store) != threading.get_ident()
    monkeypatch.undo()
    await settle(store)


@pytest.mark.parametrize("pause", [0.0, 0.002])
async def test_loop_and_thread_commit_in_the_order_of_submission(store: SqliteStore, pause: float) -> None:
    applied: list[int] = []
    threads: set[int] = set()

    def note(number: int) -> Callable[[apsw.Connection], None]:
        def write(_: apsw.Connection) -> None:
            applied.append(number)
            threads.add(threading.get_ident())
            if number % 50 == 0:
                time.sleep(pause)

        return write

    waiting = []
    for number in range(600):
        waiting.append(store._writer.submit(note(number), brief=number % 7 != 0))
        if number % 3 == 0:
            await asyncio.sleep(0)
        if number % 20 == 0:
            await waiting[-1]
    await asyncio.gather(*waiting)
    assert applied == sorted(applied) and len(applied) == 600
    assert len(threads) == 2


async def test_appends_of_two_loops_keep_their_order(store: SqliteStore) -> None:
    owners = [await lead(store, name) for name in ("here", "there")]

    async def write(owner: Owner) -> None:
        for number in range(150):
            await owner.append(said(f"n{number}"))

    await asyncio.gather(write(owners[0]), asyncio.to_thread(lambda: asyncio.run(write(owners[1]))))
    for name in ("here", "there"):
        topics = [getattr(entry, "topic", "") for entry in await entries_of(store, name)][1:]
        assert topics == [f"n{number}" for number in range(150)]


@pytest.mark.rule("R8")
async def test_the_loop_lives_while_another_process_has_the_writers_lock(store: SqliteStore) -> None:
    owner = await lead(store)
    await settle(store)
    with python(HOLD, store.folder / "store.lock") as other:
        await asyncio.to_thread(other.wait_for, "held")
        waiting = asyncio.ensure_future(owner.append(said("late")))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        other.kill()
        async with asyncio.timeout(_BOUND):
            await waiting
    assert len(await entries_of(store, "top")) == 2


async def test_the_loop_lives_while_someone_has_the_file_locked(store: SqliteStore) -> None:
    owner = await lead(store)
    await settle(store)
    other = apsw.Connection(str(store.folder / "store.db"))
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(owner.append(said("late")))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(_BOUND):
        await waiting


async def test_a_refused_append_on_the_loop_harms_only_itself(store: SqliteStore) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]
    await settle(store)
    answers = [store.append(owner.make(said("x"), expected=9 if n == 1 else 1)) for n, owner in enumerate(owners)]
    kinds = [type(one).__name__ for one in await asyncio.gather(*answers, return_exceptions=True)]
    assert kinds == ["Appended", "Fenced", "Appended"]
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [2, 1, 2]
    with pytest.raises(Fenced):
        await store.append(owners[0].make(said("y")))


async def test_a_full_disk_on_the_loop_fails_the_round_as_one_and_the_next_goes_through(store: SqliteStore) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(2)]

    def lose(connection: apsw.Connection) -> None:
        assert threading.get_ident() == loop_thread
        connection.execute("ROLLBACK")
        raise apsw.FullError("FullError: database or disk is full")

    loop_thread = threading.get_ident()
    await settle(store)
    answers = [
        store.append(owners[0].make(said("before"))),
        store._writer.submit(lose, brief=True),
        store.append(owners[1].make(said("after"))),
    ]
    kinds = [type(one).__name__ for one in await asyncio.gather(*answers, return_exceptions=True)]
    assert kinds[1:] == ["StoreFull", "StoreFull"]
    assert len(await entries_of(store, "run-0")) == (2 if kinds[0] == "Appended" else 1)
    assert len(await entries_of(store, "run-1")) == 1
    await owners[1].append(said("again"))


async def test_the_log_is_copied_by_the_thread_and_stays_bounded(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.store.sqlite_pen._CHECKPOINT", 20)
    owner = await lead(store)
    for _ in range(60):
        await owner.append(said("x", "y" * 2_000))
    assert (store.folder / "store.db-wal").stat().st_size < 60 * 4_200
