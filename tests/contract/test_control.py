"""The guarantees of the control port, on the double and on every real store alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.doubles.places import KINDS, Places
from tests.doubles.shapes import START, AnyStore, Owner, child_of, entries_of, host, new_run, opened, own, said

from retinue.runs.contracts import PendingRequest, Status, StopReason, Usage
from retinue.runs.control import RunQuery
from retinue.runs.errors import Fenced, InvalidInput, UnknownName
from retinue.runs.journal import Intent, Outcome
from retinue.runs.ownership import Spawn


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[AnyStore]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            await store.register(host())
            yield store


async def ask(store: AnyStore, name: str, kind: str, park: bool = True) -> Owner:
    """A run that asks a person; its request id is the run's name with `-q`."""
    await store.submit([new_run(name)])
    owner = await own(store, name)
    asked = PendingRequest.model_validate(
        {
            "request_id": f"{name}-q",
            "run_id": name,
            "root_run_id": name,
            "tenant_id": "acme",
            "kind": kind,
            "key": "k",
            "prompt": "May I?",
            "facts": {"capability": "pay"},
            "created_at": START,
        }
    )
    await owner.append(said("asks"), request=asked)
    if park:
        status = Status.waiting_for_approval if kind == "approval" else Status.waiting_for_input
        assert await owner.park(status=status)
    return owner


@pytest.mark.promise("A2")
async def test_a_known_idempotency_key_of_a_tenant_gives_the_run_that_has_it(store: AnyStore) -> None:
    [first] = await store.submit([new_run("first", idempotency_key="job-7")])
    [again] = await store.submit([new_run("second", idempotency_key="job-7")])
    [other] = await store.submit([new_run("third", idempotency_key="job-7", tenant_id="globex")])
    assert (first.run_id, again.run_id, other.run_id) == ("first", "first", "third")
    with pytest.raises(UnknownName):
        await store.get("second")


async def test_a_run_is_not_taken_for_the_one_whose_key_is_its_id(store: AnyStore) -> None:
    records = await store.submit([new_run("one", idempotency_key="two"), new_run("two")])
    assert [record.run_id for record in records] == ["one", "two"]


async def test_a_key_counts_within_one_submission_too(store: AnyStore) -> None:
    records = await store.submit([new_run("one", idempotency_key="k"), new_run("two", idempotency_key="k")])
    assert [record.run_id for record in records] == ["one", "one"]


@pytest.mark.promise("A7")
@pytest.mark.parametrize(("kind", "status"), [("approval", "approved"), ("approval", "denied"), ("input", "answered")])
async def test_a_resolved_request_wakes_its_run_with_the_answer(store: AnyStore, kind: str, status: str) -> None:
    await ask(store, "top", kind)
    assert [request.prompt for request in await store.requests()] == ["May I?"]
    closed = await store.resolve("top-q", status, "bob", START + 5, {"why": "fine"})
    assert (closed.status, closed.resolved_by, closed.resolved_at) == (status, "bob", START + 5)
    assert await store.requests() == []
    leased = (await own(store, "top")).leased
    answer = leased.news.answers["k"]
    assert (answer.status, answer.by, answer.value) == (status, "bob", {"why": "fine"})


@pytest.mark.parametrize(("kind", "status"), [("input", "approved"), ("input", "denied"), ("approval", "answered")])
async def test_an_answer_of_the_wrong_kind_is_refused(store: AnyStore, kind: str, status: str) -> None:
    await ask(store, "top", kind)
    with pytest.raises(InvalidInput, match=f"asks for {kind}"):
        await store.resolve("top-q", status, "bob", START)
    assert (await store.get("top")).status is not Status.queued


async def test_a_request_is_resolved_once(store: AnyStore) -> None:
    await ask(store, "top", "approval")
    await store.resolve("top-q", "denied", "bob", START)
    with pytest.raises(InvalidInput, match="denied already"):
        await store.resolve("top-q", "approved", "eve", START)
    with pytest.raises(UnknownName):
        await store.resolve("nothing", "approved", "eve", START)


async def test_a_part_of_a_request_id_will_do_when_it_fits_one(store: AnyStore) -> None:
    await ask(store, "alpha", "input")
    await ask(store, "beta", "input")
    with pytest.raises(UnknownName, match="2 requests"):
        await store.resolve("-q", "answered", "bob", START)
    assert (await store.resolve("bet", "answered", "bob", START, 3)).run_id == "beta"


async def test_an_ended_run_withdraws_what_it_asked(store: AnyStore) -> None:
    owner = await ask(store, "top", "approval", park=False)
    await owner.finish()
    assert await store.requests() == []
    assert [request.status for request in await store.requests(open_only=False)] == ["withdrawn"]
    with pytest.raises(InvalidInput, match="withdrawn already"):
        await store.resolve("top-q", "approved", "bob", START)


async def test_events_are_kept_in_order_and_refused_by_an_ended_run(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    for number in range(3):
        await store.signal("top", "tick", number, START + number)
    owner = await own(store, "top")
    assert [event.value for event in owner.leased.news.events] == [0, 1, 2]
    numbers = [event.number for event in owner.leased.news.events]
    assert numbers == sorted(set(numbers))
    await owner.finish()
    with pytest.raises(InvalidInput, match="ended"):
        await store.signal("top", "tick", 3, START)


@pytest.mark.promise("A9")
@pytest.mark.rule("R14")
async def test_a_cancel_ends_what_nobody_owns_and_tells_owners(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(3))))
    running = await own(store, "top-g-0")
    grandchild = child_of("top-g-0", "h", 0, root_run_id="top")
    await running.append(said("x"), spawn=Spawn("h", (grandchild,)))
    await (await own(store, "top-g-2")).finish("done")
    assert await owner.park()
    assert await store.cancel("top", "ana", START + 9) == 4
    statuses = {record.run_id: record.status for record in await store.list_runs(RunQuery())}
    assert statuses == {
        "top": Status.canceled,
        "top-g-0": Status.in_progress,
        "top-g-1": Status.canceled,
        "top-g-2": Status.completed,
        "top-g-0-h-0": Status.canceled,
    }
    assert (await store.news("h1"))["top-g-0"].cancel == "ana"
    last = (await entries_of(store, "top-g-1"))[-1]
    assert (last.kind, last.at) == ("finished", START + 9)


async def test_children_are_canceled_before_their_parents(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("x"), spawn=Spawn("g", (child_of("top", "g", 0),)))
    assert await owner.park()
    await store.cancel("top", "ana", START)
    ends = [frame.run_id for frame in await store.tail(0, 100) if frame.entries[-1].kind == "finished"]
    assert ends == ["top-g-0", "top"]


@pytest.mark.promise("C3")
async def test_a_cancel_of_a_queued_run_fences_the_owner_it_had(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await store.retire("h1")
    await store.cancel("top", "ana", START)
    with pytest.raises(Fenced):
        await owner.append(said("late"))
    assert (await store.get("top")).status is Status.canceled
    assert await store.cancel("top", "ana", START) == 0


async def test_the_rest_of_a_group_is_canceled_without_its_parent(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("x"), spawn=Spawn("g", tuple(child_of("top", "g", i) for i in range(3)), need=1))
    await (await own(store, "top-g-0")).finish()
    await owner.append(said("y"), spawn=Spawn("g", cancel_rest=True, at=START))
    statuses = [branch.status for branch in await store.branches("top", "g")]
    assert statuses == [Status.completed, Status.canceled, Status.canceled]
    assert (await store.get("top")).cancel is None


async def test_a_run_is_found_by_an_unambiguous_part_of_its_id(store: AnyStore) -> None:
    await store.submit([new_run("abcd-1"), new_run("abcd-2"), new_run("wxyz-9")])
    assert (await store.get("wxyz")).run_id == "wxyz-9"
    assert (await store.get("cd-2")).run_id == "abcd-2"
    for name in ("abcd", "nothing", "z-9"):
        with pytest.raises(UnknownName):
            await store.get(name)


async def test_a_result_is_there_when_the_run_has_ended(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    assert await store.result("top") is None
    await owner.finish({"answer": 42})
    branch = await store.result("top")
    assert branch is not None
    assert (branch.value, branch.reason, branch.ok) == ({"answer": 42}, StopReason.success, True)
    assert (await store.get("top")).finished_at == START + 1


async def test_lists_are_newest_first_and_filtered(store: AnyStore) -> None:
    await store.submit([new_run("a"), new_run("b", tenant_id="globex"), new_run("c")])
    owner = await own(store, "c")
    await owner.append(said("x"), spawn=Spawn("g", (child_of("c", "g", 0),)))

    async def names(**wanted: object) -> list[str]:
        return [record.run_id for record in await store.list_runs(RunQuery(**wanted))]  # type: ignore[arg-type]

    assert await names() == ["c-g-0", "c", "b", "a"]
    assert await names(limit=2) == ["c-g-0", "c"]
    assert await names(tenant_id="globex") == ["b"]
    assert await names(status=Status.in_progress) == ["c"]
    assert await names(roots_only=True) == ["c", "b", "a"]
    assert await names(root_run_id="c") == ["c-g-0", "c"]
    assert await names(waiting=True) == []
    assert await names(held=True) == []
    assert await names(root_run_id="c", held=False) == ["c-g-0", "c"]
    await owner.park()
    assert await names(waiting=True) == ["c"]


@pytest.mark.promise("A5")
@pytest.mark.rule("R4")
async def test_what_a_run_had_spent_counts_when_it_is_canceled_while_it_waits(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    top = await own(store, "top")
    held = Usage(input_tokens=900, micros=9_000)
    await top.append(said("x"), spawn=Spawn("g", (child_of("top", "g", 0, held),)))
    child = await own(store, "top-g-0")
    paid = {"effect": "model", "name": "m", "at": START}
    await child.append(
        Intent(key="a", digest="d", reserved=Usage(steps=1, micros=5_000), **paid),
        Outcome(key="a", activation=1, usage=Usage(steps=1, input_tokens=7, micros=3_000), **paid),
        Intent(key="b", digest="d", reserved=Usage(steps=1, micros=4_000), **paid),
    )
    await store.retire("h1")
    await store.cancel("top-g-0", "ana", START)
    record = await store.get("top-g-0")
    assert record.usage == Usage(steps=2, input_tokens=7, micros=7_000)
    group = (await store.look("top")).groups["g"]
    assert (group.used.micros, group.reserved.micros) == (7_000, 0)
    assert (await entries_of(store, "top-g-0"))[-1].usage == record.usage
