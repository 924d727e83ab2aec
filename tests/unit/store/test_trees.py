"""Runs read as trees: bounded, what has not ended first, with what was left out; open requests by run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.shapes import START, child_of, host, new_run, own, said

from retinue.runs.contracts import PendingRequest, Status
from retinue.runs.control import GroupState, RunQuery
from retinue.runs.journal import Checkpoint
from retinue.runs.ownership import Spawn

pytestmark = pytest.mark.promise("B4")


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    made = place.open()
    await made.register(host())
    yield made
    await made.close()


def question(run_id: str, name: str) -> PendingRequest:
    return PendingRequest(
        request_id=name,
        run_id=run_id,
        root_run_id="top",
        tenant_id="acme",
        kind="input",
        key=name,
        prompt=f"{name}?",
        created_at=START,
    )


async def family(store: Store, count: int) -> None:
    """`top` with a group of so many children; the first has ended, the second asks, the third has a child."""
    await store.submit([new_run("top", "the goal")])
    top = await own(store, "top")
    children = tuple(child_of("top", "g", index) for index in range(count))
    await top.append(said("fans out"), spawn=Spawn("g", children=children, exhausted=True))
    await (await own(store, "top-g-0")).finish()
    asker = await own(store, "top-g-1")
    await asker.append(said("asks"), request=question("top-g-1", "q-one"))
    await asker.append(said("asks"), request=question("top-g-1", "q-two"))
    await asker.park(status=Status.waiting_for_input)
    middle = await own(store, "top-g-2")
    grandchild = child_of("top-g-2", "h", 0, root_run_id="top", depth=2)
    await middle.append(said("fans out"), spawn=Spawn("h", children=(grandchild,), exhausted=True))
    await middle.park()


async def test_what_has_not_ended_comes_first_and_what_is_left_out_is_counted(store: Store) -> None:
    await family(store, 6)
    tree = await store.below("top", 4, 9)
    assert [record.run_id for record in tree.records] == ["top", "top-g-1", "top-g-2", "top-g-3"]
    assert tree.children["top"] == {
        Status.completed: 1,
        Status.waiting_for_input: 1,
        Status.waiting: 1,
        Status.queued: 3,
    }
    whole = await store.below("top", 100, 9)
    assert {record.run_id for record in whole.records} >= {"top-g-0", "top-g-2-h-0"}
    assert "top-g-2-h-0" not in {record.run_id for record in (await store.below("top", 100, 1)).records}


async def test_the_lineage_of_runs_goes_up_to_their_roots(store: Store) -> None:
    await family(store, 3)
    await store.submit([new_run("alone")])
    assert set(await store.lineage(["top-g-2-h-0", "alone"])) == {"top-g-2-h-0", "top-g-2", "top", "alone"}
    assert await store.lineage(["nobody"]) == {}


async def test_open_requests_are_bounded_and_counted(store: Store) -> None:
    await family(store, 3)
    first, total = await store.asked(None, 1)
    assert ([request.prompt for request in first], total) == (["q-one?"], 2)
    assert [request.request_id for request in (await store.asked(["top-g-1"], 9))[0]] == ["q-one", "q-two"]
    assert await store.asked(["top", "top-g-2"], 9) == ([], 0)
    assert [request.request_id for request in await store.asked_below("top")] == ["q-one", "q-two"]
    assert await store.asked_below("other") == []
    await store.resolve("q-one", "answered", "bob", START)
    assert [request.request_id for request in (await store.asked(["top-g-1"], 9))[0]] == ["q-two"]


async def test_a_group_counts_its_children_by_how_they_stand(store: Store) -> None:
    await family(store, 6)
    open_ones = {Status.waiting_for_input: 1, Status.waiting: 1, Status.queued: 3}
    assert await store.groups("top") == [GroupState("g", 6, 5, 1, 0, 0, open_ones)]
    assert await store.groups("top-g-1") == []


async def test_parked_runs_are_listed_and_counted(store: Store) -> None:
    await family(store, 3)
    found, total = await store.waiting(1)
    assert ([record.run_id for record in found], total) == (["top-g-1"], 2)
    assert {record.run_id for record in await store.list_runs(RunQuery(waiting=True))} == {"top-g-1", "top-g-2"}


async def test_the_journal_since_the_checkpoint_and_the_inputs_of_runs(store: Store) -> None:
    await store.submit([new_run("top", {"goal": 1})])
    top = await own(store, "top")
    await top.append(said("before"))
    await top.append(Checkpoint(at=START, name="page", number=1, content={"page": 1}))
    await top.append(said("after"))
    kinds = [entry.kind for frame in await store.recent("top") for entry in frame.entries]
    assert kinds == ["checkpoint", "record"]
    assert await store.inputs(["top"]) == {"top": {"goal": 1}}
