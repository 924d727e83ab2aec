"""A process that hosts one run of the bring-your-own example until it has ended, or until somebody kills it.

Arguments: the project's folder. Prints `begun` and the run's id, then `done` and the answer. Knows no test.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from retinue import connect

KEY = "the one message"


async def main(folder: Path) -> None:
    """Submit the message, or find it again, and wait until it is answered."""
    async with connect(folder, local=True) as client:
        handle = await client.submit("desk", "Where is my order A-7?", idempotency_key=KEY)
        print("begun", handle.run_id, flush=True)
        print("done", json.dumps(await handle.result(timeout=60)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
