"""The work that is measured with a journal: a run that calls a server's tool so often, one call after the other."""

from __future__ import annotations

from retinue import Context, workflow


@workflow
async def calls(ctx: Context, plan: dict[str, int]) -> int:
    """`count` calls of the tool."""
    for number in range(plan["count"]):
        await ctx.call("echo__echo", message=f"{plan['run']} {number}")
    return plan["count"]
