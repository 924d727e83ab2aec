"""A process that runs a batch on the inline host until it is done, or until somebody kills it.

Arguments: the project folder. Prints `begun`, then `done`. Its write tool appends to a file outside of everything,
keyed by the idempotency key; what a step did is told by the file alone. Knows no test.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from retinue import Context, connect, tool, workflow
from retinue.host.rows import source_of
from retinue.host.settings import load_settings

LOG = "effects.log"
ROWS = "rows.jsonl"
KEY = "the one job"


def log_of() -> Path:
    """The effect log of the project that this process works on."""
    return Path(os.environ["CRASH_LOG"])


def _append(*words: object) -> None:
    handle = os.open(log_of(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, (" ".join(map(str, words)) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _seen(key: str) -> str | None:
    """Whether an effect with this key stands in the log."""
    lines = log_of().read_text().splitlines() if log_of().exists() else []
    return next((line.split()[2] for line in lines if line.startswith(f"filed {key} ")), None)


@tool(side_effect="write", idempotency="idempotent")
def put(text: str, *, key: str) -> str:
    """An outside world that knows keys: the same one is the same effect."""
    _append("sent", key, text)
    if _seen(key) is None:
        _append("filed", key, text)
    return text


@tool(side_effect="write", idempotency="reconcilable", probe=lambda text, key: _seen(key), timeout=0.5)
def file(text: str, *, key: str) -> str:
    """An outside world that can be asked, and that would do everything twice."""
    _append("filed", key, text)
    return text


@workflow
async def part(ctx: Context, given: dict[str, Any]) -> str:
    """A child: one write."""
    return str(await ctx.call(put, text=f"part-{given['row']}-{given['part']}"))


@workflow
async def row(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    """One row: a write, two children, another write."""
    number = given["n"]
    first = await ctx.call(put, text=f"first-{number}")
    parts = await ctx.map(part, [{"row": number, "part": name} for name in ("a", "b")])
    dice = ctx.random.randint(0, 0) + number
    last = await ctx.call(file, text=f"last-{number}")
    return {"n": dice, "first": first, "parts": [branch.value for branch in parts], "last": last}


async def main(folder: Path) -> None:
    """Submit the job, or find it again, and wait until it has ended."""
    settings = load_settings(folder)
    async with connect(settings=settings, local=True) as client:
        source = source_of(folder / ROWS)
        handle = await client.batch("row", source, window=4, idempotency_key=KEY)
        print("begun", handle.run_id, flush=True)
        await client.wait(handle.run_id, 60)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
