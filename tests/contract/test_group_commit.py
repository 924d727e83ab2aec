"""Group commit on every real store: a bad member harms only itself, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from tests.doubles.batches import Batch, fail
from tests.doubles.places import Place, Store
from tests.doubles.shapes import START, Owner, child_of, entries_of, host, new_run, own, said

from retinue.runs.contracts import PendingRequest
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, StoreError
from retinue.runs.ownership import Append, Spawn
from retinue.store.engine import Connection

pytestmark = pytest.mark.rule("R3")


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.open()
    await store.register(host())
    yield store
    await store.close()


async def lead(store: Store, name: str = "top") -> Owner:
    await store.submit([new_run(name)])
    return await own(store, name)


async def test_a_bad_member_of_a_commit_harms_only_itself(store: Store) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]
    async with Batch(store):
        good = [store.append(owner.make(said("good"))) for owner in owners[:2]]
        bad = store.append(owners[2].make(said("bad"), expected=7))
        unknown = store._writer.submit(lambda c: c.execute("SELECT nonsense FROM nowhere"))
        own_fault = store._writer.submit(fail)
    said_back = await asyncio.gather(*good, bad, unknown, own_fault, return_exceptions=True)
    kinds = [type(answer).__name__ for answer in said_back]
    assert kinds == ["Appended", "Appended", "Fenced", "StoreError", "InvalidInput"]
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [2, 2, 1]


async def test_what_a_bad_member_had_written_is_taken_back(store: Store) -> None:
    owner = await lead(store)
    async with Batch(store):
        before = store.append(owner.make(said("before")))
        bad = store._writer.submit(fail)
    await before
    with pytest.raises(InvalidInput):
        await bad
    rows = await store._read(lambda c: c.execute("SELECT DISTINCT priority FROM runs").fetchall())
    assert rows == [(0,)]


@pytest.mark.parametrize("kind", ["request", "child"])
async def test_an_append_that_takes_a_name_twice_harms_only_itself(store: Store, kind: str) -> None:
    owners = [await lead(store, f"run-{n}") for n in range(3)]

    def taking(owner: Owner) -> Append:
        if kind == "child":
            return owner.make(said("x"), spawn=Spawn("g", (child_of("top", "g", 0),), exhausted=True, at=START))
        run_id = owner.leased.request.run_id
        given = {"request_id": "q", "run_id": run_id, "root_run_id": run_id, "tenant_id": "acme", "kind": "input"}
        asked = PendingRequest.model_validate(given | {"key": run_id, "prompt": "?", "created_at": START})
        return owner.make(said("x"), request=asked)

    await store.append(taking(owners[0]))
    async with Batch(store):
        answers = [store.append(owners[1].make(said("x"))), store.append(taking(owners[2]))]
        answers.append(store.append(owners[0].make(said("y"), expected=2)))
    said_back = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(answer).__name__ for answer in said_back] == ["Appended", "StoreError", "Appended"], said_back[1]
    assert [len(await entries_of(store, f"run-{n}")) for n in range(3)] == [3, 2, 1]
    await owners[2].append(said("z"))


async def test_what_stood_before_a_bad_member_is_applied_once(store: Store) -> None:
    def bump(connection: Connection) -> int:
        [[value]] = connection.execute("UPDATE hosts SET beat = beat + 1 RETURNING beat - 0").fetchall()
        return int(value)

    await store._writer.submit(lambda c: c.execute("UPDATE hosts SET beat = 0").fetchall())
    async with Batch(store):
        answers = [store._writer.submit(one) for one in (bump, fail, bump, fail, bump)]
    said_back = await asyncio.gather(*answers, return_exceptions=True)
    assert [said_back[n] for n in (0, 2, 4)] == [1, 2, 3]
    assert all(isinstance(said_back[n], InvalidInput) for n in (1, 3))


async def test_a_closed_store_refuses_instead_of_hanging(place: Place) -> None:
    store = place.open()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.register(host())


async def test_what_was_submitted_before_the_close_is_on_disk(place: Place) -> None:
    store = place.open()
    waiting = [asyncio.ensure_future(store.submit([new_run(f"run-{n}")])) for n in range(20)]
    await asyncio.sleep(0)
    await store._writer.submit(lambda c: None)
    await asyncio.gather(*waiting)
    await store.close()
    again = place.open()
    assert len(await again.list_runs(RunQuery(limit=100))) == 20
    await again.close()


def test_a_loop_that_is_gone_does_not_stop_the_others(place: Place) -> None:
    store = place.open()
    go = threading.Event()

    async def leave() -> None:
        store._writer.submit(lambda _: go.wait(20))

    asyncio.run(leave())
    go.set()
    record = asyncio.run(store.submit([new_run("top")]))
    assert record[0].run_id == "top"
    asyncio.run(store.close())
