"""The loop of a workflow's body: it runs to quiescence, and it refuses what cannot be replayed, with a remedy."""

from __future__ import annotations

import asyncio
import datetime
import random
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import StopReason
from retinue.runs.definitions import workflow
from retinue.runs.determinism import SCOPE, body_loop
from retinue.runs.errors import InvalidInput

pytestmark = pytest.mark.rule("R1")


async def asks_the_clock(ctx: Context, _: None) -> float:
    return time.time()  # noqa: TID251 - refused, and that is what is tested


async def sleeps_in_a_thread(ctx: Context, _: None) -> None:
    time.sleep(1)  # noqa: ASYNC251


async def asks_for_today(ctx: Context, _: None) -> Any:
    return datetime.datetime.now()  # noqa: TID251


async def draws(ctx: Context, _: None) -> float:
    return random.random()


async def names(ctx: Context, _: None) -> str:
    return uuid.uuid4().hex  # noqa: TID251


async def reads_a_file(ctx: Context, _: None) -> str:
    with open("/etc/hostname") as file:  # noqa: ASYNC230
        return file.read()


async def calls_out(ctx: Context, _: None) -> Any:
    return socket.create_connection(("localhost", 1))


async def starts_a_process(ctx: Context, _: None) -> Any:
    return subprocess.run(["true"])  # noqa: ASYNC221


async def starts_a_thread(ctx: Context, _: None) -> Any:
    return threading.Thread(target=print)


async def hides_it_inside(ctx: Context, _: None) -> Any:
    def inner() -> float:
        return max(time.monotonic() for _ in range(2))

    return inner()


@pytest.mark.parametrize(
    ("function", "named", "remedy"),
    [
        (asks_the_clock, "time.time", "ctx.now()"),
        (sleeps_in_a_thread, "time.sleep", "ctx.sleep"),
        (asks_for_today, "datetime.now", "ctx.now()"),
        (draws, "random.random", "ctx.random"),
        (names, "uuid.uuid4", "ctx.random"),
        (reads_a_file, "builtins.open", "ctx.step"),
        (calls_out, "socket.create_connection", "a tool"),
        (starts_a_process, "subprocess.run", "ctx.step"),
        (starts_a_thread, "threading.Thread", "a tool"),
        (hides_it_inside, "time.monotonic", "ctx.now()"),
    ],
)
def test_side_doors_are_refused_where_the_workflow_is_defined(
    function: Callable[..., Any], named: str, remedy: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        workflow(function)
    assert named in str(refused.value) and remedy in str(refused.value) and function.__name__ in str(refused.value)


@workflow
async def waits_in_memory(ctx: Context, how: str) -> None:
    if how == "sleep":
        await asyncio.sleep(5)
    elif how == "timeout":
        async with asyncio.timeout(5):
            await ctx.sleep(1)
    elif how == "wait_for":
        await asyncio.wait_for(asyncio.ensure_future(ctx.sleep(1)), 5)
    elif how == "thread":
        await asyncio.to_thread(print)
    else:
        await asyncio.open_connection("localhost", 1)


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        ("sleep", "ctx.sleep"),
        ("timeout", "ctx.sleep"),
        ("wait_for", "ctx.sleep"),
        ("thread", "ctx.step"),
        ("network", "ctx.step"),
    ],
)
async def test_waiting_outside_the_context_ends_the_run_with_the_remedy(make: Make, how: str, remedy: str) -> None:
    result = await (await make(waits_in_memory)).run(waits_in_memory, how)
    assert result.reason is StopReason.internal_error
    assert result.error is not None and remedy in result.error.message


@workflow
async def waits_for_nothing(ctx: Context, _: None) -> None:
    await ctx.sleep(1)
    await asyncio.Event().wait()


async def test_a_wait_that_nothing_will_end_ends_the_run(make_on_each: Make) -> None:
    result = await (await make_on_each(waits_for_nothing)).run(waits_for_nothing)
    assert result.reason is StopReason.internal_error
    assert result.error is not None and "no effect brings" in result.error.message


@workflow
async def leaves(ctx: Context, how: str) -> None:
    if how == "body":
        raise SystemExit(3)
    await ctx.step(_exit_softly if how == "async" else _exit)


def _exit() -> None:
    raise SystemExit(3)


async def _exit_softly() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("how", ["body", "async", "thread"])
async def test_a_workflow_that_exits_ends_its_run_and_not_its_host(make: Make, how: str) -> None:
    world = await make(leaves)
    result = await world.run(leaves, how)
    assert result.status == "failed" and result.error is not None and "SystemExit" in result.error.message
    assert world.failures == []


@workflow
async def uses_what_is_pure(ctx: Context, _: None) -> list[Any]:
    lock, queue = asyncio.Lock(), asyncio.Queue[int]()

    async def produce() -> None:
        async with lock:
            for number in range(3):
                await queue.put(number)
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        got = [await queue.get() for _ in range(3)]
    draws = [ctx.random.randint(0, 10**9) for _ in range(3)]
    await ctx.sleep(10)
    return [got, draws, ctx.now().isoformat()]


async def test_pure_asyncio_works_and_time_and_chance_are_the_same_after_a_crash(make_on_each: Make) -> None:
    world = await make_on_each(uses_what_is_pure)
    values = []
    for crashes in (0, 3):
        world.clock.now = START
        run_id = await world.submit(uses_what_is_pure, run_id=f"same-{crashes}")
        await world.settle()
        for _ in range(crashes):
            await world.crash()
            await world.store.signal(run_id, "wake up and replay", None, START)
            await world.settle()
        result = await world.finish(run_id)
        draws = random.Random(run_id)
        assert result.value[0] == [0, 1, 2]
        assert result.value[1] == [draws.randint(0, 10**9) for _ in range(3)]
        delivered = [outcome.at for outcome in await world.outcomes(run_id) if outcome.effect == "timer"]
        values.append(datetime.datetime.fromisoformat(result.value[2]).timestamp() - delivered[0] / 1e9)
    assert values == pytest.approx([0, 0], abs=1e-5)


def test_branches_have_scopes_of_their_own() -> None:
    loop = body_loop(0.0)
    seen: list[str] = []

    async def leaf() -> None:
        seen.append(SCOPE.get())

    async def branch() -> None:
        seen.append(SCOPE.get())
        await asyncio.gather(leaf(), leaf())

    async def top() -> None:
        seen.append(SCOPE.get())
        await asyncio.gather(branch(), branch())

    task = loop.start_body(top())
    loop.run_until_quiet()
    assert task.done()
    assert seen == ["", "/1", "/2", "/1/1", "/1/2", "/2/1", "/2/2"]


def test_the_loop_stands_still_until_something_is_delivered() -> None:
    loop = body_loop(1.5)
    future = loop.create_future()
    task = loop.start_body(_wait_for(future))
    loop.run_until_quiet()
    assert not task.done() and loop.time() == 1.5
    future.set_result(7)
    loop.run_until_quiet()
    assert task.result() == 7


async def _wait_for(future: asyncio.Future[int]) -> int:
    return await future
