"""A batch on Ray whose actors and driver are killed with SIGKILL ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cluster.conftest import BOUND, CommandLine

from retinue import connect
from retinue.host.rows import source_of
from retinue.host.settings import load_settings
from retinue.runs.control import RunQuery
from retinue.store.sqlite import SqliteStore

ROWS = 90
_ROOTS = RunQuery(roots_only=True)
_RAN_AFTER_THE_END = """
select leases.run_id from leases join runs using (run_id) where leases.time > runs.finished_at
union all select run_id from run_results group by run_id having count(*) > 1
"""
_ACTORS = """
select distinct actor_id from runs where parent_run_id in (select run_id from runs where agent = 'retinue.batch')
"""
Row = dict[str, Any]


async def undisturbed(folder: Path, data: Path) -> list[Row]:
    """The answers of the same batch on the inline host, in input order."""
    settings = load_settings(folder).model_copy(update={"data": data})
    async with connect(local=True, settings=settings) as client:
        source = source_of(folder / "questions.jsonl", limit=ROWS)
        job = await client.batch("research", source, window=32, idempotency_key="undisturbed")
        await client.wait(job.run_id, BOUND)
        return [
            {"id": row.input_id, **{name: row.branch.value[name] for name in ("answer", "citations")}}
            async for row in client.ordered(job.run_id)
        ]


async def pid_of(store: SqliteStore, kind: str) -> int:
    """The process of a living host of that kind, as soon as there is one."""
    async with asyncio.timeout(60):
        while True:
            found = [
                pid for _, host_kind, pid, *_ in await store.hosts() if host_kind == kind and psutil.pid_exists(pid)
            ]
            if found:
                return found[-1]
            await asyncio.sleep(0.05)


async def rows_done(store: SqliteStore, count: int, batch: subprocess.Popen[str]) -> None:
    """Wait until so many rows of the job have ended."""
    async with asyncio.timeout(BOUND):
        while batch.poll() is None:
            jobs = [run for run in await store.list_runs(_ROOTS) if run.target == "retinue.batch"]
            if jobs:
                state = await store.job(jobs[0].run_id, "0/research#0")
                if state.ok >= count:
                    return
            await asyncio.sleep(0.02)
    raise AssertionError(f"the batch ended before {count} rows: {batch.communicate()}")


async def kill_all_three(research: CommandLine, words: list[str]) -> None:
    """Kill a WorkerActor, then the RunActor that hosts the job, then the driver, each in the middle."""
    batch = research.start(*words)
    store = SqliteStore(research.folder / ".retinue")
    try:
        for kind, after in (("worker", 8), ("run", 25)):
            await rows_done(store, after, batch)
            os.kill(await pid_of(store, kind), signal.SIGKILL)
        await rows_done(store, 45, batch)
        batch.kill()
        await asyncio.to_thread(batch.communicate)
    finally:
        await store.close()


@pytest.mark.timeout(300)
@pytest.mark.promise("B2", "B5", "C3", "C6", "I3")
async def test_a_batch_that_is_killed_everywhere_ends_as_if_undisturbed(research: CommandLine, tmp_path: Path) -> None:
    expected = await undisturbed(research.folder, tmp_path / "undisturbed")
    assert len(expected) == ROWS
    words = ["batch", "research", "--input", "questions.jsonl", "--output", "answers.jsonl", "--limit", str(ROWS)]
    words += ["--concurrency", "32"]
    await kill_all_three(research, words)
    await asyncio.to_thread(research.run, *words, "--resume")

    answers = [json.loads(line) for line in (research.folder / "answers.jsonl").read_text().splitlines()]
    found = [{name: row[name] for name in ("id", "answer", "citations")} for row in answers]
    assert found == expected
    assert all(row["status"] == "completed" for row in answers)

    again = await asyncio.to_thread(research.json, "sql", _RAN_AFTER_THE_END)
    assert again == []
    spread = await asyncio.to_thread(research.json, "sql", _ACTORS)
    assert len(spread) >= 2
