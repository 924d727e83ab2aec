"""The guarantees of the journal port, on the double and on every real store alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.doubles.places import KINDS, Places
from tests.doubles.shapes import (
    START,
    AnyStore,
    Owner,
    child_of,
    entries_of,
    host,
    new_run,
    opened,
    own,
    said,
)

from retinue.runs.contracts import PendingRequest, Status, StopReason, Usage
from retinue.runs.control import RunQuery
from retinue.runs.errors import Fenced, StoreError
from retinue.runs.journal import Checkpoint, Finished, Parked
from retinue.runs.ownership import DeadLetter, Finish, Park, Spawn
from retinue.runs.resources import guest_pool


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[AnyStore]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            await store.register(host("h1"))
            await store.register(host("h2"))
            yield store


async def lead(store: AnyStore, name: str = "top") -> Owner:
    """A submitted run in the hands of h1."""
    await store.submit([new_run(name)])
    return await own(store, name)


async def test_what_is_appended_is_read_again_in_order(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("a", {"deep": [1, None, "ü"]}), said("b"))
    await owner.append(said("c", "text"))
    frames = [frame async for frame in store.read("top")]
    assert [(frame.position, frame.epoch) for frame in frames] == [(1, 0), (2, 1), (4, 1)]
    assert [entry.content for entry in await entries_of(store, "top")][1:] == [{"deep": [1, None, "ü"]}, None, "text"]
    assert [frame.position async for frame in store.read("top", after=2)] == [4]


@pytest.mark.promise("C3")
async def test_an_owner_of_an_old_epoch_is_refused_and_nothing_of_it_is_applied(store: AnyStore) -> None:
    old = await lead(store)
    await store.retire("h1")
    new = await own(store, "top", host("h2"))
    assert new.leased.epoch == old.leased.epoch + 1
    asked = PendingRequest(
        request_id="q" * 12,
        run_id="top",
        root_run_id="top",
        tenant_id="acme",
        kind="input",
        key="k",
        prompt="?",
        created_at=START,
    )
    with pytest.raises(Fenced, match="run top: epoch 1 at position 1"):
        await old.append(said("zombie"), spawn=Spawn("g", (child_of("top", "g", 0),)), request=asked)
    assert await store.list_runs(RunQuery(parent_run_id="top")) == []
    assert await store.requests() == []
    assert len(await entries_of(store, "top")) == 1
    await new.append(said("mine"))


@pytest.mark.promise("C3")
@pytest.mark.parametrize("gap", [-1, 1])
async def test_a_gap_or_an_overlap_is_refused(store: AnyStore, gap: int) -> None:
    owner = await lead(store)
    await owner.append(said("a"))
    with pytest.raises(Fenced):
        await store.append(owner.make(said("b", at=START + 5), expected=owner.position + gap))
    assert len(await entries_of(store, "top")) == 2


@pytest.mark.promise("C3")
async def test_nobody_writes_into_a_run_that_is_back_in_its_queue(store: AnyStore) -> None:
    owner = await lead(store)
    await store.retire("h1")
    with pytest.raises(Fenced):
        await owner.append(said("late"))


@pytest.mark.rule("R3")
async def test_the_same_append_after_an_unclear_commit_is_a_success(store: AnyStore) -> None:
    owner = await lead(store)
    first = owner.make(said("a", "content"))
    answer = await store.append(first)
    assert await store.append(first) == answer
    assert len(await entries_of(store, "top")) == 2


@pytest.mark.rule("R3")
async def test_another_append_at_the_same_place_is_refused(store: AnyStore) -> None:
    owner = await lead(store)
    await store.append(owner.make(said("a")))
    with pytest.raises(Fenced):
        await store.append(owner.make(said("b")))


@pytest.mark.rule("R3")
async def test_the_same_park_after_an_unclear_commit_is_a_success(store: AnyStore) -> None:
    owner = await lead(store)
    entry = Parked(at=START, status=Status.waiting, reason=StopReason.timer, waits=(), wake_at=START)
    park = owner.make(entry, end=Park(Status.waiting, StopReason.timer, START))
    answer = await store.append(park)
    assert answer.parked
    assert await store.append(park) == answer


@pytest.mark.rule("R3")
async def test_the_same_end_after_an_unclear_commit_is_a_success_and_settles_once(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(2))))
    child = await own(store, "top-g-0")
    entry = Finished(at=START, status=Status.completed, reason=StopReason.success)
    end = child.make(entry, end=Finish(Status.completed, StopReason.success, Usage()))
    assert await store.append(end) == await store.append(end)
    group = (await store.look("top")).groups["g"]
    assert (group.pending, group.ok) == (1, 1)


async def test_appends_are_applied_in_the_order_they_were_submitted(store: AnyStore) -> None:
    owner = await lead(store)
    futures = []
    for number in range(50):
        futures.append(store.append(owner.make(said(f"n{number}"))))
        owner.position += 1
    await asyncio.gather(*futures)
    topics = [getattr(entry, "topic", None) for entry in await entries_of(store, "top")]
    assert topics[1:] == [f"n{number}" for number in range(50)]


async def test_a_value_that_is_not_json_fails_alone(store: AnyStore) -> None:
    owner = await lead(store)
    with pytest.raises(StoreError, match="JSON"):
        await store.append(owner.make(said("bad", object())))
    await owner.append(said("good"))
    assert [getattr(entry, "topic", "") for entry in await entries_of(store, "top")][1:] == ["good"]


@pytest.mark.rule("R10")
async def test_a_park_is_refused_when_news_arrived_but_what_came_with_it_is_kept(store: AnyStore) -> None:
    owner = await lead(store)
    await store.signal("top", "go", 1, START)
    entry = Parked(at=START, status=Status.waiting, reason=StopReason.event, waits=("x",))
    assert not await owner.append(said("kept"), entry, end=Park(Status.waiting, StopReason.event, None))
    assert [entry.kind for entry in await entries_of(store, "top")] == ["accepted", "record"]
    news = await store.look("top")
    assert [event.value for event in news.events] == [1]
    owner.seen = news.seq
    assert await owner.park()
    assert (await store.get("top")).status is Status.waiting


@pytest.mark.rule("R10")
async def test_news_for_a_parked_run_queue_it(store: AnyStore) -> None:
    owner = await lead(store)
    assert await owner.park()
    assert await store.lease(host(), "runs", 10, START) == []
    await store.signal("top", "go", None, START)
    assert (await store.get("top")).status is Status.queued
    again = await own(store, "top")
    assert (again.leased.epoch, again.leased.news.seq) == (2, 1)


@pytest.mark.rule("R10")
@pytest.mark.promise("B2")
async def test_the_last_two_children_ending_together_wake_their_parent_once(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(3))))
    children = [await own(store, f"top-g-{i}", host("h2" if i else "h1")) for i in range(3)]
    await children[0].finish("a")
    assert await owner.park()
    await asyncio.gather(children[1].finish("b"), children[2].finish("c"))
    news = await store.look("top")
    assert news.seq == owner.seen + 1
    assert (news.groups["g"].pending, news.groups["g"].ok) == (0, 3)
    taken = await asyncio.gather(*(store.lease(host(name), "runs", 5, START) for name in ("h1", "h2")))
    assert sorted(len(leased) for leased in taken) == [0, 1]
    assert [branch.value for branch in await store.branches("top", "g")] == ["a", "b", "c"]


@pytest.mark.promise("B2")
async def test_the_join_state_counts_while_children_run(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(4)), low=0))
    await (await own(store, "top-g-0")).finish()
    await (await own(store, "top-g-1")).finish(status=Status.failed)
    group = (await store.look("top")).groups["g"]
    assert (group.total, group.pending, group.ok, group.failed) == (4, 2, 1, 1)
    assert [branch.index for branch in await store.branches("top", "g")] == [0, 1]


@pytest.mark.parametrize(("ends", "woken"), [(["failed", "completed"], True), (["failed", "failed"], False)])
async def test_a_group_that_needs_one_success_wakes_with_it(store: AnyStore, ends: list[str], woken: bool) -> None:
    owner = await lead(store)
    children = tuple(child_of("top", "g", i) for i in range(3))
    await owner.append(said("x"), spawn=Spawn("g", children, need=1))
    assert await owner.park()
    for index, status in enumerate(ends):
        await (await own(store, f"top-g-{index}")).finish(status=Status(status))
    assert ((await store.get("top")).status is Status.queued) is woken
    assert (await store.look("top")).groups["g"].decided is woken


async def test_a_group_out_of_reach_of_its_need_wakes_its_parent(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(3)), need=2))
    assert await owner.park()
    for index in range(2):
        await (await own(store, f"top-g-{index}")).finish(status=Status.failed)
    assert (await store.get("top")).status is Status.queued


@pytest.mark.promise("A5")
async def test_a_childs_reservation_is_held_with_its_creation_and_settled_with_its_end(store: AnyStore) -> None:
    owner = await lead(store)
    held = Usage(input_tokens=100, micros=7_000)
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i, held) for i in range(2))))
    group = (await store.look("top")).groups["g"]
    assert (group.reserved.tokens, group.reserved.micros) == (200, 14_000)
    await (await own(store, "top-g-0")).finish(usage=Usage(steps=1, input_tokens=10, output_tokens=5, micros=900))
    group = (await store.look("top")).groups["g"]
    assert (group.reserved.tokens, group.reserved.micros) == (100, 7_000)
    assert group.used == Usage(steps=1, input_tokens=10, output_tokens=5, micros=900)


async def test_leases_come_in_batches_by_priority_then_depth_then_age(store: AnyStore) -> None:
    places = {"late": {}, "deep": {"depth": 2}, "first": {"priority": 5}, "last": {"priority": -1}}
    await store.submit([new_run("old"), *(new_run(name, **place) for name, place in places.items())])
    order = []
    while leased := await store.lease(host(), "runs", 2, START):
        assert len(leased) <= 2
        order.append({one.request.run_id for one in leased})
    assert order == [{"first", "deep"}, {"old", "late"}, {"last"}]


async def test_a_lease_takes_from_its_pool_only_and_only_for_a_registered_host(store: AnyStore) -> None:
    await store.submit([new_run("a"), new_run("b", pool="workers")])
    assert await store.lease(host("stranger"), "runs", 5, START) == []
    assert [one.request.run_id for one in await store.lease(host(), "workers", 5, START)] == ["b"]


async def test_a_lease_holds_the_input_and_nothing_older_than_the_checkpoint(store: AnyStore) -> None:
    await store.submit([new_run("top", {"n": 1})])
    owner = await own(store, "top")
    await owner.append(said("old"))
    await owner.append(Checkpoint(at=START, name="page", number=1, content={"page": 2}))
    await owner.append(said("new"))
    await store.retire("h1")
    leased = (await own(store, "top", host("h2"))).leased
    assert (leased.input, leased.position, leased.started_at) == ({"n": 1}, 4, START)
    kinds = [entry.kind for frame in leased.frames for entry in frame.entries]
    assert kinds == ["checkpoint", "record"]
    assert leased.frames[0].entries[0].content == {"page": 2}


async def test_what_is_due_is_queued_and_nothing_else(store: AnyStore) -> None:
    for name, wake_at in (("soon", START + 10), ("later", START + 1_000), ("never", None)):
        owner = await lead(store, name)
        assert await owner.park(wake_at)
    assert await store.tend(host(), START + 9, 60.0) == 0
    assert await store.tend(host(), START + 10, 60.0) == 1
    assert [one.request.run_id for one in await store.lease(host(), "runs", 5, START)] == ["soon"]
    assert (await store.get("later")).status is Status.waiting


@pytest.mark.promise("C6")
async def test_a_retired_hosts_runs_are_queued_and_lose_nothing(store: AnyStore) -> None:
    owner = await lead(store)
    await owner.append(said("kept"))
    await store.retire("h1")
    assert (await store.get("top")).status is Status.queued
    again = await own(store, "top", host("h2"))
    assert [entry.kind for frame in again.leased.frames for entry in frame.entries] == ["record"]
    assert again.position == owner.position
    assert await store.lease(host("h1"), "runs", 5, START) == []


@pytest.mark.rule("R11")
async def test_the_tail_misses_nothing_and_repeats_nothing(store: AnyStore) -> None:
    owners = [await lead(store, name) for name in ("a", "b", "c")]
    seen: list[tuple[str, int]] = []
    cursor = 0

    async def write(owner: Owner) -> None:
        for number in range(20):
            await owner.append(said(f"n{number}"))

    writing = asyncio.gather(*(write(owner) for owner in owners))
    while not writing.done() or await store.tail(cursor, 1):
        frames = await store.tail(cursor, 7)
        assert [frame.seq for frame in frames] == sorted({frame.seq for frame in frames})
        seen += [(frame.run_id, frame.position) for frame in frames]
        cursor = frames[-1].seq if frames else cursor
        await asyncio.sleep(0)
    await writing
    assert sorted(seen) == sorted((name, position) for name in "abc" for position in range(1, 22))


@pytest.mark.rule("R14")
async def test_a_canceled_parent_gets_no_new_children(store: AnyStore) -> None:
    owner = await lead(store)
    await store.cancel("top", "ana", START)
    await owner.append(said("x"), spawn=Spawn("g", (child_of("top", "g", 0),)))
    assert await store.list_runs(RunQuery(parent_run_id="top")) == []
    assert (await store.look("top")).cancel == "ana"
    assert not await owner.park()


async def test_a_window_grows_its_group_and_keeps_the_cursor(store: AnyStore) -> None:
    owner = await lead(store)
    letter = DeadLetter("rows.jsonl", 3, "not_json", "line 3", START, "{")
    first = Spawn("g", (child_of("top", "g", 0),), (letter,), low=1, cursor={"line": 3}, exhausted=False)
    await owner.append(said("x"), spawn=first)
    await owner.append(said("y"), spawn=Spawn("g", (child_of("top", "g", 1),), cursor={"line": 4}))
    group = (await store.look("top")).groups["g"]
    assert (group.total, group.pending, group.rejected, group.cursor) == (2, 2, 1, {"line": 4})
    assert group.exhausted and not group.decided
    assert [(dead.line, dead.content) for dead in await store.dead_letters()] == [(3, "{")]


@pytest.mark.rule("R16")
async def test_large_content_and_shared_messages_come_back_whole(store: AnyStore) -> None:
    owner = await lead(store)
    large = {"text": "x" * 200_000, "list": list(range(1_000))}
    transcript = {"messages": [{"role": "user", "content": "hello " * 50}], "more": 1}
    await owner.append(said("large", large), said("talk", transcript))
    await owner.append(said("again", transcript))
    contents = [entry.content for entry in await entries_of(store, "top")]
    assert contents[1:] == [large, transcript, transcript]


@pytest.mark.promise("C6", "K2")
async def test_what_a_guest_leaves_behind_is_anybodys(store: AnyStore) -> None:
    guest = host("guest", kind="guest")
    await store.register(guest)
    pool = guest_pool(guest.host_id)
    await store.submit([new_run("held", pool=pool), new_run("parked", pool=pool), new_run("queued", pool=pool)])
    await own(store, "held", guest)
    await (await own(store, "parked", guest)).park(wake_at=START + 1)
    assert await store.lease(host("h1"), "runs", 9, START) == []
    await store.retire(guest.host_id)
    await store.tend(host("h1"), START + 2, lease_seconds=60.0)
    left = await store.lease(host("h1"), "runs", 9, START + 2)
    assert {run.request.run_id for run in left} == {"held", "parked", "queued"}
