"""Reading what was given up: inputs that could not become a run, and runs that failed for good.

Short reads on the reader's connection, bounded by a limit of their caller. Knows no writing.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.contracts import RunRecord
from retinue.runs.control import DeadInput
from retinue.runs.ownership import DeadLetter
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec
from retinue.store.rows import many, one
from retinue.store.statements import sql
from retinue.store.trees import records_of

_ALL = 2**62


def runs(connection: Connection, job_id: str | None, limit: int) -> tuple[list[RunRecord], int]:
    """Failed top-level runs and rows of jobs (or only the rows of one job), newest first, and how many there are."""
    rows = many(connection, sql("dead_runs"), {"job": job_id, "limit": limit})
    total = len(rows)
    if total == limit:
        total = _count(connection, sql("dead_runs"), {"job": job_id})
    return records_of(connection, [row[0] for row in rows]), total


def inputs(
    connection: Connection, codec: FrameCodec, job_id: str | None, number: int | None, limit: int
) -> tuple[list[DeadInput], int]:
    """Refused inputs (of one job, or one of them by its number), newest first, and how many there are."""
    values = {"job": job_id, "number": number}
    rows = many(connection, sql("dead_inputs"), values | {"limit": limit})
    total = len(rows)
    if total == limit:
        total = _count(connection, sql("dead_inputs"), values)
    return [_input_of(codec, row) for row in rows], total


def _count(connection: Connection, query: str, values: dict[str, Any]) -> int:
    return int(one(connection, f"SELECT count(*) FROM ({query}) AS page", values | {"limit": _ALL})[0])


def _input_of(codec: FrameCodec, row: tuple[Any, ...]) -> DeadInput:
    number, job_id, source, line, reason, message, at, sealed, run_id, tenant_id = row
    content = codec.open(tenant_id, sealed, f"{source}:{line}")
    return DeadInput(number, job_id, DeadLetter(source, line, reason, message, at, content, run_id))
