"""Two agents that were not written for Retinue, as runs of it: asked, interrupted by an approval, looked at in SQL.

    python demo.py

Uses a scripted model (model.jsonl): nothing to configure, no network.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import retinue

HERE = Path(__file__).parent
JOURNAL = """
    select key, effect, result, activation from spans where run_id = '{run}' and effect <> 'run' order by start_ns"""
SPENT = """
    select 'model' as what, model as name, count(*) as calls, sum(input_tokens + output_tokens) as tokens
    from model_calls where run_id = '{run}' group by all
    union all select 'tool', tool, count(*), null from tool_calls where run_id = '{run}' group by all order by 1, 2"""


async def parked(client: retinue.Client, handle: retinue.RunHandle) -> str:
    """Wait until the run waits for a person; the id of its request."""
    async with asyncio.timeout(60):
        async for event in handle.events():
            if event.kind == "parked":
                break
    [request] = await client.inbox()
    print(f"waits for a person: {request.prompt}")
    return request.request_id


async def show(client: retinue.Client, title: str, sql: str) -> None:
    """Print the rows of a question to the traces."""
    print(f"\n-- {title}")
    for row in (await client.query(sql)).to_pylist():
        print("  ".join(str(value) for value in row.values()))


async def main() -> None:
    """Run both, approve the refund, then ask the traces."""
    async with retinue.connect(HERE, local=True) as client:
        handle = await client.submit("translate", "It was delivered on Friday.")
        print(await handle.result(timeout=60))
        handle = await client.submit("desk", "Where is my order A-7? I want my money back.")
        await client.approve(await parked(client, handle), by="bob")
        print(await handle.result(timeout=60))
        await show(client, "Its journal, as the traces tell it", JOURNAL.format(run=handle.run_id))
        await show(client, "What it called", SPENT.format(run=handle.run_id))


if __name__ == "__main__":
    asyncio.run(main())
