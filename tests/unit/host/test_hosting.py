"""A host: it takes what is queued, gives back what it cannot finish, and outlives every fault of a run."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.projects import project
from tests.doubles.shapes import new_run
from tests.unit.host import desk

from retinue.host import clock
from retinue.host.composition import Project, load_project, make_host
from retinue.host.hosting import Host, HostShape
from retinue.runs.contracts import Branch, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import StoreBroken, StoreBusy, StoreFull
from retinue.runs.ownership import LeasedRun, NewRun
from retinue.sandbox.room import Room
from retinue.store.sqlite import SqliteStore

_BOUND = 20.0


class Place:
    """A project with its store, and hosts over it."""

    def __init__(self, loaded: Project, store: SqliteStore) -> None:
        self.project = loaded
        self.store = store

    @asynccontextmanager
    async def hosting(self, capacity: int = 64) -> AsyncIterator[Host]:
        """A host that serves while the block lasts."""
        host = make_host(self.project, self.store, HostShape(("runs", "workers"), capacity), "test")
        serving = asyncio.create_task(host.serve())
        try:
            yield host
        finally:
            host.stop()
            async with asyncio.timeout(_BOUND):
                await serving

    async def submit(self, target: str, input: Any, run_id: str = "", pool: str = "runs") -> str:
        """Accept a run."""
        definition = self.project.registry.get(target)
        run_id = run_id or clock.new_run_id()
        changes = {"kind": definition.kind, "target": target, "target_version": definition.version, "pool": pool}
        accepted = new_run(run_id, input, **changes)
        await self.store.submit([NewRun(accepted.request, input, clock.now_ns())])
        return run_id

    async def ended(self, run_id: str) -> Branch:
        """The result of a run, when it has ended."""
        async with asyncio.timeout(_BOUND):
            while True:
                result = await self.store.result(run_id)
                if result is not None:
                    return result
                await asyncio.sleep(0.005)

    async def until(self, run_id: str, right: Callable[[Any], bool]) -> Any:
        """The record of a run, when it is right."""
        async with asyncio.timeout(_BOUND):
            while True:
                record = await self.store.get(run_id)
                if right(record):
                    return record
                await asyncio.sleep(0.005)


async def idle(host: Host) -> None:
    """Until the host holds nothing."""
    async with asyncio.timeout(_BOUND):
        while True:
            if not host.active:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    settings = project(tmp_path, modules=["tests.unit.host.desk"])
    store = SqliteStore(settings.data_folder)
    yield Place(load_project(settings), store)
    await store.close()


@pytest.fixture(autouse=True)
def fresh() -> None:
    desk.done.clear()
    desk.gates |= {name: asyncio.Event() for name in ("first", "second")}


@pytest.mark.promise("B2")
async def test_a_host_drives_a_parent_and_its_children(place: Place) -> None:
    async with place.hosting() as host:
        run_id = await place.submit("many", 50)
        assert (await place.ended(run_id)).value == sum(range(50)) * 2
        record = await place.store.get(run_id)
        assert (record.status, record.pid) == ("completed", host.info.pid)
    children = await place.store.list_runs(RunQuery(parent_run_id=run_id, limit=100))
    assert len(children) == 50 and {child.status for child in children} == {Status.completed}


@pytest.mark.promise("E2")
async def test_a_host_that_stops_lets_go_of_what_ended_runs_leave_behind(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "plain.yaml").write_text("profile: unconfined\n")
    release = Room.release

    async def slowly(room: Room, run_id: str, ended: bool) -> None:
        await asyncio.sleep(0.1 * ended)
        await release(room, run_id, ended)

    monkeypatch.setattr(Room, "release", slowly)
    async with place.hosting():
        result = await place.ended(await place.submit("boxed", "it"))
        assert result.value == "it", result.error
    work = tmp_path / ".retinue" / "sandboxes" / "work"
    assert work.is_dir() and not any(work.rglob("tree")), "the run has ended, and its workspace is gone"


async def test_a_host_with_little_room_takes_little_at_once(place: Place) -> None:
    async with place.hosting(capacity=3) as host:
        seen: list[int] = []
        run_id = await place.submit("many", 20)
        async with asyncio.timeout(_BOUND):
            while await place.store.result(run_id) is None:
                seen.append(host.active)
                await asyncio.sleep(0)
        assert max(seen) <= 3


@pytest.mark.promise("C6")
async def test_what_a_host_holds_when_it_stops_is_queued_and_the_next_one_goes_on(place: Place) -> None:
    run_id = await place.submit("waits", 1.0)
    async with place.hosting():
        await place.until(run_id, lambda record: record.position > 1)
        assert (await place.store.get(run_id)).status is Status.in_progress
    assert (await place.store.get(run_id)).status is Status.queued
    assert await place.store.hosts() == []
    async with place.hosting():
        assert (await place.ended(run_id)).value == "waited"
    assert (await place.store.get(run_id)).epoch == 2


@pytest.mark.promise("A7")
async def test_a_run_that_waits_holds_nothing(place: Place) -> None:
    run_id = await place.submit("waits", 0)
    async with place.hosting() as host:
        await place.until(run_id, lambda record: record.status is Status.waiting)
        await idle(host)
        await place.store.signal(run_id, "go", None, clock.now_ns())
        assert (await place.ended(run_id)).value == "waited"


@pytest.mark.rule("R3")
async def test_a_run_that_cannot_be_read_ends_and_its_neighbours_go_on(place: Place) -> None:
    bad = await place.submit("must_stamp", "x" * 100_000)
    [blob] = [path for path in (place.store.folder / "blobs").rglob("*") if path.is_file()]
    blob.unlink()
    good = await place.submit("must_stamp", "fine")
    async with place.hosting():
        assert (await place.ended(good)).value == "stamped fine"
        result = await place.ended(bad)
    assert result.status is Status.failed and result.error is not None
    assert "cannot be read" in result.error.message and "backup" in result.error.message


@pytest.mark.rule("R3")
async def test_a_run_that_could_not_be_written_goes_on_when_there_is_room(place: Place) -> None:
    def limit(connection: Any, room: int) -> None:
        [[count]] = connection.execute("PRAGMA page_count").fetchall()
        connection.execute(f"PRAGMA max_page_count = {count + room}").fetchall()

    run_id = await place.submit("must_stamp", "x" * 40_000)
    async with place.hosting():
        await place.ended(run_id)
        await place.store._writer.submit(lambda c: limit(c, 4))
        full = 0
        while full < 20:
            try:
                last = await place.submit("must_stamp", "y" * 40_000)
            except StoreFull:
                break
            full += 1
        assert full < 20
        await place.store._writer.submit(lambda c: limit(c, 2**20))
        again = await place.submit("must_stamp", "z")
        assert (await place.ended(again)).value == "stamped z"
        if full:
            assert (await place.ended(last)).ok
    assert await place.store.list_runs(RunQuery(status=Status.in_progress)) == []


async def test_a_defect_of_the_engine_ends_the_run_and_not_the_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("retinue.runs.body.start", broken)
    async with place.hosting():
        bad = await place.ended(await place.submit("waits", 0.01))
        monkeypatch.undo()
        good = await place.ended(await place.submit("waits", 0.01))
    assert (bad.status, bad.reason) == ("failed", "internal_error")
    assert bad.error is not None and "a defect" in bad.error.message
    assert good.value == "waited"


async def test_two_hosts_share_what_is_queued_and_nobody_runs_anything_twice(place: Place) -> None:
    runs = [await place.submit("must_stamp", f"paper {n}") for n in range(30)]
    async with place.hosting(), place.hosting():
        for run_id in runs:
            assert (await place.ended(run_id)).ok
    assert len(desk.done) == len(set(desk.done)) == 30
    assert {record.epoch for record in await place.store.list_runs(RunQuery(limit=100))} == {1}


@pytest.mark.promise("B5")
async def test_a_drained_host_finishes_the_step_in_flight_and_gives_the_run_back_between_two(place: Place) -> None:
    run_id = await place.submit("two_steps", None)
    async with place.hosting() as host:
        await place.until(run_id, lambda _: desk.done == ["first"])
        host.drain()
        waiting = await place.submit("must_stamp", "not taken")
        desk.gates["first"].set()
        await place.until(run_id, lambda record: record.status is Status.queued)
    record = await place.store.get(run_id)
    assert (record.status, record.epoch, desk.done) == (Status.queued, 1, ["first"])
    assert (await place.store.get(waiting)).status is Status.queued
    desk.gates["second"].set()
    async with place.hosting():
        assert (await place.ended(run_id)).value == ["first", "second"]
    assert desk.done[:2] == ["first", "second"], "no step was lost and none was made twice"


@pytest.mark.promise("B5")
async def test_a_host_for_one_run_takes_one_and_ends_with_it(place: Place) -> None:
    runs = [await place.submit("must_stamp", f"paper {n}") for n in range(2)]
    host = make_host(place.project, place.store, HostShape(("runs", "workers"), once=True), "test")
    async with asyncio.timeout(_BOUND):
        await host.serve()
    statuses = [(await place.store.get(run_id)).status for run_id in runs]
    assert sorted(statuses) == [Status.completed, Status.queued]
    assert (host.finished, host.holds) == (1, [])


@pytest.mark.promise("B5")
async def test_a_run_that_came_to_the_wrong_pool_is_passed_on_unread(place: Place) -> None:
    run_id = await place.submit("heavy", None)
    [pool] = place.project.registry.pools
    async with place.hosting():
        record = await place.until(run_id, lambda record: record.pool == pool)
        assert record.position == 1, "nothing was written for it"
    shape = HostShape((pool,))
    host = make_host(place.project, place.store, shape, "test")
    serving = asyncio.create_task(host.serve())
    assert (await place.ended(run_id)).value == "done"
    host.drain()
    async with asyncio.timeout(_BOUND):
        await serving


@pytest.mark.promise("B5")
async def test_what_waits_in_a_pool_that_nobody_declares_any_more_is_run_or_passed_on(place: Place) -> None:
    [pool] = place.project.registry.pools
    async with place.hosting() as host:
        plain = await place.submit("must_stamp", "paper", pool="gone-1a2b3c4d")
        heavy = await place.submit("heavy", None, pool="gone-1a2b3c4d")
        await place.submit("must_stamp", "other")
        assert (await place.store.get(plain)).status is Status.queued
        host.serve_also(["gone-1a2b3c4d"])
        assert (await place.ended(plain)).value == "stamped paper"
        await place.until(heavy, lambda record: record.pool == pool)


@pytest.mark.rule("R3", "R9")
async def test_a_run_that_was_leased_by_a_commit_whose_answer_was_lost_is_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, lost = place.store.lease, list[LeasedRun]()

    async def deaf(*words: Any, **more: Any) -> list[LeasedRun]:
        leased = await lease(*words, **more)
        if leased and not lost:
            lost.extend(leased)
            raise StoreBusy("the connection to the store ended while an operation was committed")
        return leased

    monkeypatch.setattr(place.store, "lease", deaf)
    async with place.hosting():
        run_id = await place.submit("many", 3)
        assert (await place.ended(run_id)).status is Status.completed
    assert [leased.request.run_id for leased in lost] == [run_id]


@pytest.mark.rule("R3")
@pytest.mark.parametrize("operation", ["lease", "tend", "append"])
async def test_a_store_that_no_waiting_mends_ends_its_host(
    place: Place, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def lacks(_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "lease.sql")

    async def broken(*_: Any, **more: Any) -> Any:
        await place.store._writer.submit(lacks)

    await place.submit("must_stamp", "paper")
    monkeypatch.setattr(place.store, operation, broken)
    host = make_host(place.project, place.store, HostShape(("runs", "workers")), "test")
    async with asyncio.timeout(_BOUND):
        with pytest.raises(StoreBroken, match=r"lease\.sql.*no fault of its disk"):
            await host.serve()


@pytest.mark.rule("R3")
async def test_a_fault_of_the_disk_is_outlived(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, faults = place.store.lease, [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EMFILE]

    def fault(_: Any) -> None:
        raise OSError(faults.pop(), "a fault")

    async def shaky(*words: Any, **more: Any) -> Any:
        if faults:
            await place.store._writer.submit(fault)
        return await lease(*words, **more)

    monkeypatch.setattr(place.store, "lease", shaky)
    monkeypatch.setattr("retinue.host.hosting._TEND", 0.001)
    async with place.hosting():
        assert (await place.ended(await place.submit("must_stamp", "paper"))).ok
    assert not faults


async def test_a_host_whose_duty_fails_ends_with_what_it_failed_with(place: Place) -> None:
    async def fails() -> None:
        raise ZeroDivisionError("a defect")

    made = make_host(place.project, place.store, HostShape(("runs",)), "test")
    host = Host(made.info, HostShape(("runs",)), place.store, made._services, [fails])
    async with asyncio.timeout(_BOUND):
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await host.serve()
