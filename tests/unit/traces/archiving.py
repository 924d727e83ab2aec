"""A process that projects a book in batches and archives after each, to be killed: `archiving.py FOLDER RUNS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.unit.traces.journeys import tale

from retinue.store.folders import FolderObjects
from retinue.traces.archive import ArchiveSettings
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces


class Loud(FolderObjects):
    """A folder that tells of each file when it is there."""

    def upload(self, path: str, file: Path) -> None:
        super().upload(path, file)
        print(path, flush=True)


async def main(folder: str, runs: str) -> None:
    archive = ArchiveSettings(Loud(Path(folder) / "shelf"), "traces", rows=40)
    traces = Traces(Path(folder) / "data", tale(int(runs)), Redactor(["hunter2hunter2"]), archive=archive)
    await traces.open()
    while await traces.project(60):
        await traces.archive()
    await traces.archive()
    await traces.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
