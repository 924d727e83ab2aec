"""Limits are the runtime's: each one stops the run before it is passed, and a child's share is set aside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.worlds import calls, costs, ended
from tests.unit.runs.conftest import Make

from retinue.runs.arrivals import Group
from retinue.runs.budgets import Ledger
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, StopReason, Usage
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import BudgetExhausted
from retinue.sessions.native import tool

pytestmark = pytest.mark.promise("A5")

hops: list[int] = []
gate = asyncio.Event()


@tool(side_effect="read")
def hop(number: int) -> int:
    """One hop."""
    hops.append(number)
    return number


@tool(side_effect="write", idempotency="idempotent")
async def slow_hop() -> str:
    """A hop that may take long."""
    hops.append(0)
    if len(hops) == 1:
        await asyncio.Event().wait()
    return "made"


hopper = agent("hopper", "Hop.", tools=[hop, slow_hop], max_tokens=100)


@pytest.fixture(autouse=True)
def fresh() -> None:
    hops.clear()


def exhausted(result: Any, word: str) -> None:
    assert ended(result) == ("failed", "budget_exhausted"), result
    assert result.error is not None and word in result.error.message and "raise" in result.error.message


async def test_steps(make_on_each: Make) -> None:
    world = await make_on_each(hopper)
    world.decide(*[calls("hop", number=n) for n in range(9)])
    result = await world.run(hopper, "go", budget=Budget(steps=3))
    exhausted(result, "steps budget 3")
    assert (result.usage.steps, hops) == (3, [0, 1, 2])


async def test_hops(make_on_each: Make) -> None:
    world = await make_on_each(hopper)
    world.decide(calls("hop", number=0), calls("hop", number=1), calls("hop", number=2))
    result = await world.run(hopper, "go", budget=Budget(hops=2))
    exhausted(result, "hops budget 2")
    assert hops == [0, 1]


async def test_hops_of_one_turn_are_counted_together(make: Make) -> None:
    world = await make(hopper)
    world.decide({"tool_calls": [{"name": "hop", "arguments": {"number": n}} for n in range(3)]})
    exhausted(await world.run(hopper, "go", budget=Budget(hops=2)), "hops budget 2")
    assert len(hops) <= 2


async def test_a_hop_that_a_crash_interrupted_counts_once(make_on_each: Make) -> None:
    world = await make_on_each(hopper)
    world.decide(calls("slow_hop"), {"answer": "done"})
    run_id = await world.submit(hopper, "go", budget=Budget(hops=1))
    await world.until(lambda: len(hops) == 1)
    await world.crash()
    assert (await world.finish(run_id)).value == "done"


async def test_tokens(make_on_each: Make) -> None:
    world = await make_on_each(hopper)
    spend = {"usage": {"input_tokens": 100, "output_tokens": 50}}
    world.decide(*[calls("hop", number=n) | spend for n in range(9)])
    result = await world.run(hopper, "go", budget=Budget(tokens=500))
    exhausted(result, "tokens budget 500")
    assert result.usage.tokens == 450


async def test_money(make_on_each: Make) -> None:
    world = await make_on_each(hopper)
    world.decide(*[costs(calls("hop", number=n), "0.040000") for n in range(9)])
    result = await world.run(hopper, "go", budget=Budget(usd="0.10"))
    exhausted(result, "micros budget 0.100000 USD")
    assert result.usage.micros == 80_000


@workflow
async def naps(ctx: Context, _: None) -> None:
    for _number in range(10):
        await ctx.sleep(60)


@pytest.mark.promise("A4")
async def test_seconds_count_from_the_first_start_and_over_crashes(make_on_each: Make) -> None:
    world = await make_on_each(naps)
    run_id = await world.submit(naps, budget=Budget(seconds=150))
    await world.settle()
    await world.crash()
    result = await world.finish(run_id)
    assert result.reason is StopReason.deadline_exceeded
    record = await world.store.get(run_id)
    assert record.started_at is not None and record.finished_at is not None
    assert 150 <= (record.finished_at - record.started_at) / 1e9 < 151


async def test_a_deadline_that_was_given_ends_the_run_too(make: Make) -> None:
    world = await make(naps)
    result = await world.run(naps, deadline=world.clock.now + 90_000_000_000)
    assert result.reason is StopReason.deadline_exceeded


@workflow
async def nest(ctx: Context, levels: int) -> int:
    return 0 if levels == 0 else 1 + int(await ctx.run(nest, levels - 1))


async def test_depth(make_on_each: Make) -> None:
    world = await make_on_each(nest)
    assert (await world.run(nest, 2, budget=Budget(depth=2))).value == 2
    result = await world.run(nest, 3, budget=Budget(depth=2))
    assert result.reason is StopReason.budget_exhausted
    deep = [record.depth for record in await world.store.list_runs(RunQuery(root_run_id=result.run_id))]
    assert max(deep) == 2


@workflow
async def echo(ctx: Context, value: int) -> int:
    return value


@workflow
async def fan(ctx: Context, count: int) -> list[Any]:
    return [branch.value for branch in await ctx.map(echo, list(range(count)))]


async def test_width(make_on_each: Make) -> None:
    world = await make_on_each(fan, echo)
    assert (await world.run(fan, 3, budget=Budget(width=3))).value == [0, 1, 2]
    result = await world.run(fan, 4, budget=Budget(width=3))
    exhausted(result, "4 children at once, 3 allowed")
    assert await world.store.list_runs(RunQuery(parent_run_id=result.run_id)) == []


spender = agent("spender", "Spend.", max_tokens=100)


@workflow
async def spread(ctx: Context, count: int) -> list[str]:
    return [branch.reason.value for branch in await ctx.map(spender, [f"item {n}" for n in range(count)])]


async def test_a_childs_share_is_set_aside_from_its_parents_budget_with_its_creation(make_on_each: Make) -> None:
    world = await make_on_each(spread, spender)
    world.decide(costs({"answer": "x"}, "0.010000"))
    run_id = await world.submit(spread, 4, budget=Budget(usd="0.08", tokens=4_000))
    await world.until_journaled(run_id, lambda entries: any(entry.kind == "intent" for entry in entries))
    groups = (await world.store.look(run_id)).groups
    [group] = groups.values()
    assert group.reserved.micros + group.used.micros <= 80_000
    result = await world.finish(run_id)
    assert result.value == ["success"] * 4 and result.usage.micros == 40_000
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    assert len(children) == 4
    [group] = (await world.store.look(run_id)).groups.values()
    assert (group.reserved.micros, group.used.micros) == (0, 40_000)


async def test_children_cannot_spend_more_than_their_parent_has(make_on_each: Make) -> None:
    world = await make_on_each(spread, spender)
    world.decide(costs({"answer": "x"}, "0.010000"))
    result = await world.run(spread, 4, budget=Budget(usd="0.03"))
    assert result.value == ["budget_exhausted"] * 4 and result.usage.micros == 0


@workflow
async def spend_then_spread(ctx: Context, count: int) -> list[str]:
    await ctx.run(spender, "all of it")
    return [branch.reason.value for branch in await ctx.map(spender, [f"item {n}" for n in range(count)])]


async def test_with_nothing_left_there_are_no_children(make_on_each: Make) -> None:
    world = await make_on_each(spend_then_spread, spender)
    world.decide(costs({"answer": "x"}, "0.010000"))
    result = await world.run(spend_then_spread, 2, budget=Budget(usd="0.01"))
    exhausted(result, "nothing is left")


@workflow
async def spread_windowed(ctx: Context, count: int) -> list[str]:
    found = await ctx.map(spender, [f"item {n}" for n in range(count)], window=2)
    return [branch.reason.value for branch in found]


async def test_a_window_leaves_something_for_the_next(make_on_each: Make) -> None:
    world = await make_on_each(spread_windowed, spender)
    world.decide(costs({"answer": "x"}, "0.010000"))
    result = await world.run(spread_windowed, 6, budget=Budget(usd="0.06"))
    assert result.value == ["success"] * 6 and result.usage.micros == 60_000


amounts = st.integers(0, 50)


@given(st.lists(st.tuples(st.sampled_from(["reserve", "settle"]), st.sampled_from("abc"), amounts)))
def test_a_ledger_never_lets_spent_and_held_pass_the_limit(moves: list[tuple[str, str, int]]) -> None:
    ledger = Ledger("r", Budget(tokens=100))
    held: dict[str, int] = {}
    spent = 0
    for move, key, amount in moves:
        if move == "reserve":
            old = held.pop(key, 0)
            fits = spent + sum(held.values()) + amount <= 100
            if fits or amount == 0:
                ledger.reserve(key, Usage(input_tokens=amount))
                held[key] = amount
            else:
                with pytest.raises(BudgetExhausted):
                    ledger.reserve(key, Usage(input_tokens=amount))
            assert old >= 0
        elif move == "settle" and key in held:
            used = min(amount, held.pop(key))
            ledger.settle(key, Usage(input_tokens=used))
            spent += used
        assert ledger.remaining()["tokens"] == 100 - spent - sum(held.values()) >= 0


@given(st.integers(1, 20), st.integers(0, 10_000), st.integers(0, 5_000))
def test_shares_of_children_never_sum_to_more_than_is_left(count: int, limit: int, used: int) -> None:
    ledger = Ledger("r", Budget(tokens=limit, depth=3))
    ledger.groups([Group("g", used=Usage(input_tokens=used))])
    try:
        budget = ledger.children(count, Budget())
    except BudgetExhausted:
        assert max(limit - used, 0) < count
        return
    assert budget.tokens is not None and 0 < budget.tokens * count <= limit - used
    assert budget.depth == 2
