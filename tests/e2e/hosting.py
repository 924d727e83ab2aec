"""A process that hosts the runs of a project until somebody kills it.

Arguments: the project's folder, a target, its input. Prints `begun` and the run's id, then `parked` with the reason
whenever the run rests, and `ended`. Knows no test.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from retinue import connect


async def main(folder: Path, target: str, given: str) -> None:
    """Submit the run, or find it again, and tell how it goes; stay until killed."""
    async with connect(folder, local=True) as client:
        handle = await client.submit(target, given, idempotency_key=target)
        print("begun", handle.run_id, flush=True)
        async for event in handle.events():
            if event.kind in ("parked", "finished"):
                print("parked" if event.kind == "parked" else "ended", event.position, event.name, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
