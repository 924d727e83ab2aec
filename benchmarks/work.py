"""The work that is measured: workflows with no-op steps and no-op children, as any project would define them.

Owns definitions only; hosts import it by name.
"""

from __future__ import annotations

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


@tool(side_effect="read", durable=True)
async def payload(number: int) -> str:
    """100 characters, as the peers' steps give back."""
    return "x" * 100


@workflow
async def payload_steps(ctx: Context, count: int) -> str:
    """`count` durable steps of 100 characters, one after the other; the last of them."""
    last = ""
    for number in range(count):
        last = await ctx.call(payload, number=number)
    return last
