"""Group commit: a bad member harms only itself, a lost transaction fails as one, and the thread lives on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import Owner, entries_of, host, new_run, own, said

from retinue.runs.errors import InvalidInput, SchemaMismatch, StoreError, StoreFull
from retinue.store.lock import WriterLock
from retinue.store.sqlite import SqliteStore
from retinue.store.sqlite_pen import SqlitePen

pytestmark = pytest.mark.rule("R3")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data", patience=5.0)
    await store.register(host())
    yield store
    await store.close()


class Batch:
    """Holds the writer until several operations are queued, so that they share one transaction."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._go = threading.Event()
        self._begun = threading.Event()

    async def __aenter__(self) -> Callable[[Callable[[apsw.Connection], Any]], asyncio.Future[Any]]:
        def hold(_: apsw.Connection) -> None:
            self._begun.set()
            self._go.wait(20)

        self._holding = self._store._writer.submit(hold)
        await asyncio.to_thread(self._begun.wait, 20)
        return self._store._writer.submit

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._holding


async def lead(store: SqliteStore, name: str = "top") -> Owner:
    await store.submit([new_run(name)])
    return await own(store, name)


async def test_a_bad_member_of_a_commit_harms_only_itself(store: SqliteStore) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]
    async with Batch(store):
        good = [store.append(owner.make(said("good"))) for owner in owners[:2]]
        bad = store.append(owners[2].make(said("bad"), expected=7))
        unknown = store._writer.submit(lambda c: c.execute("SELECT nonsense FROM nowhere"))
        own_fault = store._writer.submit(_raise_invalid)
    said_back = await asyncio.gather(*good, bad, unknown, own_fault, return_exceptions=True)
    kinds = [type(answer).__name__ for answer in said_back]
    assert kinds == ["Appended", "Appended", "Fenced", "StoreError", "InvalidInput"]
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [2, 2, 1]


def _raise_invalid(connection: apsw.Connection) -> None:
    connection.execute("UPDATE runs SET priority = 99")
    raise InvalidInput("no")


async def test_what_a_bad_member_had_written_is_taken_back(store: SqliteStore) -> None:
    owner = await lead(store)
    async with Batch(store):
        before = store.append(owner.make(said("before")))
        bad = store._writer.submit(_raise_invalid)
    await before
    with pytest.raises(InvalidInput):
        await bad
    rows = await store._read(lambda c: c.execute("SELECT DISTINCT priority FROM runs").fetchall())
    assert rows == [(0,)]


async def test_what_stood_before_a_bad_member_is_applied_once(store: SqliteStore) -> None:
    def bump(connection: apsw.Connection) -> int:
        [[value]] = connection.execute("UPDATE hosts SET beat = beat + 1 RETURNING beat - 0").fetchall()
        return int(value)

    await store._writer.submit(lambda c: c.execute("UPDATE hosts SET beat = 0").fetchall())
    async with Batch(store):
        answers = [store._writer.submit(one) for one in (bump, _raise_invalid, bump, _raise_invalid, bump)]
    said_back = await asyncio.gather(*answers, return_exceptions=True)
    assert [said_back[n] for n in (0, 2, 4)] == [1, 2, 3]
    assert all(isinstance(said_back[n], InvalidInput) for n in (1, 3))


async def limit_pages(store: SqliteStore, room: int | None) -> None:
    """Leave `room` free pages in the file; None lifts the limit."""

    def limit(connection: apsw.Connection) -> None:
        [[count]] = connection.execute("PRAGMA page_count").fetchall()
        most = 2**30 if room is None else count + room
        connection.execute(f"PRAGMA max_page_count = {most}").fetchall()

    await store._writer.submit(limit)


async def test_a_full_disk_fails_the_batch_as_one_and_the_writer_goes_on(store: SqliteStore) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]
    await limit_pages(store, 4)
    big = os.urandom(25_000).hex()
    async with Batch(store):
        answers = [
            store.append(owners[0].make(said("small"))),
            store.append(owners[1].make(said("big", big))),
            store.append(owners[2].make(said("small"))),
        ]
    said_back = await asyncio.gather(*answers, return_exceptions=True)
    assert isinstance(said_back[1], StoreFull) and "free space" in str(said_back[1])
    for owner, answer in zip(owners, said_back, strict=True):
        written = len(await entries_of(store, owner.leased.request.run_id)) == 2
        assert written == (not isinstance(answer, StoreError))
    await limit_pages(store, None)
    for owner, answer in zip(owners, said_back, strict=True):
        if isinstance(answer, StoreError):
            await owner.append(said("again", big))
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [2, 2, 2]


async def test_a_transaction_that_was_lost_applies_none_of_its_members(store: SqliteStore) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]

    def lose(connection: apsw.Connection) -> None:
        connection.execute("ROLLBACK")
        raise apsw.FullError("FullError: database or disk is full")

    async with Batch(store):
        first = store.append(owners[0].make(said("before")))
        lost = store._writer.submit(lose)
        last = store.append(owners[1].make(said("after")))
    answers = await asyncio.gather(first, lost, last, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreFull] * 3
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [1, 1, 1]
    await owners[0].append(said("again"))


TRY_LOCK = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("free", flush=True)
"""


async def test_the_lock_is_free_after_every_fault(store: SqliteStore) -> None:
    owner = await lead(store)
    with pytest.raises(StoreError):
        await store.append(owner.make(said("x"), expected=9))
    with pytest.raises(InvalidInput):
        await store._writer.submit(_raise_invalid)
    with python(TRY_LOCK, store.folder / "store.lock") as other:
        await asyncio.to_thread(other.wait_for, "free")


async def test_a_fault_while_files_are_prepared_is_the_members_own(store: SqliteStore) -> None:
    owner = await lead(store)
    blobs = store.folder / "blobs"
    blobs.write_text("a file where a folder must be")
    async with Batch(store):
        bad = store.append(owner.make(said("large", "x" * 100_000)))
        good = store.submit([new_run("other")])
        good_task = asyncio.ensure_future(good)
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match="blobs"):
        await bad
    assert [record.run_id for record in await good_task] == ["other"]
    blobs.unlink()
    await owner.append(said("large", "x" * 100_000))


@pytest.mark.rule("R16")
async def test_an_old_process_cannot_write_into_a_migrated_store(store: SqliteStore) -> None:
    owner = await lead(store)
    await store._writer.submit(lambda c: c.execute("PRAGMA user_version = 99").fetchall())
    with pytest.raises(SchemaMismatch, match="schema 99"):
        await owner.append(said("late"))
    assert len(await entries_of(store, "top")) == 1


async def test_a_closed_store_refuses_instead_of_hanging(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "other")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.register(host())


async def test_what_was_submitted_before_the_close_is_on_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "other")
    waiting = [asyncio.ensure_future(store.submit([new_run(f"run-{n}")])) for n in range(20)]
    await asyncio.sleep(0)
    await store._writer.submit(lambda c: None)
    await asyncio.gather(*waiting)
    await store.close()
    with sqlite3.connect(tmp_path / "other" / "store.db") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (20,)
    connection.close()


async def test_a_lock_that_cannot_be_had_fails_the_batch_and_not_the_thread(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await lead(store)

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("retinue.store.lock.fcntl.lockf", no_locks)
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="No locks"):
            await owner.append(said("x"))
    monkeypatch.undo()
    async with asyncio.timeout(10):
        await owner.append(said("x"))


def test_a_loop_that_is_gone_does_not_stop_the_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data")
    go = threading.Event()

    async def leave() -> None:
        store._writer.submit(lambda _: go.wait(20))

    asyncio.run(leave())
    go.set()
    record = asyncio.run(store.submit([new_run("top")]))
    assert record[0].run_id == "top"
    asyncio.run(store.close())


def test_a_store_that_cannot_be_opened_says_so_at_once(tmp_path: Path) -> None:
    def refuse() -> apsw.Connection:
        raise StoreError("no such file")

    with pytest.raises(StoreError, match="no such file"):
        SqlitePen(refuse, WriterLock(tmp_path / "store.lock", 5.0), 1)
