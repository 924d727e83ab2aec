"""The code under a run changes: what still fits goes on, what does not stops with words, and a retry migrates it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.replay import WAYS_ON
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("C7")]

done: list[str] = []
broken: set[str] = set()
stuck: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()
    broken.clear()
    stuck.clear()


async def fetch(name: str) -> str:
    done.append(name)
    if name in broken:
        raise PermanentError(f"{name} is broken")
    return f"{name}!"


async def get(name: str) -> str:
    return await fetch(name)


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str) -> str:
    """A write that hangs while it is stuck."""
    done.append(f"put {text}")
    if text in stuck:
        await asyncio.Event().wait()
    return text


keeper = agent("keeper", "Keeps.", tools=[put])


@workflow(name="work")
async def first(ctx: Context, name: str) -> list[str]:
    found = await ctx.step(fetch, name)
    await ctx.sleep("10m")
    return [found, await ctx.step(fetch, "last")]


async def changed(world: World, *now: Any) -> Branch:
    """The run sleeps after its first step when the code under it changes."""
    run_id = await world.submit("work", "a")
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.waiting and done == ["a"]
    world.redefine(*now)
    return await world.finish(run_id)


def refused(result: Branch, *words: str) -> None:
    assert (result.status, result.reason) == (Status.failed, StopReason.replay_mismatch)
    assert result.error is not None and result.run_id in result.error.message
    for word in (*words, WAYS_ON):
        assert word in result.error.message
    assert done == ["a"], "nothing was done before it was told"


async def test_another_step_name_is_named(make_on_each: Make) -> None:
    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        await ctx.step(get, name)
        await ctx.sleep("10m")

    world = await make_on_each(first)
    refused(await changed(world, now), "the journal continues with step 0/fetch#0", "0/get#0")


async def test_other_arguments_are_named(make_on_each: Make) -> None:
    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        await ctx.step(fetch, name + name)
        await ctx.sleep("10m")

    world = await make_on_each(first)
    refused(await changed(world, now), "step 0/fetch#0 was recorded as step with other arguments", "digest")


async def test_a_step_that_was_taken_out_is_named(make_on_each: Make) -> None:
    @workflow(name="work")
    async def before(ctx: Context, name: str) -> Any:
        await ctx.step(fetch, name)
        return await ctx.ask("and now?")

    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        return await ctx.ask("and now?")

    world = await make_on_each(before)
    run_id = await world.submit("work", "a")
    request = await world.asked(run_id)
    world.redefine(now)
    await world.store.resolve(request.request_id, "answered", "ben", world.clock(), "yes")
    refused(await world.finish(run_id), "the journal continues with step 0/fetch#0", "0/ask#0")


async def test_a_step_that_was_put_in_before_is_named(make_on_each: Make) -> None:
    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        await ctx.step(get, "before")
        found = await ctx.step(fetch, name)
        await ctx.sleep("10m")
        return found

    world = await make_on_each(first)
    refused(await changed(world, now), "the journal continues with step 0/fetch#0", "0/get#0")


async def test_another_kind_of_step_under_the_same_key_is_named(make_on_each: Make) -> None:
    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        await ctx.call("fetch", name=name)

    world = await make_on_each(first)
    refused(await changed(world, now), "step 0/fetch#0 was recorded as step")


async def test_another_explicit_version_is_refused_before_anything_is_replayed(make_on_each: Make) -> None:
    numbered = workflow(name="work", version="1")(first.function)
    world = await make_on_each(numbered)
    result = await changed(world, workflow(name="work", version="2")(first.function))
    refused(result, "began with version 1 of work, the project has 2")


async def test_code_that_asks_for_the_same_steps_goes_on_though_its_digest_is_another(make_on_each: Make) -> None:
    """A version that begins with `~` is told, not demanded: only what the journal has must come again."""

    @workflow(name="work")
    async def now(ctx: Context, name: str) -> list[str]:
        begun = await ctx.step(fetch, name)
        await ctx.sleep("10m")
        end = [begun.upper(), await ctx.step(fetch, "other"), await ctx.step(get, "more")]
        return end[::-1]

    world = await make_on_each(first)
    assert now.version != first.version and now.version.startswith("~")
    result = await changed(world, now)
    assert (result.status, result.value) == (Status.completed, ["more!", "other!", "A!"])
    assert done == ["a", "other", "more"]


async def test_a_digest_and_a_name_are_different_versions(make_on_each: Make) -> None:
    world = await make_on_each(first)
    refused(await changed(world, workflow(name="work", version="2")(first.function)), first.version, "has 2")


@pytest.mark.promise("A9")
async def test_a_migrated_run_does_not_repeat_what_it_asks_for_as_before(make_on_each: Make) -> None:
    @workflow(name="work")
    async def now(ctx: Context, name: str) -> list[str]:
        added = await ctx.step(get, "added")
        found = await ctx.step(fetch, name)
        await ctx.sleep("5m")
        return [added, found]

    world = await make_on_each(first)
    result = await changed(world, now)
    refused(result)
    await world.retry(result.run_id, migrate=True)
    result = await world.finish(result.run_id)
    assert (result.status, result.value) == (Status.completed, ["added!", "a!"]), result.error
    assert done == ["a", "added"]


@pytest.mark.promise("A9")
async def test_a_retry_waits_anew_where_the_time_to_wait_until_is_another(make_on_each: Make) -> None:
    @workflow
    async def outer(ctx: Context, name: str) -> Any:
        async def slowly() -> str:
            await ctx.step(fetch, "first")
            await ctx.sleep("10m")
            return "slept"

        waiting = asyncio.ensure_future(slowly())
        failed = None
        try:
            await ctx.step(fetch, name)
        except PermanentError as error:
            failed = error
        await ctx.ask("seen it?")
        if failed is not None:
            raise failed
        return await waiting

    world = await make_on_each(outer)
    broken.add("a")
    run_id = await world.submit("outer", "a")
    await world.answer(run_id, "yes")
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.failed
    broken.clear()
    await world.retry(run_id)
    await world.settle()
    await world.crash()
    result = await world.finish(run_id)
    assert (result.status, result.value) == (Status.completed, "slept"), result.error


@pytest.mark.promise("A9", "C4")
@pytest.mark.rule("R13")
async def test_a_write_in_flight_is_never_another_write_under_its_key(make_on_each: Make) -> None:
    """Its key was sent with other arguments: migrating cannot help, a fork can; the words say so."""

    @workflow(name="work")
    async def writes(ctx: Context, name: str) -> Any:
        return await ctx.call(put, text=name)

    @workflow(name="work")
    async def now(ctx: Context, name: str) -> Any:
        return await ctx.call(put, text=f"other {name}")

    world = await make_on_each(writes, keeper)
    stuck.add("a")
    run_id = await world.submit("work", "a")
    await world.until(lambda: done == ["put a"])
    await world.crash()
    stuck.clear()
    world.redefine(now, keeper)
    assert (await world.finish(run_id)).reason is StopReason.replay_mismatch
    await world.retry(run_id, migrate=True)
    result = await world.finish(run_id)
    assert result.reason is StopReason.replay_mismatch and result.error is not None
    assert "fork it" in result.error.message and "--migrate" not in result.error.message
    assert done == ["put a"]


@workflow(name="pages")
async def pages(ctx: Context, count: int, state: list[str] | None = None) -> list[str]:
    seen = list(state or [])
    if len(seen) == count:
        return seen
    seen.append(await ctx.step(fetch, f"page {len(seen)}"))
    await ctx.sleep(60)
    await ctx.checkpoint("page", seen)
    return seen


@pytest.mark.promise("A9")
async def test_a_migrated_run_goes_on_from_its_newest_checkpoint_with_a_state_the_new_code_makes_its_own(
    make_on_each: Make,
) -> None:
    @workflow(name="pages", version="2")
    async def now(ctx: Context, count: int, state: Any = None) -> dict[str, Any]:
        if isinstance(state, list):
            state = {"seen": state, "from": "a list"}
        state = state or {"seen": [], "from": "nothing"}
        if len(state["seen"]) == count:
            return dict(state)
        read = await ctx.step(fetch, f"sheet {len(state['seen'])}")
        await ctx.checkpoint("sheet", {**state, "seen": [*state["seen"], read]})
        return {}

    world = await make_on_each(workflow(name="pages", version="1")(pages.function))
    run_id = await world.submit("pages", 4)
    await world.settle()
    await world.wait_out()
    await world.settle()
    assert done == ["page 0", "page 1"]
    world.redefine(now)
    result = await world.finish(run_id)
    assert result.reason is StopReason.replay_mismatch
    await world.retry(run_id, migrate=True, version="2")
    await world.lease()
    await world.crash()
    result = await world.finish(run_id)
    assert result.status is Status.completed, result.error
    assert result.value == {"seen": ["page 0!", "sheet 1!", "sheet 2!", "sheet 3!"], "from": "a list"}
    assert done[:3] == ["page 0", "page 1", "sheet 1"] and "page 2" not in done
    with pytest.raises(Exception, match="is completed"):
        await world.retry(run_id, migrate=True)


async def test_an_unknown_name_is_no_migration(make_on_each: Make) -> None:
    world = await make_on_each(first)
    run_id = await world.submit("work", "a")
    await world.settle()
    with pytest.raises(InvalidInput, match="goes on by itself"):
        await world.retry(run_id, migrate=True)
