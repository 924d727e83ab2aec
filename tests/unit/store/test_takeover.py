"""Leases change hands only after their owner is dead, or has been silent for so long that it is killed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import START, host, new_run, own, said

from retinue.runs.contracts import Status
from retinue.runs.errors import Fenced
from retinue.store.sqlite import SqliteStore

OWN = """
import asyncio, pathlib, sys, threading
from tests.doubles.shapes import host, own, said
from retinue.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.register(host("other"))
    owner = await own(store, "top", host("other"))
    await owner.append(said("mine"))
    print("owns", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data", patience=5.0)
    await store.register(host())
    await store.submit([new_run("top")])
    yield store
    await store.close()


@pytest.mark.rule("R8")
@pytest.mark.promise("C3", "C6")
async def test_a_dead_owners_run_is_taken_over_and_a_living_ones_is_not(store: SqliteStore) -> None:
    with python(OWN, store.folder) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        assert await store.tend(host(), START, lease_seconds=60.0) == 0
        assert await store.lease(host(), "runs", 5, START) == []
        assert (await store.get("top")).pid == other.process.pid
        other.kill()
        assert await store.tend(host(), START, lease_seconds=60.0) == 1
        owner = await own(store, "top")
    assert (owner.leased.epoch, owner.position) == (2, 2)
    assert [name for name, *_ in await store.hosts()] == ["h1"]


@pytest.mark.rule("R8")
async def test_an_owner_that_is_silent_for_too_long_is_killed_first(store: SqliteStore) -> None:
    with python(OWN, store.folder) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        other.freeze()
        assert await store.tend(host(), START, lease_seconds=60.0) == 0
        assert await store.tend(host(), START, lease_seconds=0.0) == 0
        assert await asyncio.to_thread(other.ended) == -signal.SIGKILL
        assert await store.tend(host(), START, lease_seconds=60.0) == 1
        assert (await store.get("top")).status is Status.queued


@pytest.mark.rule("R8")
async def test_a_host_that_could_not_show_itself_either_takes_nobody_for_silent(store: SqliteStore) -> None:
    """A full disk or a stuck lock silences all; when it is over, the first to write must not kill the others."""
    with python(OWN, store.folder) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        await store.tend(host(), START, lease_seconds=0.0)
        await asyncio.to_thread(threading.Event().wait, 1.5)
        await store.tend(host(), START, lease_seconds=1.0)
        assert other.process.poll() is None
        assert (await store.get("top")).pid == other.process.pid
        await store.tend(host(), START, lease_seconds=1.0)
        assert await asyncio.to_thread(other.ended) == -signal.SIGKILL


@pytest.mark.rule("R8")
async def test_a_host_that_has_just_come_takes_nobody_for_silent(store: SqliteStore) -> None:
    with python(OWN, store.folder) as other:
        await asyncio.to_thread(other.wait_for, "owns")
        await store.tend(host(), START, lease_seconds=0.0)
        assert other.process.poll() is None


@pytest.mark.rule("R8")
async def test_a_silent_host_in_this_very_process_is_not_killed(store: SqliteStore) -> None:
    await store.register(host("forgotten"))
    owner = await own(store, "top", host("forgotten"))
    assert await store.tend(host(), START, lease_seconds=0.0) == 0
    assert (await store.get("top")).status is Status.in_progress
    await owner.append(said("alive"))


@pytest.mark.promise("C3")
async def test_a_machine_that_booted_since_proves_its_hosts_dead(store: SqliteStore) -> None:
    before = host("before", boot_id="another boot")
    await store.register(before)
    owner = await own(store, "top", before)
    assert await store.tend(host(), START, lease_seconds=60.0) == 1
    await own(store, "top")
    with pytest.raises(Fenced):
        await owner.append(said("late"))


async def test_a_pid_that_came_back_is_somebody_else(store: SqliteStore) -> None:
    before = host("before", pid_started=host().pid_started - 3_600)
    await store.register(before)
    await own(store, "top", before)
    assert await store.tend(host(), START, lease_seconds=0.0) == 1
