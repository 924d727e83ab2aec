"""Random workflows, crashed at random moments, end as undisturbed ones do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doubles.places import REAL, Place, Places
from tests.doubles.worlds import World, world

from retinue.runs.context import Context
from retinue.runs.contracts import Branch
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.sessions.native import tool

pytestmark = [pytest.mark.rule("R1"), pytest.mark.promise("C1", "C6")]

NewPlace = Callable[[], AbstractContextManager[Place]]
Program = list[Any]
"""A word and its operands: what `interpret` runs."""

texts: dict[str, str] = {}
executed: Counter[str] = Counter()


async def _effect(text: str, key: str) -> str:
    for _ in range(len(text) * 7 % 5):
        await asyncio.sleep(0)
    executed[key] += 1
    assert texts.setdefault(key, text) == text, "one key for two effects"
    return f"did {text}"


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str) -> str:
    """A write that may be sent again with its key."""
    return await _effect(text, key)


@tool(side_effect="read")
async def get(text: str, *, key: str) -> str:
    """A read: it may ride with the next commit."""
    return await _effect(text, key)


keeper = agent("keeper", "Keeps the tools.", tools=[put, get])


@workflow
async def interpret(ctx: Context, program: Program) -> Any:
    """Run a program; its result is made of all its results."""
    word, *rest = program
    if word in ("put", "get"):
        return await ctx.call(word, text=rest[0])
    if word == "sleep":
        await ctx.sleep(rest[0])
        return ctx.now().timestamp() > 0
    if word == "dice":
        return ctx.random.randint(0, rest[0])
    if word == "in order":
        return [await interpret(ctx, part) for part in rest[0]]
    if word == "together":
        return list(await asyncio.gather(*(interpret(ctx, part) for part in rest[0])))
    if word == "child":
        return await ctx.run(interpret, rest[0])
    if word == "map":
        return [branch.value for branch in await ctx.map(interpret, rest[0])]
    return await _race(ctx, rest[0])


async def _race(ctx: Context, parts: list[Program]) -> list[Any]:
    """Branches on who came first; what it decided is written outside, so that a second decision would show."""
    tasks = [asyncio.ensure_future(interpret(ctx, part)) for part in parts]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    first = sorted(tasks.index(task) for task in done)
    told = await ctx.call("put", text=f"first {first}")
    if rest:
        await asyncio.wait(rest)
    return [told, *(task.result() for task in tasks)]


leaves = st.one_of(
    st.tuples(st.sampled_from(["put", "get"]), st.sampled_from(["a", "bb", "ccc", "dddd"])).map(list),
    st.tuples(st.just("sleep"), st.integers(1, 90)).map(list),
    st.tuples(st.just("dice"), st.integers(1, 1_000)).map(list),
)


def programs(groups: list[str]) -> st.SearchStrategy[Program]:
    """Programs whose inner nodes are of these kinds."""

    def grow(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
        several = st.lists(inner, min_size=1, max_size=3)
        options = [st.tuples(st.just(word), several).map(list) for word in groups]
        return st.one_of(*options, st.tuples(st.just("child"), inner).map(list))

    return st.recursive(leaves, grow, max_leaves=8)


crashes = st.lists(st.integers(0, 40), min_size=1, max_size=6)
bounded = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


async def undisturbed(made: World, program: Program) -> Branch:
    return await made.run(interpret, program, run_id="the-run")


async def disturbed(made: World, program: Program, moments: list[int]) -> Branch:
    """Crash after so many turns of the loop, again and again, then let it end."""
    run_id = await made.submit(interpret, program, run_id="the-run")
    for turns in moments:
        await made.lease()
        for _ in range(turns):
            await asyncio.sleep(0)
            await made.lease()
        await made.crash()
        await made.wait_out()
    return await made.finish(run_id)


async def delivered(made: World) -> dict[str, Counter[Any]]:
    """By run: what its effects gave to its function."""
    found = {}
    for record in await made.store.list_runs(RunQuery(limit=10_000)):
        outcomes = [outcome for outcome in await made.outcomes(record.run_id) if outcome.activation]
        kept = ((o.key, o.effect, o.result, str(o.content) if o.effect == "call" else "") for o in outcomes)
        found[record.run_id] = Counter(kept)
    return found


async def live_through(
    new: NewPlace, program: Program, moments: list[int] | None
) -> tuple[Branch, dict[str, Counter[Any]]]:
    """One life of a program in a world of its own."""
    texts.clear()
    executed.clear()
    with new() as place:
        async with world(place.kind, place.folder, interpret, keeper, url=place.url) as made:
            if moments is None:
                result = await undisturbed(made, program)
            else:
                result = await disturbed(made, program, moments)
                assert max(executed.values(), default=0) <= 1 + len(moments)
            assert made.failures == []
            return result, await delivered(made)


def same_life(new: NewPlace, program: Program, moments: list[int]) -> None:
    calm, heard = asyncio.run(live_through(new, program, None))
    rough, heard_again = asyncio.run(live_through(new, program, moments))
    assert calm.ok, calm.error
    assert (rough.status, rough.value) == (calm.status, calm.value), rough.error
    assert heard_again == heard


@settings(bounded, max_examples=80)
@given(programs(["in order", "together", "map"]), crashes)
def test_a_crashed_program_ends_like_an_undisturbed_one(places: Places, program: Program, moments: list[int]) -> None:
    same_life(lambda: places.cleared("memory"), program, moments)


@pytest.mark.parametrize("kind", REAL)
@settings(bounded, max_examples=12)
@given(programs(["in order", "together", "map"]), crashes)
def test_it_does_so_on_a_real_store(places: Places, kind: str, program: Program, moments: list[int]) -> None:
    same_life(lambda: places.cleared(kind), program, moments)


@settings(bounded, max_examples=60)
@given(programs(["in order", "together", "race"]), crashes)
def test_a_race_that_was_decided_stays_decided(places: Places, program: Program, moments: list[int]) -> None:
    result, _ = asyncio.run(live_through(lambda: places.cleared("memory"), program, moments))
    assert result.ok, result.error
    decided = {f"did {text}" for text in texts.values() if text.startswith("first")}
    assert set(races_in(result.value)) <= decided
    assert len(list(races_in(result.value))) == sum(text.startswith("first") for text in texts.values())


def races_in(value: Any) -> Any:
    """What races told, anywhere in a result."""
    if isinstance(value, list):
        for part in value:
            yield from races_in(part)
    elif isinstance(value, str) and value.startswith("did first"):
        yield value
