"""Two hosts do what excludes or completes each other at the same moment: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.processes import python
from tests.doubles.shapes import START, Owner, child_of, host, new_run, own, said
from tests.doubles.sides import Side, at_once, lags, two_sides

from retinue.runs.contracts import PendingRequest, RunRecord, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import Fenced, InvalidInput, StoreError
from retinue.runs.limits import Limit, Limits
from retinue.runs.machine import WAITING
from retinue.runs.ownership import Spawn

OPEN = """
import asyncio, sys
from tests.doubles.places import Place
from tests.doubles.shapes import host, new_run

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    store = Place.of(*sys.argv[2:]).open()
    await store.register(host("host-" + sys.argv[1]))
    await store.submit([new_run("run-" + sys.argv[1])])
    print("opened", await store.incarnation(), flush=True)
    await store.close()

asyncio.run(main())
"""
ROUNDS = 200
H1, H2 = host("h1"), host("h2")
EACH = (H1, H2)
Sides = tuple[Side, Side]


@pytest.fixture
def sides(place: Place) -> Iterator[Sides]:
    with two_sides(place) as (first, second):
        first.run(lambda store: store.register(H1))
        second.run(lambda store: store.register(H2))
        yield first, second


def own_all(side: Side, host_number: int, names: list[str]) -> list[Owner]:
    """Lease runs by name for the host of a side."""

    async def lease(store: Store) -> list[Owner]:
        return [await own(store, name, EACH[host_number]) for name in names]

    return side.run(lease)


def submit(side: Side, *names: str) -> None:
    side.run(lambda store: store.submit([new_run(name) for name in names]))


def fan_out(side: Side, parents: list[str], children: int, cancel_with: int = 0) -> list[Owner]:
    """Parents that have parked for a group of children each."""
    submit(side, *parents)
    owners = own_all(side, 0, parents)

    async def spawn(owner: Owner) -> None:
        name = owner.leased.request.run_id
        made = tuple(child_of(name, "g", number) for number in range(children))
        await owner.append(said("fans out"), spawn=Spawn("g", made, exhausted=True, at=START))
        assert await owner.park()

    async def spawn_all(_: Store) -> None:
        for owner in owners:
            await spawn(owner)

    side.run(spawn_all)
    return owners


def record(side: Side, name: str) -> RunRecord:
    return side.run(lambda store: store.get(name))


def below(side: Side, name: str) -> dict[str, RunRecord]:
    """A run and all below it, by id."""

    async def read(store: Store) -> dict[str, RunRecord]:
        tree = await store.below(name, 1_000, 9)
        return {found.run_id: found for found in tree.records}

    return side.run(read)


def errors_in(answers: list[Any]) -> list[Any]:
    return [answer for answer in answers if isinstance(answer, BaseException)]


# -- joins ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("R10")
def test_two_last_children_that_end_together_wake_their_parent_once(sides: Sides) -> None:
    parents = [f"parent-{number:04d}" for number in range(ROUNDS)]
    seen = {owner.leased.request.run_id: owner.seen for owner in fan_out(sides[0], parents, 2)}
    ends = [own_all(side, place, [f"{name}-g-{place}" for name in parents]) for place, side in enumerate(sides)]
    for first, second, lag in zip(*ends, lags(ROUNDS), strict=True):
        both = at_once(sides, [lambda _, o=first: o.finish(1), lambda _, o=second: o.finish(2)], lag)  # type: ignore[misc]
        assert errors_in(both) == []
    for name in parents:
        news = sides[0].run(lambda store, name=name: store.look(name))  # type: ignore[misc]
        assert (news.groups["g"].pending, news.groups["g"].ok) == (0, 2)
        assert news.seq == seen[name] + 1, "woken once, by the last of them"
        assert record(sides[0], name).status is Status.queued
    leased = sides[0].run(lambda store: store.lease(H1, "runs", ROUNDS + 1, START))
    assert sorted(run.request.run_id for run in leased) == parents


@pytest.mark.rule("R10")
def test_children_of_two_parents_that_end_in_crossing_order_all_end(sides: Sides) -> None:
    pairs = [(f"left-{number:03d}", f"right-{number:03d}") for number in range(50)]
    parents = [name for pair in pairs for name in pair]
    fan_out(sides[0], parents, 2)
    ends = {
        (place, name): owner
        for place, side in enumerate(sides)
        for name, owner in zip(parents, own_all(side, place, [f"{name}-g-{place}" for name in parents]), strict=True)
    }

    def finish(place: int, names: tuple[str, ...]) -> Callable[[Store], Awaitable[Any]]:
        """Submitted together, so that one transaction may hold what the other side's needs next."""

        async def end(_: Store) -> None:
            await asyncio.gather(*(ends[place, name].finish(place) for name in names))

        return end

    for pair, lag in zip(pairs, lags(len(pairs)), strict=True):
        both = at_once(sides, [finish(0, pair), finish(1, pair[::-1])], lag)
        assert errors_in(both) == []
    assert {record(sides[0], name).status for name in parents} == {Status.queued}


@pytest.mark.rule("R10")
def test_a_park_that_meets_news_does_not_sleep_through_it(sides: Sides) -> None:
    names = [f"run-{number:04d}" for number in range(ROUNDS)]
    submit(sides[0], *names)
    parked = []
    for owner, lag in zip(own_all(sides[0], 0, names), lags(ROUNDS), strict=True):
        name = owner.leased.request.run_id
        works = [lambda _, o=owner: o.park(), lambda store, name=name: store.signal(name, "go", None, START)]  # type: ignore[misc]
        both = at_once(sides, works, lag)
        assert errors_in(both) == []
        parked.append(both[0])
        found = record(sides[1], name)
        assert found.status is (Status.queued if both[0] else Status.in_progress)
        assert sides[1].run(lambda store, name=name: store.look(name)).seq == owner.seen + 1  # type: ignore[misc]
    assert set(parked) == {True, False}, "neither came first: the race was none"


# -- cancels ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("R14")
def test_a_cancel_that_meets_a_spawn_leaves_no_child_alive(sides: Sides) -> None:
    """The canceled run is parked; a run in progress below it makes children meanwhile."""
    names = [f"top-{number:03d}" for number in range(100)]
    fan_out(sides[0], names, 1)
    middles = own_all(sides[1], 1, [f"{name}-g-0" for name in names])
    canceled_late = 0
    for name, middle, lag in zip(names, middles, lags(len(names)), strict=True):
        place = {"root_run_id": name, "depth": 2}
        made = tuple(child_of(f"{name}-g-0", "h", number, **place) for number in range(3))
        spawn = Spawn("h", made, exhausted=True, at=START)
        works = [
            lambda store, name=name: store.cancel(name, "ana", START),  # type: ignore[misc]
            lambda _, o=middle, s=spawn: o.append(said("fans out"), spawn=s),  # type: ignore[misc]
        ]
        both = at_once(sides, works, lag)
        assert errors_in(both) == []
        found = below(sides[0], name)
        children = [found[each.request.run_id] for each in made if each.request.run_id in found]
        assert {child.status for child in children} <= {Status.canceled}, [child.status for child in children]
        assert found[f"{name}-g-0"].cancel == "ana" and found[name].status is Status.canceled
        news = sides[1].run(lambda store, name=name: store.look(f"{name}-g-0"))  # type: ignore[misc]
        assert news.seq > middle.seen
        assert news.groups["h"].pending == 0
        canceled_late += bool(children)
    assert 0 < canceled_late < len(names), "neither came first: the race was none"


@pytest.mark.rule("R14")
def test_a_hold_that_meets_a_spawn_holds_the_children_too(sides: Sides) -> None:
    names = [f"top-{number:03d}" for number in range(100)]
    fan_out(sides[0], names, 1)
    middles = own_all(sides[1], 1, [f"{name}-g-0" for name in names])
    for name, middle, lag in zip(names, middles, lags(len(names)), strict=True):
        made = (child_of(f"{name}-g-0", "h", 0, root_run_id=name, depth=2),)
        spawn = Spawn("h", made, exhausted=True, at=START)
        works = [
            lambda store, name=name: store.hold(name, True),  # type: ignore[misc]
            lambda _, o=middle, s=spawn: o.append(said("fans out"), spawn=s),  # type: ignore[misc]
        ]
        assert errors_in(at_once(sides, works, lag)) == []
        assert {found.run_id for found in below(sides[0], name).values() if not found.held} == set()


@pytest.mark.rule("R14")
def test_a_cancel_that_meets_an_end_counts_the_child_once(sides: Sides) -> None:
    names = [f"top-{number:03d}" for number in range(100)]
    fan_out(sides[0], names, 2)
    children = own_all(sides[1], 1, [f"{name}-g-0" for name in names])
    for name, child, lag in zip(names, children, lags(len(names)), strict=True):
        works = [lambda store, name=name: store.cancel(name, "ana", START), lambda _, o=child: o.finish(1)]  # type: ignore[misc]
        both = at_once(sides, works, lag)
        assert errors_in(both) == []
        found = below(sides[0], name)
        assert found[f"{name}-g-0"].status is Status.completed
        assert (found[name].status, found[f"{name}-g-1"].status) == (Status.canceled, Status.canceled)
        group = sides[0].run(lambda store, name=name: store.look(name)).groups["g"]  # type: ignore[misc]
        assert (group.pending, group.ok, group.failed) == (0, 1, 1)


# -- leases -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("C3")
def test_two_hosts_that_lease_from_one_queue_never_get_the_same_run(sides: Sides) -> None:
    names = [f"run-{number:04d}" for number in range(600)]
    submit(sides[0], *names)

    def lease_all(owner: int) -> Callable[[Store], Awaitable[list[tuple[str, int]]]]:
        async def lease(store: Store) -> list[tuple[str, int]]:
            mine: list[tuple[str, int]] = []
            empty = 0
            while empty < 3:
                found = await store.lease(EACH[owner], "runs", 7, START)
                empty = 0 if found else empty + 1
                mine += [(run.request.run_id, run.epoch) for run in found]
            return mine

        return lease

    taken = at_once(sides, [lease_all(0), lease_all(1)])
    assert errors_in(taken) == []
    assert sorted(name for mine in taken for name, _ in mine) == names
    assert {epoch for mine in taken for _, epoch in mine} == {1}


@pytest.mark.promise("C3")
def test_limits_of_concurrency_hold_when_two_hosts_lease(place: Place) -> None:
    limits = Limits(tenants={"*": Limit(concurrency=9)}, queues={"mail": Limit(concurrency=4)})
    with two_sides(place, limits=limits) as sides:
        for side, one in zip(sides, EACH, strict=True):
            side.run(lambda store, one=one: store.register(one))  # type: ignore[misc]
        mail = [new_run(f"mail-{number:03d}", queue="mail") for number in range(60)]
        sides[0].run(lambda store: store.submit([*mail, *(new_run(f"run-{number:03d}") for number in range(60))]))
        ended = 0
        while ended < 120:
            works = [lambda store, one=one: store.lease(one, "runs", 5, START) for one in EACH]  # type: ignore[misc]
            taken = at_once(sides, works)
            assert errors_in(taken) == []
            leased = [run.request.queue for found in taken for run in found]
            assert 0 < len(leased) <= 9 and Counter(leased)["mail"] <= 4
            for side, found in zip(sides, taken, strict=True):
                for run in found:
                    side.run(lambda store, run=run: Owner(store, run).finish())  # type: ignore[misc]
            ended += len(leased)
        assert ended == 120


@pytest.mark.promise("C3")
def test_of_two_that_take_over_a_run_one_has_it_and_the_dead_one_is_fenced(sides: Sides) -> None:
    names = [f"run-{number:03d}" for number in range(50)]
    submit(sides[0], *names)
    sides[0].run(lambda store: store.register(host("dead")))
    owners = sides[0].run(lambda store: store.lease(host("dead"), "runs", 50, START))
    lates = [Owner(sides[0].store, leased) for leased in owners]
    sides[0].run(lambda store: store.retire("dead"))
    for late, lag in zip(lates, lags(len(lates)), strict=True):
        name = late.leased.request.run_id
        works = [lambda store, one=one, name=name: store.lease(one, "", 1, START, only=name) for one in EACH]  # type: ignore[misc]
        taken = at_once(sides, works, lag)
        assert errors_in(taken) == []
        assert sorted(len(found) for found in taken) == [0, 1]
        [[leased]] = [found for found in taken if found]
        assert leased.epoch == 2
        with pytest.raises(Fenced):
            sides[0].run(lambda _, late=late: late.append(said("late")))  # type: ignore[misc]


@pytest.mark.rule("R16")
def test_many_that_open_a_new_store_at_once_make_one(place: Place) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(python(OPEN, str(n), *place.arguments)) for n in range(4)]
        for other in others:
            other.wait_for("ready")
        for other in others:
            other.tell("go")
        assert len({other.wait_for("opened") for other in others}) == 1
    with two_sides(place) as (side, _):
        assert len(side.run(lambda store: store.list_runs(RunQuery(limit=100)))) == 4


# -- people -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("A2")
def test_one_key_that_two_submit_at_once_gives_one_run(sides: Sides) -> None:
    """In crossing order, so that each may hold a key that the other waits for."""
    for number, lag in enumerate(lags(100)):
        keys = [f"key-{number:03d}-{part}" for part in range(3)]

        def send(side: int, keys: list[str]) -> Callable[[Store], Awaitable[list[RunRecord]]]:
            runs = [new_run(f"{key}-side-{side}", idempotency_key=key) for key in keys]
            return lambda store: store.submit(runs)

        one, two = at_once(sides, [send(0, keys), send(1, keys[::-1])], lag)
        assert errors_in([one, two]) == []
        assert [run.run_id for run in one] == [run.run_id for run in reversed(two)]
    every = sides[0].run(lambda store: store.list_runs(RunQuery(limit=1_000)))
    assert len(every) == 300


@pytest.mark.rule("R10")
def test_of_two_that_decide_one_request_one_wins_and_the_other_is_told(sides: Sides) -> None:
    names = [f"run-{number:03d}" for number in range(100)]
    submit(sides[0], *names)
    for owner, lag in zip(own_all(sides[0], 0, names), lags(len(names)), strict=True):
        name = owner.leased.request.run_id
        asked = PendingRequest(
            request_id=f"{name}-q",
            run_id=name,
            root_run_id=name,
            tenant_id="acme",
            kind="approval",
            key="k",
            prompt="May I?",
            created_at=START,
        )
        sides[0].run(lambda _, o=owner, asked=asked: o.append(said("asks"), request=asked))  # type: ignore[misc]
        assert sides[0].run(lambda _, o=owner: o.park(status=Status.waiting_for_approval))  # type: ignore[misc]
        works = [
            lambda store, verdict=verdict, name=name: store.resolve(f"{name}-q", verdict, verdict, START, verdict)  # type: ignore[misc]
            for verdict in ("approved", "denied")
        ]
        both = at_once(sides, works, lag)
        [refused] = errors_in(both)
        assert isinstance(refused, InvalidInput) and not isinstance(refused, StoreError)
        [won] = [answer for answer in both if answer is not refused]
        assert f"is {won.status} already" in str(refused)
        news = sides[0].run(lambda store, name=name: store.look(name))  # type: ignore[misc]
        assert (news.answers["k"].status, news.answers["k"].value) == (won.status, won.status)
        assert news.seq == owner.seen + 1
        found = record(sides[0], name)
        assert found.status is Status.queued and found.status not in WAITING
