"""Group commit: a bad member harms only itself, a lost transaction fails as one, and the thread lives on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from tests.doubles.batches import Batch, fail
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


async def lead(store: SqliteStore, name: str = "top") -> Owner:
    await store.submit([new_run(name)])
    return await own(store, name)


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
        await store._writer.submit(fail)
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


def test_a_store_that_cannot_be_opened_says_so_at_once(tmp_path: Path) -> None:
    def refuse() -> apsw.Connection:
        raise StoreError("no such file")

    with pytest.raises(StoreError, match="no such file"):
        SqlitePen(refuse, WriterLock(tmp_path / "store.lock", 5.0), 1)
