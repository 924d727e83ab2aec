"""A fork shares the past up to a step, pays for none of it, and asks before it writes the same again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import World, calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.forking import Given
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("A9", "I7")]

done: list[str] = []
keys: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()
    keys.clear()


async def work(name: str) -> str:
    done.append(name)
    return f"{name} {len(done)}"


@tool(side_effect="write", idempotency="idempotent")
async def mail(text: str, *, key: str) -> str:
    """Mails."""
    keys.append(key)
    return f"mail {len(keys)}"


mailer = agent("mailer", "Mails.", tools=[mail])


@workflow
async def steps(ctx: Context, names: list[str]) -> list[Any]:
    await ctx.sleep(60)
    chance = ctx.random.random()
    made = [await ctx.step(work, name) for name in names]
    return [*made, chance]


@workflow
async def pages(ctx: Context, last: int, state: int | None) -> str:
    page = state or 0
    said = await ctx.step(work, f"page {page}")
    if page == last:
        return str(said)
    return await ctx.checkpoint("page", page + 1)


@workflow
async def writes(ctx: Context, _: Any) -> list[Any]:
    first = await ctx.call("mail", text="first")
    await ctx.step(work, "between")
    return [first, await ctx.call("mail", text="second")]


@workflow
async def spread(ctx: Context, names: list[str]) -> list[Any]:
    made = [branch.value[0] for branch in await ctx.map(steps, [[name] for name in names])]
    return [*made, await ctx.step(work, "last")]


async def finished(world: World, target: Any, input: Any = None) -> str:
    result = await world.run(target, input)
    assert result.status is Status.completed, result.error
    return result.run_id


async def test_the_past_is_shared_and_the_step_is_taken_anew(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    run_id = await finished(world, steps, ["a", "b", "c"])
    world.clock.advance(3_600)
    fork_id = await world.fork(run_id, "work#1")
    result = await world.finish(fork_id)
    original = await world.store.result(run_id)
    assert original is not None
    assert result.value == ["a 1", "b 4", "c 5", original.value[-1]]
    assert done == ["a", "b", "c", "b", "c"]
    assert result.usage.steps == 0


async def test_a_step_can_be_given_its_outcome(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    run_id = await finished(world, steps, ["a", "b", "c"])
    result = await world.finish(await world.fork(run_id, "work#1", Given("told", "ana")))
    assert result.value[:3] == ["a 1", "told", "c 4"] and done == ["a", "b", "c", "c"]
    [told] = [o for o in await world.outcomes(result.run_id) if o.facts.get("given_by")]
    assert (told.facts["given_by"], told.content) == ("ana", "told")


async def test_a_fork_begins_at_any_checkpoint_of_the_past(make_on_each: Make) -> None:
    world = await make_on_each(pages)
    run_id = await finished(world, pages, 3)
    result = await world.finish(await world.fork(run_id, "checkpoint:2"))
    assert result.value == "page 3 6" and done[4:] == ["page 2", "page 3"]
    skipped = await world.finish(await world.fork(run_id, "checkpoint:1", Given(3, "ana")))
    assert skipped.value == "page 3 7"
    middle = await world.finish(await world.fork(run_id, "1/work#0"))
    assert middle.value == "page 3 10"


async def test_a_fork_from_the_start_may_have_another_input(make_on_each: Make) -> None:
    world = await make_on_each(steps)
    run_id = await finished(world, steps, ["a"])
    result = await world.finish(await world.fork(run_id, "start", Given(["z"], "ana")))
    assert result.value[0] == "z 2"


@pytest.mark.rule("R13")
async def test_a_write_of_the_original_is_made_again_only_with_a_yes(make_on_each: Make) -> None:
    world = await make_on_each(writes, mailer)
    run_id = await finished(world, writes)
    fork_id = await world.fork(run_id, "work#0")
    request = await world.asked(fork_id)
    assert request.kind == "approval" and f"run {run_id}@" in request.prompt and "would make it again" in request.prompt
    assert len(keys) == 2
    await world.store.resolve(request.request_id, "approved", "ben", world.clock())
    result = await world.finish(fork_id)
    assert result.value == ["mail 1", "mail 3"] and len(set(keys)) == 3
    denied = await world.fork(run_id, "work#0")
    await world.store.resolve((await world.asked(denied)).request_id, "denied", "ben", world.clock())
    assert (await world.finish(denied)).status is Status.failed and len(keys) == 3


async def test_finished_children_are_part_of_the_past(make_on_each: Make) -> None:
    world = await make_on_each(spread, steps)
    run_id = await finished(world, spread, ["a", "b"])
    result = await world.finish(await world.fork(run_id, "0/work#0"))
    assert len(done) == 4 and result.value[2] == "last 4"


async def test_an_agents_turn_is_taken_anew_with_a_model_reply_that_is_given(make_on_each: Make) -> None:
    world = await make_on_each(mailer)
    world.decide(calls("mail", text="x"), {"answer": "sent"})
    run_id = await finished(world, mailer, "go")
    fork_id = await world.fork(run_id, "1/scripted:model.jsonl#0", Given({"text": "kept", "tool_calls": []}, "ana"))
    assert (await world.finish(fork_id)).value == "kept" and len(keys) == 1
    with pytest.raises(InvalidInput, match="is a model call: give"):
        await world.fork(run_id, "1/scripted:model.jsonl#0", Given("kept", "ana"))


async def test_a_place_that_is_none_is_told_with_those_there_are(make: Make) -> None:
    world = await make(steps)
    run_id = await finished(world, steps, ["a", "b"])
    with pytest.raises(UnknownName, match="there is no step 'mork#1': name one of"):
        await world.fork(run_id, "mork#1")
    with pytest.raises(UnknownName, match="'work' is part of 2 steps"):
        await world.fork(run_id, "work")
    with pytest.raises(UnknownName, match="there is no checkpoint 4: it has none"):
        await world.fork(run_id, "checkpoint:4")
