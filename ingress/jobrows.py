"""Reading jobs: how far they are, and their rows, page by page; of a job over many files, those of its shards.

Asks the store only. Knows neither files nor terminals.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from retinue.host.settings import Settings
from retinue.ingress.controls import Controls
from retinue.runs.batch import JOB, rows_key, shard_id
from retinue.runs.control import JobRow, JobState
from retinue.runs.errors import InvalidInput
from retinue.runs.ownership import DeadLetter
from retinue.store.store import Store

_PAGE = 500
_MOST_DEAD = 1_000_000


class JobReading(Controls):
    """`Controls`, and the rows of jobs."""

    def __init__(self, settings: Settings, store: Store) -> None:
        super().__init__(settings, store)
        self._keys: dict[str, str] = {}

    async def progress(self, job_id: str) -> JobState:
        """How far a job is."""
        return await self._store.job(job_id, await self._rows_key(job_id))

    async def results(self, job_id: str, after: int = 0) -> AsyncIterator[JobRow]:
        """Rows of a job that ended after a commit number, in that order; ends at the newest.

        InvalidInput for a job over many files: `ordered` reads it, and its parts hold the same rows.
        """
        [found, *more] = await self._holders(job_id)
        if more or found != (await self.get(job_id)).run_id:
            raise InvalidInput(f"job {job_id} is over many files: read its parts, or its rows with `ordered`")
        async for row in self._rows(found, await self._rows_key(job_id), after, ordered=False):
            yield row

    async def ordered(self, job_id: str) -> AsyncIterator[JobRow]:
        """All ended rows of a job in input order, file by file."""
        key = await self._rows_key(job_id)
        for run_id in await self._holders(job_id):
            async for row in self._rows(run_id, key, -1, ordered=True):
                yield row

    async def dead_letters(self, job_id: str) -> list[DeadLetter]:
        """Inputs of a job that could not become a row."""
        holders = await self._holders(job_id)
        return [letter for run_id in holders for letter in await self._store.dead_letters(run_id, limit=_MOST_DEAD)]

    async def _holders(self, job_id: str) -> list[str]:
        """The runs whose children are the rows of a job: itself, or its shards."""
        job_id = (await self.get(job_id)).run_id
        shards = [group.total for group in await self._store.groups(job_id) if group.key == rows_key(JOB)]
        return [shard_id(job_id, index) for index in range(shards[0])] if shards else [job_id]

    async def _rows(self, run_id: str, key: str, after: int, ordered: bool) -> AsyncIterator[JobRow]:
        while page := await self._store.rows(run_id, key, after, _PAGE, ordered):
            for row in page:
                yield row
            after = page[-1].branch.index if ordered else page[-1].seq

    async def _rows_key(self, job_id: str) -> str:
        if job_id not in self._keys:
            found = (await self.get(job_id)).run_id
            given = (await self._store.inputs([found]))[found] or {}
            self._keys[job_id] = rows_key(str(given.get("target", "")))
        return self._keys[job_id]
