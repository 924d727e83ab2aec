"""Tenants' accounts: what is reserved is held by open runs, what was spent is there once, and no race is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.shapes import START, Owner, child_of, host, new_run, own, said
from tests.doubles.sides import at_once, lags, two_sides
from tests.doubles.spending import Walk

from retinue.runs.accounts import Account
from retinue.runs.contracts import Budget, Status, StopReason, Usage
from retinue.runs.errors import LimitReached
from retinue.runs.journal import Finished
from retinue.runs.limits import Limit, Limits
from retinue.runs.ownership import Finish, NewRun, Spawn
from retinue.runs.retries import Retry

pytestmark = pytest.mark.promise("A5")

DAY = 86_400_000_000_000
LIMITED = Limits(tenants={"acme": Limit(usd=Decimal(10), per="day"), "free": Limit()})


def run_of(name: str, usd: str | None = "1", at: int = START, **changes: Any) -> NewRun:
    budget = Budget() if usd is None else Budget(usd=Decimal(usd))
    made = new_run(name, budget=budget, **changes)
    return NewRun(made.request, None, at)


def micros(amount: int) -> Usage:
    return Usage(micros=amount)


@pytest.fixture
def store(place: Place) -> Iterator[Any]:
    yield lambda limits=LIMITED: place.open(limits=limits)


async def account(store: Store, tenant: str = "acme") -> Account:
    found = [each for each in await store.accounts.listed() if each.tenant_id == tenant]
    return found[0]


async def end(owner: Owner, spent: int, status: Status = Status.completed) -> None:
    await owner.finish(None, status, micros(spent))


async def test_an_accepted_run_holds_its_money_and_its_end_gives_back_the_rest(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("a", "3"), run_of("b", "2")])
    assert (await account(opened)).reserved == 5_000_000
    await end(await own(opened, "a"), 1_200_000)
    found = await account(opened)
    assert (found.spent, found.reserved, found.left) == (1_200_000, 2_000_000, 6_800_000)
    assert found.window == "day 2023-11-14"
    await opened.cancel("b", "ana", START)
    found = await account(opened)
    assert (found.spent, found.reserved) == (1_200_000, 0)
    await opened.close()


async def test_what_leaves_no_room_is_refused_whole_and_says_what_there_is(store: Any) -> None:
    opened = store()
    await opened.submit([run_of("a", "8")])
    with pytest.raises(LimitReached) as refusal:
        await opened.submit([run_of("b", "1"), run_of("c", "1.5")])
    text = str(refusal.value)
    for said_there in ("'acme'", "10.000000 USD", "0.000000 USD spent", "8.000000 USD reserved", "2.500000 USD wanted"):
        assert said_there in text
    assert "2023-11-15 00:00 UTC" in text and "limits.tenants.acme.usd" in text
    assert (await account(opened)).reserved == 8_000_000, "none of the two was accepted"
    assert (await account(opened)).refused_at == START, "and it is on record"
    await opened.submit([run_of("d", "2")])
    await opened.close()


async def test_a_run_without_a_limit_of_money_is_given_a_tenth(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("a", None), run_of("f", None, tenant_id="free")])
    assert (await account(opened)).reserved == 1_000_000
    assert (await own(opened, "a")).leased.request.budget.usd == Decimal(1)
    assert (await own(opened, "f")).leased.request.budget.usd is None
    await opened.close()


async def test_windows_are_apart_and_a_run_is_settled_with_the_one_it_was_accepted_in(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("a", "9")])
    await opened.submit([run_of("b", "9", at=START + DAY)])
    await end(await own(opened, "a"), 4_000_000)
    found = {each.window: (each.spent, each.reserved) for each in await opened.accounts.listed()}
    assert found == {"day 2023-11-14": (4_000_000, 0), "day 2023-11-15": (0, 9_000_000)}
    await opened.close()


async def test_the_first_account_takes_over_what_was_spent_before_there_was_a_limit(store: Any) -> None:
    free = store(Limits())
    await free.register(host())
    await free.submit([run_of("old", None, at=START - 3 * DAY), run_of("new", None), run_of("open", None)])
    await end(await own(free, "old"), 5_000_000)
    await end(await own(free, "new"), 7_000_000)
    await free.close()
    opened = store()
    await opened.submit([run_of("a", "3")])
    assert (await account(opened)).spent == 7_000_000
    with pytest.raises(LimitReached):
        await opened.submit([run_of("b", "0.1")])
    await end(await own(opened, "open"), 250_000)
    assert (await account(opened)).spent == 7_250_000, "what was open is counted when it ends"
    await opened.close()


async def test_a_retry_reserves_what_is_left_of_its_limit_and_charges_only_what_is_new(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("a", "2")])
    await end(await own(opened, "a"), 1_500_000, Status.failed)
    await opened.retry("a", Retry("ana", START + DAY, budget=Budget(usd=Decimal(5))))
    first, second = sorted(await opened.accounts.listed(), key=lambda each: each.window)
    assert (first.spent, first.reserved) == (1_500_000, 0)
    assert (second.spent, second.reserved) == (0, 3_500_000)
    await end(await own(opened, "a"), 3_000_000, Status.failed)
    first, second = sorted(await opened.accounts.listed(), key=lambda each: each.window)
    assert (first.spent, second.spent, second.reserved) == (1_500_000, 1_500_000, 0)
    with pytest.raises(LimitReached):
        await opened.retry("a", Retry("ana", START + DAY, budget=Budget(usd=Decimal(12))))
    await opened.close()


async def test_a_run_that_ends_before_its_children_keeps_what_they_may_spend(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("a", "5")])
    owner = await own(opened, "a")
    children = tuple(child_of("a", "g", n, micros(1_000_000)) for n in range(3))
    await owner.append(said("fans out"), spawn=Spawn("g", children, at=START))
    first = await own(opened, "a-g-0")
    await end(first, 400_000)
    ended = Finished(at=START, status=Status.failed, reason=StopReason.tool_failure, usage=micros(600_000))
    await owner.append(ended, end=Finish(ended.status, ended.reason, ended.usage, below=0))
    found = await account(opened)
    assert found.spent == 1_000_000, "its owner had not heard of the first child, which is counted all the same"
    assert found.reserved == 2_000_000, "two children are open"
    await end(await own(opened, "a-g-1"), 700_000)
    await opened.cancel("a-g-2", "ana", START)
    found = await account(opened)
    assert (found.spent, found.reserved) == (1_700_000, 0)
    await opened.close()


async def test_a_rows_redrive_after_its_job_stands_on_the_account(store: Any) -> None:
    opened = store()
    await opened.register(host())
    await opened.submit([run_of("job", "4", target="retinue.batch")])
    owner = await own(opened, "job")
    await owner.append(said("rows"), spawn=Spawn("g", (child_of("job", "g", 0, micros(2_000_000)),), at=START))
    await end(await own(opened, "job-g-0"), 500_000, Status.failed)
    await end(owner, 500_000)
    assert (await account(opened)).reserved == 0
    await opened.retry("job-g-0", Retry("ana", START, budget=Budget(usd=Decimal(2))))
    found = await account(opened)
    assert (found.spent, found.reserved) == (500_000, 1_500_000)
    await end(await own(opened, "job-g-0"), 900_000)
    found = await account(opened)
    assert (found.spent, found.reserved) == (900_000, 0)
    await opened.close()


async def test_more_budget_for_a_job_is_more_for_the_shards_that_failed(store: Any) -> None:
    opened = store(Limits())
    await opened.register(host())
    await opened.submit([run_of("job", "4", target="retinue.batch")])
    owner = await own(opened, "job")
    shard = child_of("job", "g", 0, micros(1_000_000), budget=Budget(usd=Decimal(1)), target="retinue.batch")
    await owner.append(said("shards"), spawn=Spawn("g", (shard,), at=START))
    await end(await own(opened, "job-g-0"), 1_000_000, Status.failed)
    await end(owner, 1_000_000, Status.failed)
    await opened.retry("job", Retry("ana", START, budget=Budget(usd=Decimal(8))))
    again = await own(opened, "job-g-0")
    assert again.leased.frames, "its journal says with what it goes on"
    amended = [entry for frame in again.leased.frames for entry in frame.entries if entry.kind == "retried"]
    assert amended[0].amendment.budget is not None and amended[0].amendment.budget.usd == Decimal(2)
    groups = (await opened.look("job")).groups
    assert groups["g"].reserved.micros == 2_000_000, "twice the limit is twice the share"
    await opened.close()


@pytest.mark.rule("R10")
def test_two_submits_at_one_moment_do_not_pass_the_limit_together(place: Place) -> None:
    rounds = 60
    limits = Limits(tenants={"*": Limit(usd=Decimal("1.5"), per="total")})
    with two_sides(place, limits=limits) as sides:
        for number, lag in zip(range(rounds), lags(rounds), strict=True):
            tenant = f"t{number:03d}"
            works = [
                lambda store, name=f"{tenant}-{side}", tenant=tenant: store.submit(
                    [run_of(name, "1", tenant_id=tenant)]
                )
                for side in range(2)
            ]
            answers = at_once(sides, works, lag)
            refused = [answer for answer in answers if isinstance(answer, LimitReached)]
            assert len(refused) == 1 and sum(isinstance(answer, list) for answer in answers) == 1, answers
            found = sides[0].run(lambda store, tenant=tenant: account(store, tenant))  # type: ignore[misc]
            assert (found.spent, found.reserved) == (0, 1_000_000)


@pytest.mark.rule("R10")
def test_a_child_and_its_parent_that_end_at_one_moment_are_settled_once(place: Place) -> None:
    rounds = 60
    limits = Limits(tenants={"acme": Limit(usd=Decimal(1_000), per="total")})
    with two_sides(place, limits=limits) as sides:
        sides[0].run(lambda store: store.register(host("h1")))
        sides[1].run(lambda store: store.register(host("h2")))

        async def begin(store: Store, name: str) -> Owner:
            await store.submit([run_of(name, "3")])
            owner = await own(store, name, host("h1"))
            children = tuple(child_of(name, "g", n, micros(1_000_000)) for n in range(2))
            await owner.append(said("fans out"), spawn=Spawn("g", children, at=START))
            return owner

        for number, lag in zip(range(rounds), lags(rounds), strict=True):
            name = f"p{number:03d}"
            parent = sides[0].run(lambda store, name=name: begin(store, name))  # type: ignore[misc]
            child = sides[1].run(lambda store, name=name: own(store, f"{name}-g-0", host("h2")))  # type: ignore[misc]
            usage = micros(100_000)
            entry = Finished(at=START, status=Status.failed, reason=StopReason.tool_failure, usage=usage)
            close = Finish(entry.status, entry.reason, usage, below=0)
            works = [
                lambda _, owner=parent, entry=entry, close=close: owner.append(entry, end=close),
                lambda _, owner=child: end(owner, 300_000),
            ]
            errors = [answer for answer in at_once(sides, works, lag) if isinstance(answer, BaseException)]
            assert errors == []
            sides[0].run(lambda store, name=name: store.cancel(f"{name}-g-1", "ana", START))  # type: ignore[misc]
            found = sides[0].run(account)
            assert (found.spent, found.reserved) == ((number + 1) * 400_000, 0), name


@pytest.mark.parametrize("seed", range(6))
async def test_a_walk_of_submits_ends_cancels_retries_and_deaths_leaks_nothing(store: Any, seed: int) -> None:
    opened = store(Limits(tenants={"acme": Limit(usd=Decimal(60), per="day")}))
    walk = Walk(opened, Random(seed))
    await walk.begin()
    for _ in range(150):
        await walk.step()
        reserved, spent = await walk.books()
        assert reserved == await asyncio.to_thread(walk.kept), walk.told
        assert reserved >= 0 and reserved + spent <= 60_000_000, walk.told
    await walk.end_all()
    reserved, spent = await walk.books()
    assert (reserved, spent) == (0, walk.paid), walk.told
    await opened.close()
