"""A project for tests of pools: lifts that need a crane and wait at gates, and one that nothing but a kill ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from retinue import Context, Resources, workflow

HERE = Path(__file__).parent


@workflow(needs=Resources(custom={"crane": 1}))
async def lift(ctx: Context, name: str) -> list[str]:
    """Two steps, each as long as its gate is closed."""
    return [await ctx.step(pass_gate, f"{name}-{part}") for part in ("first", "second")]


async def pass_gate(name: str) -> str:
    """Say who begins it, then wait for the gate: a file of the step's name, or one for all."""
    say(name)
    await asyncio.to_thread(_wait_at, name)
    return name


def _wait_at(name: str) -> None:
    while not (HERE / name).exists() and not (HERE / "open").exists():
        time.sleep(0.05)


@workflow(needs=Resources(dedicated=True))
async def stubborn(ctx: Context, _: Any) -> str:
    """Blocks its event loop, so that nobody inside the process can end it."""
    return str(await ctx.step(block, repeatable=False))


async def block() -> str:
    """A step as it must not be written."""
    say("stubborn")
    threading.Event().wait(600)
    return "never"


def say(name: str) -> None:
    """A line in the log: the step and the process."""
    with (HERE / "log").open("a") as log:
        log.write(f"{name} {os.getpid()}\n")
