"""A process that hosts one mail of the helpdesk example until it is handled, or until somebody kills it.

Arguments: the project's folder and the contract. Prints `begun` and the run's id, then `done` and the result.
Knows no test.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from retinue import connect

MAIL = {"id": "m01", "sender": "ines@quarry.example", "subject": "Printer", "text": "Half pages since Monday."}


async def main(folder: Path, contract: str) -> None:
    """Submit the mail, or find it again, and wait until it is handled."""
    async with connect(folder, local=True) as client:
        handle = await client.submit(contract, MAIL, idempotency_key=contract, input_id=MAIL["id"])
        print("begun", handle.run_id, flush=True)
        print("done", (await handle.result(timeout=60)).model_dump_json(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
