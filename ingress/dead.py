"""Dead letters: what was given up, refused inputs and failed runs in one shape, with what helps.

Reads the store; changes nothing. Knows no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from retinue.runs.batch import JOB
from retinue.runs.contracts import Frozen, Json, RunRecord, Status
from retinue.runs.control import DeadInput
from retinue.runs.errors import UnknownName
from retinue.runs.history import fold
from retinue.runs.machine import remedy_of
from retinue.store.store import Store

LIMIT = 50
"""Dead letters that are listed, unless said otherwise."""
REFUSED = "correct the line, then run the corrected lines as a batch of their own"
"""What helps when an input could not become a run."""
_INPUT = re.compile(r"input-(\d{1,18})")


class Dead(Frozen):
    """One dead letter. `kind` is `input` (it never became a run) or `run` (it failed for good).

    `source` and `line` tell where an input stands, `input_id` which row a run is. `retryable` is what the error says
    of itself, `attempts` how often it was carried to an end, `at` (Unix ns) when the last time. `input` is what was
    given; it is None in lists.
    """

    id: str
    kind: Literal["input", "run"]
    source: str | None = None
    line: int | None = None
    input_id: str | None = None
    job: str | None
    agent: str | None
    reason: str
    code: str
    message: str
    retryable: bool
    attempts: int
    at: int
    helps: str
    input: Json = None


class DeadList(Frozen):
    """Newest first; `more` counts those that are not in it."""

    letters: tuple[Dead, ...]
    more: int


def is_input(dead_id: str) -> bool:
    """Whether the id is that of a refused input."""
    return _INPUT.fullmatch(dead_id) is not None


async def dead_list(store: Store, job_id: str | None, limit: int) -> DeadList:
    """Dead letters of one job or of all, at most so many."""
    inputs, all_inputs = await store.dead_inputs(job_id, None, limit)
    runs, all_runs = await store.dead_runs(job_id, limit)
    both: list[DeadInput | RunRecord] = [*inputs, *runs]
    both = sorted(both, key=_at, reverse=True)[:limit]
    agents = await _agents(store, [one for one in both if isinstance(one, DeadInput)])
    letters = [_of_input(one, agents) if isinstance(one, DeadInput) else await _of_run(store, one) for one in both]
    return DeadList(letters=tuple(letters), more=all_inputs + all_runs - len(letters))


async def dead_one(store: Store, dead_id: str) -> Dead:
    """One dead letter with its input. UnknownName when there is none, or the run has not failed."""
    found = _INPUT.fullmatch(dead_id)
    if found is None:
        record = await store.get(dead_id)
        if record.status is not Status.failed:
            raise UnknownName(f"run {record.run_id} is {record.status}: only a failed run is a dead letter")
        given = await store.inputs([record.run_id])
        return (await _of_run(store, record)).model_copy(update={"input": given.get(record.run_id)})
    inputs, _ = await store.dead_inputs(None, int(found[1]), 1)
    if not inputs:
        raise UnknownName(f"there is no dead letter {dead_id!r}: `retinue dlq list` lists them")
    letter = _of_input(inputs[0], await _agents(store, inputs))
    return letter.model_copy(update={"input": inputs[0].letter.content})


def _at(one: DeadInput | RunRecord) -> int:
    return one.letter.at if isinstance(one, DeadInput) else one.finished_at or 0


async def _agents(store: Store, inputs: Sequence[DeadInput]) -> dict[str, str]:
    """What the refused inputs were for, by the run that refused them: the target of a job, else that run's own."""
    jobs = sorted({one.job_id for one in inputs if one.job_id is not None})
    records, given = await store.lineage(jobs), await store.inputs(jobs)
    return {
        job: str((given.get(job) or {}).get("target", JOB)) if records[job].target == JOB else records[job].target
        for job in jobs
    }


def _of_input(one: DeadInput, agents: dict[str, str]) -> Dead:
    return Dead(
        id=f"input-{one.number}",
        kind="input",
        source=one.letter.source,
        line=one.letter.line,
        job=one.job_id,
        agent=agents.get(one.job_id or ""),
        reason=one.letter.reason,
        code=one.letter.reason,
        message=one.letter.message,
        retryable=False,
        attempts=1,
        at=one.letter.at,
        helps=REFUSED,
    )


async def _of_run(store: Store, record: RunRecord) -> Dead:
    """A failed run; its last frames have the error and count the retries."""
    result = await store.result(record.run_id)
    change = fold(await store.recent(record.run_id), 0).amendment
    reason = record.reason.value if record.reason else ""
    error = result.error if result is not None else None
    return Dead(
        id=record.run_id,
        kind="run",
        input_id=record.input_id,
        job=record.job_id,
        agent=record.target,
        reason=reason,
        code=error.code if error else reason,
        message=error.message if error else "",
        retryable=error.retryable if error else False,
        attempts=1 if change is None else change.retries + 1,
        at=record.finished_at or record.created_at,
        helps=(record.reason and remedy_of(record.reason, error.code if error else None)) or "",
    )
