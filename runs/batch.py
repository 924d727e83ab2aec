"""The built-in workflow of a batch job: an agent or workflow over the rows of a source, a window at a time.

The job is a run like any other; its rows are its children, so it resumes, counts and is canceled like a run. A job
over many files has a job for each as its children, its shards: no process sees all rows.
"""

from __future__ import annotations

from typing import Literal

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Budget, Frozen
from retinue.runs.definitions import workflow
from retinue.runs.errors import RunFailed
from retinue.runs.identity import child_id
from retinue.runs.sources import Source

JOB = "retinue.batch"
"""Name of the workflow below."""
_COUNTS = ("total", "ok", "failed", "rejected")


class Parts(Frozen):
    """A job over many files: `shards`, at most `at_once` of them at a time, each with a file of its own for its rows
    in `folder` (a URL ending in a slash): `part-00000.jsonl` and so on, in the order of the shards.
    """

    folder: str
    shards: tuple[Source, ...]
    at_once: int
    format: Literal["jsonl", "parquet"] = "jsonl"


class BatchJob(Frozen):
    """What a job does: `target` over `source`, at most `window` rows at a time, each within `budget`.

    With `parts` it does so for each shard instead, and `source` says only what was asked for. A shard's rows are
    written to the URL `part`. `of` names an earlier job whose rows are written again; nothing else is run then.
    """

    target: str
    source: Source
    window: int
    budget: Budget = Budget()
    parts: Parts | None = None
    part: str | None = None
    of: str | None = None


@workflow(name=JOB, version="1")
async def batch(ctx: Context, job: BatchJob) -> dict[str, int]:
    """Run the target for every row; returns {total, ok, failed, rejected}."""
    if job.parts is not None:
        return await _shards(ctx, job, job.parts)
    own = None if job.budget == Budget() else job.budget
    counts = dict.fromkeys(_COUNTS, 0)
    if job.of is None:
        counts = await ctx.count(job.target, job.source, window=job.window, budget=own)
    if job.part is not None:
        await ctx.write_rows(rows_key(job.target), job.part, of=job.of)
    return counts


async def _shards(ctx: Context, job: BatchJob, parts: Parts) -> dict[str, int]:
    jobs = [_shard(job, parts, index).model_dump(mode="json", exclude_none=True) for index in range(len(parts.shards))]
    branches = await ctx.map(JOB, jobs, window=parts.at_once)
    failed = [branch for branch in branches if not branch.ok]
    if failed:
        raise _failed(ctx.request.run_id, failed, parts)
    return {name: sum(int(branch.value[name]) for branch in branches) for name in _COUNTS}


def _shard(job: BatchJob, parts: Parts, index: int) -> BatchJob:
    return BatchJob(
        target=job.target,
        source=parts.shards[index],
        window=job.window,
        budget=job.budget,
        part=f"{parts.folder}part-{index:05}.{parts.format}",
        of=None if job.of is None else shard_id(job.of, index),
    )


def _failed(run_id: str, failed: list[Branch], parts: Parts) -> RunFailed:
    first = failed[0]
    text = (
        f"{len(failed)} of {len(parts.shards)} shards failed; the first is {parts.shards[first.index].path}: "
        f"{first.problem}"
    )
    return RunFailed(text, run_id=run_id, reason=first.reason.value)


def rows_key(target: str) -> str:
    """The key of the group that holds a job's rows."""
    return f"0/{target}#0"


def shard_id(job_id: str, index: int) -> str:
    """The run that is a job's shard of that index."""
    return child_id(job_id, rows_key(JOB), index)
