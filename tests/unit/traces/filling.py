"""A process that projects while its files may not grow, then may: `python filling.py FOLDER RUNS`."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

from tests.unit.traces.journeys import tale

from retinue.runs.errors import StoreError
from retinue.traces.file import FileSettings
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces


def allow(size: int) -> None:
    """How big a file this process may write; beyond it the system refuses, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def main(folder: str, runs: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    redactor, settings = Redactor(["hunter2hunter2"]), FileSettings(checkpoint="1MB")
    traces = Traces(Path(folder), tale(int(runs)), redactor, settings=settings)
    await traces.open()
    allow(1_500_000)
    refused = 0
    while True:
        try:
            if not await traces.project(60):
                break
        except StoreError as error:
            refused += 1
            print(type(error).__name__, error, flush=True)
            if refused == 3:
                allow(resource.RLIM_INFINITY)
    await traces.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
