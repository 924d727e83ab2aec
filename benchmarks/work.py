"""The work that is measured: workflows with no-op steps and no-op children, as any project would define them.

Owns definitions only; hosts import it by name.
"""

from __future__ import annotations

import asyncio

from retinue import Context, tool, workflow


@tool(side_effect="read", durable=True)
async def noop(number: int) -> int:
    """Give the number back; its outcome is committed before the run goes on."""
    return number


@workflow
async def steps(ctx: Context, count: int) -> int:
    """`count` durable steps, one after the other."""
    total = 0
    for number in range(count):
        total += await ctx.call(noop, number=number)
    return total


@workflow
async def child(ctx: Context, number: int) -> int:
    """A child that does nothing."""
    return number


@workflow
async def fan_out(ctx: Context, count: int) -> int:
    """`count` durable children; the sum of what they returned."""
    branches = await ctx.map(child, list(range(count)))
    return sum(branch.value for branch in branches)


async def payload(number: int) -> str:
    """100 characters, as the peers' steps give back."""
    return "x" * 100


@workflow
async def payload_steps(ctx: Context, count: int) -> str:
    """`count` durable steps of a plain function, each on disk before the next; what the last one gave back."""
    last = ""
    for number in range(count):
        last = await ctx.step(payload, number)
    return last


@tool(side_effect="read", durable=True)
async def payload_tool(number: int) -> str:
    """The same behind the gateway: catalog, schema, gate, budget."""
    return "x" * 100


@workflow
async def payload_calls(ctx: Context, count: int) -> str:
    """`count` durable capability calls, one after the other; what the last one gave back."""
    last = ""
    for number in range(count):
        last = await ctx.call(payload_tool, number=number)
    return last


async def slow(number: int) -> int:
    """A model that takes half a second, as far as a run can tell."""
    await asyncio.sleep(0.5)
    return number


@workflow
async def slow_row(ctx: Context, number: int) -> int:
    """A row whose one step takes half a second."""
    return await ctx.step(slow, number)


@workflow
async def slow_rows(ctx: Context, count: int) -> int:
    """`count` such rows, all in one fan-out; the sum of what they returned."""
    branches = await ctx.map(slow_row, list(range(count)))
    return sum(branch.value for branch in branches)
