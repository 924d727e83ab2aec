"""A small project for the host's tests: one desk clerk with a read, a write, and a write nobody can probe."""

from __future__ import annotations

import asyncio
from typing import Any

from retinue import Context, Resources, agent, tool, workflow
from retinue.runs.errors import PermanentError, TransientError

done: list[str] = []
gates: dict[str, asyncio.Event] = {}
full = False


@tool(side_effect="read")
def look(name: str) -> str:
    """Look something up; `broken` raises."""
    if name == "broken":
        raise PermanentError("the shelf is broken", code="broken")
    return f"{name} is here"


@tool(side_effect="write", idempotency="idempotent")
def stamp(text: str, *, key: str) -> str:
    """Stamp a paper."""
    done.append(key)
    return f"stamped {text}"


@tool(side_effect="write", idempotency="at_most_once")
def post(text: str) -> str:
    """Post a letter; the post office never answers."""
    done.append(text)
    raise TransientError("no answer")


clerk = agent("clerk", "Serve.", tools=[look, stamp, post], asks=True)


@workflow
async def filed(ctx: Context, told: dict[str, Any]) -> None:
    """Files an answer that was given, unless the cabinet is full."""
    await ctx.step(_file, told["output"])


def _file(answer: str) -> None:
    if full:
        raise PermanentError("the cabinet is full", code="full")
    done.append(answer)


teller = agent("teller", "Answer.", follow_ups=[filed])


@workflow
async def hires(ctx: Context, question: str) -> Any:
    """Leaves the work to the clerk."""
    return await ctx.run(clerk, question)


@workflow
async def must_look(ctx: Context, name: str) -> Any:
    """Fails with its tool."""
    return await ctx.call(look, name=name)


@workflow
async def stamps_once(ctx: Context, text: str) -> Any:
    return await ctx.call(stamp, text=text)


@workflow
async def must_stamp(ctx: Context, text: str) -> Any:
    """Needs a write."""
    return await ctx.call(stamp, text=text)


@workflow
async def waits(ctx: Context, seconds: float) -> str:
    """Waits for an event, or just waits."""
    if seconds:
        await ctx.sleep(seconds)
    else:
        await ctx.event("go")
    return "waited"


@workflow
async def double(ctx: Context, number: int) -> int:
    """One child's work."""
    return number * 2


@workflow
async def many(ctx: Context, count: int) -> int:
    """A parent of many."""
    found = await ctx.map(double, list(range(count)))
    return sum(branch.value for branch in found)


@workflow
async def nap(ctx: Context, _: Any) -> str:
    """Blocks no loop while it waits in a step."""
    return str(await ctx.step(_nap))


async def _nap() -> str:
    await asyncio.sleep(0)
    return "rested"


@workflow
async def two_steps(ctx: Context, _: Any) -> list[str]:
    """Two steps, each as long as its gate is closed."""
    return [await ctx.step(_pass, name) for name in ("first", "second")]


async def _pass(name: str) -> str:
    done.append(name)
    await gates[name].wait()
    return name


@workflow(needs=Resources(custom={"crane": 1}))
async def heavy(ctx: Context, _: Any) -> str:
    """Needs what few places have."""
    return "done"


@workflow
async def boxed(ctx: Context, given: str) -> str:
    box = await ctx.sandbox("plain")
    await box.write("a", given)
    return str(await box.read("a"))
