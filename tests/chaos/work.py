"""The project that chaos works on: tools that leave a line in a log outside of everything, and workflows over them.

A line says which contract, which key, under which epoch and by which process. Knows no fault and no test.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

from retinue import Branch, Budget, Context, agent, best_effort, first_success, quorum, tool, workflow
from retinue.runs.capabilities import Caller
from retinue.runs.errors import PermanentError, SideEffectUnknown
from retinue.runs.joins import Join

LOG = "CHAOS_LOG"
"""Name of the environment variable with the path of the log; `LOG.go` beside it lets held calls end."""
MODEL_CALL_USD = 0.002
"""What the dearest model call of the script costs: what is reserved for every one."""


def log_path() -> Path:
    """The log of this run of chaos."""
    return Path(os.environ[LOG])


def write_line(**line: object) -> None:
    """Append one line and have it on disk."""
    handle = os.open(log_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, (json.dumps({**line, "pid": os.getpid()}) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


async def _effect(contract: str, text: str, key: str, caller: Caller) -> str:
    """An effect with some time before and after it, so that a fault may come at either."""
    await asyncio.sleep(random.uniform(0, 0.2))
    write_line(contract=contract, key=key, run=caller.run_id, epoch=caller.epoch, text=text)
    await asyncio.sleep(random.uniform(0, 0.2))
    return text


def _done(text: str, *, key: str) -> str | None:
    """The probe: what the log knows of a key."""
    path = log_path()
    return text if path.exists() and f'"{key}"'.encode() in path.read_bytes() else None


@tool(side_effect="write", idempotency="idempotent", timeout=5)
async def put(text: str, *, key: str, caller: Caller) -> str:
    """A world that knows keys: the same one is the same effect."""
    return await _effect("idempotent", text, key, caller)


@tool(side_effect="write", idempotency="reconcilable", probe=_done, timeout=2)
async def file(text: str, *, key: str, caller: Caller) -> str:
    """A world that would do everything twice, and can be asked."""
    return await _effect("reconcilable", text, key, caller)


@tool(side_effect="write", idempotency="at_most_once", timeout=5)
async def once(text: str, *, key: str, caller: Caller) -> str:
    """A world that would do everything twice, and cannot be asked."""
    return await _effect("at_most_once", text, key, caller)


@tool(side_effect="read")
async def look_up(text: str) -> str:
    """A read that takes a moment."""
    await asyncio.sleep(0.02)
    return text[::-1]


@tool(side_effect="read", timeout=300)
async def hold(*, caller: Caller) -> str:
    """A call that stays in flight until it is let go."""
    write_line(contract="held", key=caller.run_id, run=caller.run_id, epoch=caller.epoch, text="")
    go = log_path().with_suffix(".go")
    while True:
        if go.exists():
            return "let go"
        await asyncio.sleep(0.5)


def plain(run_id: str, number: int) -> int:
    """Code of the user's that leaves a line."""
    write_line(contract="step", key=f"{run_id}:{number}", run=run_id, epoch=0, text=str(number))
    return number


clerk = agent("clerk", "File what you are given.", tools=[put, file, look_up], budget=Budget(steps=8, usd="0.03"))
miser = agent("miser", "File what you are given.", tools=[put, look_up], budget=Budget(steps=8, usd="0.008"))
JOINS: dict[str, Join | None] = {
    "all": None,
    "first": first_success(),
    "quorum": quorum(2),
    "effort": best_effort(0.3),
}


@workflow
async def part(ctx: Context, given: dict[str, Any]) -> str:
    """A child: a write, sometimes a pause, sometimes a failure."""
    done = await ctx.call(put, text=f"part-{given['n']}")
    if given["n"] % 5 == 2:
        await ctx.sleep(0.4)
    if given["n"] % 7 == 3:
        raise PermanentError("this part fails, as it was told to", code="told")
    return str(done)


@workflow
async def fan(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    """A fan-out with a join."""
    items = [{"n": given["n"] + index} for index in range(given["width"])]
    branches = await ctx.map(part, items, join=JOINS[given["join"]])
    return {"heard": [[branch.index, branch.status.value] for branch in branches], "ok": _well(branches)}


def _well(branches: list[Branch]) -> int:
    return sum(branch.ok for branch in branches)


@workflow
async def row(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    """A row of a batch: every kind of step, in an order that depends on the row."""
    number = given["n"]
    first = await ctx.call(put, text=f"first-{number}")
    length = await ctx.step(plain, ctx.request.run_id, number)
    spread = await ctx.run(fan, {"n": number, "width": given["width"], "join": given["join"]})
    if given["pause"]:
        await ctx.sleep(given["pause"])
    filed = await ctx.call(file, text=f"filed-{number}")
    try:
        only = await ctx.call(once, text=f"once-{number}")
    except SideEffectUnknown:
        only = "unknown"
    said = await ctx.ask(f"row {number}?") if given["ask"] else None
    told = await ctx.run(clerk, f"row {number}") if number % 3 == 0 else None
    return {"answer": [first, length, spread["ok"], filed, only, said, bool(told)]}


@workflow
async def asker(ctx: Context, given: dict[str, Any]) -> str:
    """Waits for a person twice."""
    said = await ctx.ask(f"say {given['n']}")
    if not await ctx.approve(f"approve {given['n']}"):
        return "denied"
    return str(await ctx.call(file, text=f"asked-{given['n']}-{said}"))


@workflow
async def listener(ctx: Context, given: dict[str, Any]) -> list[int]:
    """Waits for two events."""
    heard = [await ctx.event("go"), await ctx.event("go")]
    await ctx.call(put, text=f"heard-{given['n']}")
    return heard


@workflow
async def sleeper(ctx: Context, given: dict[str, Any]) -> str:
    """A durable timer between two writes."""
    await ctx.call(put, text=f"before-{given['n']}")
    await ctx.sleep(given["pause"])
    return str(await ctx.call(once, text=f"after-{given['n']}"))


@workflow
async def counter(ctx: Context, given: dict[str, Any], state: int | None) -> int:
    """Continues as new, again and again."""
    number = (state or 0) + 1
    await ctx.call(file if number % 2 else put, text=f"count-{given['n']}-{number}")
    if number < given["limit"]:
        await ctx.checkpoint("counted", number)
    return number


@workflow
async def held(ctx: Context, given: dict[str, Any]) -> str:
    """Stays in progress."""
    return str(await ctx.call(hold))
