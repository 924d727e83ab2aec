"""The built-in workflow of a person's errand in a sandbox: open one, run a program in it or in forks of it, keep it.

What somebody does by hand is a run like any other: the gate is asked, the journal has it, and it can be looked at
afterwards. Knows neither where a sandbox is nor who asked.
"""

from __future__ import annotations

import asyncio

from pydantic import Field

from retinue.runs.context import Context
from retinue.runs.contracts import Frozen, Json
from retinue.runs.definitions import workflow
from retinue.runs.sandbox_handles import SandboxHandle

ERRAND = "retinue.sandbox"
"""Name of the workflow below."""
FORK = "RETINUE_FORK"
"""The variable that tells a program in which fork it runs, from 0."""
MOST_FORKS = 64


class Errand(Frozen):
    """What is to be done: `argv` (nothing when empty) in a sandbox of the manifest, or of the snapshot under it, or in
    so many forks of that; `keep` takes a snapshot afterwards. `timeout` is in seconds.
    """

    manifest: str
    snapshot: str | None = None
    argv: tuple[str, ...] = ()
    cwd: str = "."
    env: dict[str, str] = Field(default_factory=dict)
    timeout: float = Field(default=600.0, gt=0, le=86_400)
    forks: int = Field(default=0, ge=0, le=MOST_FORKS)
    keep: bool = False


@workflow(name=ERRAND, version="1")
async def errand(ctx: Context, order: Errand) -> dict[str, Json]:
    """Do it; returns {sandbox, done: [{sandbox, result, snapshot}]}, one of them for each fork."""
    box = await ctx.sandbox(order.manifest, order.snapshot)
    if not order.forks:
        return {"sandbox": box.id, "done": [await _work(box, order, {})]}
    forks = await box.fork(order.forks)
    works = (_work(fork, order, {FORK: str(number)}) for number, fork in enumerate(forks))
    return {"sandbox": box.id, "done": list(await asyncio.gather(*works))}


async def _work(box: SandboxHandle, order: Errand, told: dict[str, str]) -> dict[str, Json]:
    result = None
    if order.argv:
        env = {**order.env, **told}
        done = await box.exec(*order.argv, cwd=order.cwd, env=env, timeout=order.timeout, replayable=None)
        result = done.model_dump(mode="json")
    snapshot = await box.snapshot() if order.keep else None
    return {"sandbox": box.id, "result": result, "snapshot": snapshot}
