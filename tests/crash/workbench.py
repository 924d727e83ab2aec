"""What of the project whose scenarios are killed works in sandboxes: a workflow, its children, an agent.

Knows neither points nor kills.
"""

from __future__ import annotations

from typing import Any

from tests.crash.project import LONG

from retinue import Context, agent, workflow


@workflow
async def attempt(ctx: Context, given: dict[str, Any]) -> str:
    """A child that works in a fork of its parent's sandbox."""
    box = await ctx.sandbox("coder", given["snapshot"])
    await box.shell(f"echo try {given['n']} >> log")
    return await box.snapshot()


@workflow
async def workshop(ctx: Context, most: int, state: dict[str, Any] | None = None) -> list[Any]:
    """Work in a sandbox over checkpoints and a wait; forks of it in children, the last of which is adopted."""
    page = (state or {"page": 0})["page"]
    box = await ctx.sandbox("coder", name="bench")
    await box.shell(f"echo page {page} >> log")
    if page < most:
        await box.write(f"page-{page}", "done")
        await ctx.checkpoint("page", {"page": page + 1})
    await ctx.sleep(LONG)
    await box.edit("log", "page 0", "PAGE 0")
    snapshot = await box.snapshot()
    branches = await ctx.map(attempt, [{"snapshot": snapshot, "n": n} for n in range(2)])
    await box.adopt(branches[-1].value)
    [copy] = await box.fork(1)
    await copy.shell("echo copy >> log")
    log, other = await box.read("log"), await copy.read("log")
    await copy.close()
    return [log, other, [entry.path for entry in await box.list()]]


tinkerer = agent("tinkerer", "Fix what is broken.", sandbox="coder")
