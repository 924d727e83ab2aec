"""The built-in workflow of a batch job: an agent or workflow over the rows of a source, a window at a time.

The job is a run like any other; its rows are its children, so it resumes, counts and is canceled like a run.
"""

from __future__ import annotations

from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Frozen
from retinue.runs.definitions import workflow
from retinue.runs.sources import Source

JOB = "retinue.batch"
"""Name of the workflow below."""


class BatchJob(Frozen):
    """What a job does: `target` over `source`, at most `window` rows at a time, each within `budget`."""

    target: str
    source: Source
    window: int
    budget: Budget = Budget()


@workflow(name=JOB, version="1")
async def batch(ctx: Context, job: BatchJob) -> dict[str, int]:
    """Run the target for every row; returns {total, ok, failed, rejected}."""
    own = None if job.budget == Budget() else job.budget
    return await ctx.count(job.target, job.source, window=job.window, budget=own)


def rows_key(target: str) -> str:
    """The key of the group that holds a job's rows."""
    return f"0/{target}#0"
