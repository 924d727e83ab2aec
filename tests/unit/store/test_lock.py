"""The writers' lock: it dies with its process, is fair, and a frozen holder is killed and not waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import host, new_run

from retinue.runs.errors import StoreError
from retinue.store.liveness import Owner, current_owner, is_alive, kill
from retinue.store.lock import WriterLock
from retinue.store.opening import OLDEST_SQLITE, connect, refuse_old_sqlite
from retinue.store.sqlite import SqliteStore

_BOUND = 20.0

HOLD = """
import os, pathlib, signal, sys, threading
from retinue.store.lock import WriterLock
lock = WriterLock(pathlib.Path(sys.argv[1]))
lock.acquire()
if sys.argv[2] == "fork":
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    print("child", child, flush=True)
print("held", flush=True)
if sys.argv[2] == "freeze":
    os.kill(os.getpid(), signal.SIGSTOP)
threading.Event().wait(60)
"""


async def acquired(path: Path, patience: float) -> None:
    """Take the lock and let it go, within the bound."""
    lock = WriterLock(path, patience)
    async with asyncio.timeout(_BOUND):
        await asyncio.to_thread(lock.acquire)
    assert lock.holder() == current_owner()
    lock.release()
    lock.close()


@pytest.mark.rule("R7")
async def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    with python(HOLD, tmp_path / "lock", "fork") as other:
        child = int((await asyncio.to_thread(other.wait_for, "child")).split()[1])
        await asyncio.to_thread(other.wait_for, "held")
        assert other.process.stdout is not None
        try:
            other.kill()
            os.kill(child, 0)
            await acquired(tmp_path / "lock", patience=60.0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.rule("R8")
async def test_a_frozen_holder_is_killed_by_the_one_who_waits(tmp_path: Path) -> None:
    with python(HOLD, tmp_path / "lock", "freeze") as other:
        await asyncio.to_thread(other.wait_for, "held")
        await acquired(tmp_path / "lock", patience=0.4)
        assert await asyncio.to_thread(other.ended) == -signal.SIGKILL


@pytest.mark.rule("R8")
async def test_a_holder_that_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    with python(HOLD, tmp_path / "lock", "hold") as other:
        await asyncio.to_thread(other.wait_for, "held")
        lock = WriterLock(tmp_path / "lock", patience=30.0)
        waiting = asyncio.create_task(asyncio.to_thread(lock.acquire))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done and other.process.poll() is None
        other.kill()
        async with asyncio.timeout(_BOUND):
            await waiting
        lock.release()
        lock.close()


WRITE_AND_FREEZE = """
import asyncio, os, pathlib, signal, sys, threading
from retinue.store.sqlite import SqliteStore

def freeze(connection):
    print("inside", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    threading.Event().wait(60)

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store._writer.submit(freeze)

asyncio.run(main())
"""


@pytest.mark.rule("R8")
async def test_the_others_go_on_when_a_writer_freezes_inside_its_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data", patience=0.4)
    with python(WRITE_AND_FREEZE, tmp_path / "data") as other:
        await asyncio.to_thread(other.wait_for, "inside")
        async with asyncio.timeout(_BOUND):
            [record] = await store.submit([new_run("top")])
        assert record.run_id == "top"
        assert await asyncio.to_thread(other.ended) == -signal.SIGKILL
    await store.close()


@pytest.mark.rule("R7")
@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_an_old_sqlite_is_refused(version: str) -> None:
    with pytest.raises(StoreError, match=f"{version} can corrupt a store: install apsw"):
        refuse_old_sqlite(version)


@pytest.mark.rule("R7")
@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "4.0.0"])
def test_a_new_sqlite_is_taken(version: str) -> None:
    refuse_old_sqlite(version)
    assert OLDEST_SQLITE == (3, 51, 3)


def test_every_connection_is_durable_and_logs_ahead(tmp_path: Path) -> None:
    connection = connect(tmp_path / "store.db")
    assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
    connection.close()


def test_a_process_is_its_pid_and_its_start() -> None:
    me = current_owner()
    assert is_alive(me) and not is_alive(Owner(me.pid, me.started - 60)) and not is_alive(Owner(2**22 + 1, 0.0))
    kill(Owner(me.pid, me.started - 60))


@pytest.mark.rule("R11")
async def test_a_place_in_the_journal_is_never_given_twice(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data")
    await store.register(host())
    await store.submit([new_run("a"), new_run("b")])
    newest = await store.newest()
    await store._writer.submit(lambda c: c.execute("DELETE FROM journal WHERE seq = ?", (newest,)).fetchall())
    assert await store.newest() == newest - 1
    await store.submit([new_run("c")])
    assert [frame.run_id for frame in await store.tail(newest, 10)] == ["c"]
    await store.close()


@pytest.mark.rule("R11")
async def test_a_store_keeps_its_incarnation_and_another_has_another(tmp_path: Path) -> None:
    seen = []
    for folder in ("one", "one", "two"):
        store = SqliteStore(tmp_path / folder)
        seen.append(await store.incarnation())
        await store.close()
    assert seen[0] == seen[1] != seen[2]
