"""Random workflows that fail at random steps, are repaired and retried, or are forked at a random step."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.places import REAL, Places
from tests.doubles.worlds import World, world
from tests.unit.runs.test_random_programs import NewPlace, Program, bounded, crashes

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Status
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError
from retinue.runs.identity import effect_key
from retinue.runs.journal import Accepted, AnyEntry, Outcome
from retinue.sessions.native import tool

pytestmark = [pytest.mark.rule("R1", "R13"), pytest.mark.promise("A9", "C1")]

broken: set[str] = set()
executed: Counter[str] = Counter()
"""How often an effect ended well, by its key."""


async def _effect(text: str, key: str) -> str:
    for _ in range(len(text) * 7 % 5):
        await asyncio.sleep(0)
    if text in broken:
        raise PermanentError(f"{text} is broken")
    executed[key] += 1
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
async def perform(ctx: Context, program: Program) -> Any:
    """Run a program; whatever fails in it fails it."""
    word, *rest = program
    if word in ("put", "get"):
        return await ctx.call(word, text=rest[0])
    if word == "sleep":
        await ctx.sleep(rest[0])
        return "slept"
    if word == "in order":
        return [await perform(ctx, part) for part in rest[0]]
    if word == "together":
        return list(await asyncio.gather(*(perform(ctx, part) for part in rest[0])))
    if word == "child":
        return await ctx.run(perform, rest[0])
    branches = await ctx.map(perform, rest[0])
    for branch in branches:
        if not branch.ok:
            raise PermanentError(f"branch {branch.index} failed")
    return [branch.value for branch in branches]


TEXTS = ["a", "bb", "ccc", "dddd", "eeeee"]


def programs(words: list[str], groups: list[str]) -> st.SearchStrategy[Program]:
    leaves = st.one_of(
        st.tuples(st.sampled_from(words), st.sampled_from(TEXTS)).map(list),
        st.tuples(st.just("sleep"), st.integers(1, 90)).map(list),
    )

    def grow(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
        several = st.lists(inner, min_size=1, max_size=3)
        options = [st.tuples(st.just(word), several).map(list) for word in groups]
        return st.one_of(*options, st.tuples(st.just("child"), inner).map(list))

    return st.recursive(leaves, grow, max_leaves=8)


async def journals(made: World) -> dict[str, list[AnyEntry]]:
    records = await made.store.list_runs(RunQuery(limit=10_000))
    return {record.run_id: await made.entries(record.run_id) for record in records}


def calls_of(entries: list[AnyEntry]) -> set[str]:
    """Effect keys of calls that ended well."""
    accepted = entries[0]
    assert isinstance(accepted, Accepted)
    outcomes = [entry for entry in entries if isinstance(entry, Outcome)]
    scope = accepted.request.effect_scope
    return {effect_key(scope, o.key) for o in outcomes if o.effect == "call" and o.result == "ok"}


async def repaired(made: World, program: Program, moments: list[int]) -> Branch:
    """Fail, repair one thing, retry, with crashes between, until it ends well: also after all is repaired, since a
    child that slept meanwhile may fail of what was broken before.
    """
    run_id = await made.submit(perform, program, run_id="the-run")
    for turns in [*moments, *[-1] * 20]:
        if turns >= 0:
            await made.lease()
            for _ in range(turns):
                await asyncio.sleep(0)
                await made.lease()
            await made.crash()
            continue
        result = await made.finish(run_id)
        if result.ok:
            return result
        well = set().union(*[calls_of(entries) for entries in (await journals(made)).values()])
        counts = {key: executed[key] for key in well}
        broken.discard(min(broken, default=""))
        await made.retry(run_id)
        await made.settle()
        assert {key: executed[key] for key in well} == counts, "what had ended well was done again"
    raise AssertionError(f"it never ended: {result.error}")


async def with_failures(new: NewPlace, program: Program, failing: set[str], moments: list[int]) -> Branch:
    executed.clear()
    broken.clear()
    broken.update(failing)
    with new() as place:
        async with world(place.kind, place.folder, perform, keeper, url=place.url) as made:
            result = await repaired(made, program, moments)
            assert made.failures == []
            return result


def same_end(places: Places, kind: str, program: Program, failing: set[str], moments: list[int]) -> None:
    calm = asyncio.run(with_failures(lambda: places.cleared("memory"), program, set(), []))
    rough = asyncio.run(with_failures(lambda: places.cleared(kind), program, failing, moments))
    assert (rough.status, rough.value) == (calm.status, calm.value) and calm.status is Status.completed


some_texts = st.sets(st.sampled_from(TEXTS), min_size=1, max_size=3)


@settings(bounded, max_examples=40)
@given(programs(["put", "get"], ["in order", "together", "map"]), some_texts, st.just([]) | crashes)
def test_a_retried_program_ends_as_if_nothing_had_failed(
    places: Places, program: Program, failing: set[str], moments: list[int]
) -> None:
    same_end(places, "memory", program, failing, moments)


@pytest.mark.parametrize("kind", REAL)
@settings(bounded, max_examples=10)
@given(programs(["put", "get"], ["in order", "together", "map"]), some_texts, st.just([]) | crashes)
def test_it_does_so_on_a_real_store(
    places: Places, kind: str, program: Program, failing: set[str], moments: list[int]
) -> None:
    same_end(places, kind, program, failing, moments)


async def forked(new: NewPlace, program: Program, number: int) -> None:
    executed.clear()
    broken.clear()
    with new() as place:
        async with world(place.kind, place.folder, perform, keeper, url=place.url) as made:
            first = await made.run(perform, program, run_id="the-run")
            entries = await made.entries("the-run")
            steps = [entry.key for entry in entries if isinstance(entry, Outcome) and entry.activation]
            fork_id = await made.fork("the-run", steps[number % len(steps)])
            shared = calls_of(await made.entries(fork_id))
            other = await made.finish(fork_id)
            assert (other.status, other.value) == (first.status, first.value), other.error
            assert first.status is Status.completed and made.failures == []
            for run_id, past in (await journals(made)).items():
                for key in calls_of(past):
                    assert executed[key] == (0 if key in shared else 1), f"{run_id}: {key}"


@settings(bounded, max_examples=40)
@given(programs(["get"], ["in order", "together", "map"]), st.integers(0, 100))
def test_a_fork_at_any_step_shares_what_is_past_and_does_the_rest(
    places: Places, program: Program, number: int
) -> None:
    asyncio.run(forked(lambda: places.cleared("memory"), program, number))


@pytest.mark.parametrize("kind", REAL)
@settings(bounded, max_examples=10)
@given(programs(["get"], ["in order", "together", "map"]), st.integers(0, 100))
def test_a_fork_does_so_on_a_real_store(places: Places, kind: str, program: Program, number: int) -> None:
    asyncio.run(forked(lambda: places.cleared(kind), program, number))
