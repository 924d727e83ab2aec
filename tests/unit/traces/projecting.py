"""A process that projects a book until there is no more, to be killed: `python projecting.py FOLDER RUNS BATCH`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.unit.traces.journeys import tale

from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces


async def main(folder: str, runs: str, batch: str) -> None:
    traces = Traces(Path(folder), tale(int(runs)), Redactor(["hunter2hunter2"]))
    await traces.open()
    print(traces.lag().seq, flush=True)
    while await traces.project(int(batch)):
        print(traces.lag().seq, flush=True)
    await traces.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
