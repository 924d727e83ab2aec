"""Checkpoints: continue as new, at the top only, with nothing in flight; replay starts at the newest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import StopReason
from retinue.runs.definitions import agent, workflow
from retinue.sessions.native import tool

pytestmark = pytest.mark.rule("R2")

started: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    started.clear()


def note(state: Any) -> int:
    started.append(state)
    return len(started)


@workflow
async def pages(ctx: Context, last: int, state: dict[str, Any] | None) -> dict[str, Any]:
    page = 0 if state is None else state["page"]
    await ctx.step(note, {"page": page})
    await ctx.sleep(60)
    if page == last:
        return {"page": page, "state": state}
    return await ctx.checkpoint("page", {"page": page + 1, "pair": (1, 2), 3: None})


async def test_the_function_begins_anew_with_its_state(make_on_each: Make) -> None:
    world = await make_on_each(pages)
    result = await world.run(pages, 2)
    assert result.value == {"page": 2, "state": {"page": 2, "pair": [1, 2], "3": None}}
    assert [entry["page"] for entry in started] == [0, 1, 2]
    marks = [entry for entry in await world.entries(result.run_id) if entry.kind == "checkpoint"]
    assert [(mark.name, mark.number, mark.content["page"]) for mark in marks] == [("page", 1, 1), ("page", 2, 2)]


async def test_a_state_is_the_same_live_and_after_a_crash(make: Make) -> None:
    seen: list[tuple[str, Any]] = []

    @workflow
    async def twice(ctx: Context, _: None, state: Any) -> Any:
        seen.append((type(state).__name__, state))
        await ctx.sleep(60)
        return state if state is not None else await ctx.checkpoint("once", {"pair": (1, 2), 7: {"deep": (3,)}})

    world = await make(twice)
    run_id = await world.submit(twice)
    await world.settle()
    await world.wait_out()
    await world.settle()
    await world.crash()
    await world.store.signal(run_id, "again", None, START)
    await world.finish(run_id)
    assert [state for _, state in seen[-3:]] == [{"pair": [1, 2], "7": {"deep": [3]}}] * 3


async def test_replay_starts_at_the_newest_checkpoint(make_on_each: Make) -> None:
    world = await make_on_each(pages)
    run_id = await world.submit(pages, 3)
    for _ in range(3):
        await world.settle()
        await world.wait_out()
        await world.crash()
    await world.settle()
    [leased_again] = [await world.store.get(run_id)]
    assert leased_again.epoch >= 3
    assert (await world.finish(run_id)).value["page"] == 3
    assert [entry["page"] for entry in started] == [0, 1, 2, 3]


async def test_a_lease_after_a_checkpoint_holds_nothing_older(make_on_each: Make) -> None:
    world = await make_on_each(pages)
    run_id = await world.submit(pages, 5)
    for _ in range(4):
        await world.settle()
        await world.wait_out()
    [leased] = await world.store.lease(world.host, "runs", 1, world.clock(), only=run_id)
    entries = [entry for frame in leased.frames for entry in frame.entries]
    marks = [entry.number for entry in entries if entry.kind == "checkpoint"]
    assert marks == [3]
    assert all(entry.key.startswith(("3/", "2/")) for entry in entries if entry.kind == "outcome")


@workflow
async def inside_a_branch(ctx: Context, _: None, state: Any) -> Any:
    async def branch() -> Any:
        return await ctx.checkpoint("no", {})

    return await asyncio.gather(branch())


async def test_a_checkpoint_inside_a_branch_is_refused(make: Make) -> None:
    result = await (await make(inside_a_branch)).run(inside_a_branch)
    assert result.error is not None
    assert result.status == "failed" and "belongs to the top of the function" in result.error.message


@workflow
async def in_flight(ctx: Context, _: None, state: Any) -> Any:
    if state is None:
        asyncio.ensure_future(ctx.sleep(60))  # noqa: RUF006 - left in flight on purpose
        await asyncio.sleep(0)
        return await ctx.checkpoint("no", {})
    return "never"


async def test_a_checkpoint_with_something_in_flight_is_refused(make: Make) -> None:
    result = await (await make(in_flight)).run(in_flight)
    assert result.error is not None
    assert result.reason is StopReason.replay_mismatch and "in flight; await it before" in result.error.message


@workflow
async def no_json(ctx: Context, _: None, state: Any) -> Any:
    return await ctx.checkpoint("bad", {"thing": object()})


async def test_a_state_that_is_not_json_is_refused(make: Make) -> None:
    result = await (await make(no_json)).run(no_json)
    assert result.error is not None and "the state is not JSON" in result.error.message


looked: list[int] = []


@tool(side_effect="write", idempotency="idempotent")
def look(page: int) -> int:
    """Look at a page."""
    looked.append(page)
    return page


async def test_the_agent_loop_replays_one_turn_at_most(make_on_each: Make) -> None:
    looked.clear()
    reader = agent("reader", "Read.", tools=[look], asks=True)
    world = await make_on_each(reader)
    turns = [calls("look", page=page) for page in range(4)]
    world.decide(*turns, {"ask_human": "Enough?"}, {"answer": "done"})
    run_id = await world.submit(reader, "read")
    await world.settle()
    await world.crash()
    [request] = await world.store.requests()
    await world.store.resolve(request.request_id, "answered", "bob", START, "yes")
    [leased] = await world.store.lease(world.host, "runs", 1, world.clock(), only=run_id)
    entries = [entry for frame in leased.frames for entry in frame.entries]
    newest = max(index for index, entry in enumerate(entries) if entry.kind == "checkpoint")
    models = [entry for entry in entries[newest:] if entry.kind == "outcome" and entry.effect == "model"]
    assert entries[newest].number == 4 and len(models) == 1
    await world.crash()
    result = await world.finish(run_id)
    assert (result.value, looked) == ("done", [0, 1, 2, 3])
    assert result.usage.steps == 6
