"""What is known of a run of chaos when it is over: plain data that the checker judges.

Owns the nouns and how they are read from a store that nobody writes any more, a log of effects and output files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.runs.contracts import NOTHING, Json, RunRequest, Usage
from retinue.runs.journal import ENTRIES, Accepted, AnyEntry


@dataclass(frozen=True, slots=True)
class Written:
    """The entries of one append as they were stored."""

    seq: int
    position: int
    epoch: int
    entries: tuple[AnyEntry, ...]


@dataclass(frozen=True, slots=True)
class RunStory:
    """A run's row and its journal. `wants` are the requests it has open, `group` is (parent's id, key, index)."""

    run_id: str
    request: RunRequest
    status: str
    reason: str | None
    epoch: int
    position: int
    usage: Usage
    written: tuple[Written, ...]
    group: tuple[str, str, int] | None = None
    wake_at: int | None = None
    cancel: str | None = None
    wants: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.status in ("completed", "failed", "canceled")


@dataclass(frozen=True, slots=True)
class GroupStory:
    """The counters of a fan-out as they stand in the end."""

    run_id: str
    key: str
    total: int
    pending: int
    ok: int
    failed: int
    rejected: int = 0
    reserved: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Effect:
    """A line of the log: under which contract, key, run and epoch, by which process, and what."""

    contract: str
    key: str
    run: str
    epoch: int
    pid: int
    text: str


@dataclass(frozen=True, slots=True)
class Wave:
    """A batch that ended: its job, the ids of its input rows, and (id, status) of every line of its output."""

    job_id: str
    inputs: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class History:
    """Everything. `accepted` are runs whose acceptance was acknowledged, `canceled` those whose cancel was;
    `tables` maps a trace table to (rows, digest) as it was kept and as it is when made again; `now` in Unix ns.
    """

    runs: dict[str, RunStory]
    groups: tuple[GroupStory, ...] = ()
    effects: tuple[Effect, ...] = ()
    waves: tuple[Wave, ...] = ()
    accepted: tuple[str, ...] = ()
    canceled: tuple[str, ...] = ()
    tables: dict[str, tuple[tuple[int, str], tuple[int, str]]] = field(default_factory=dict)
    now: int = 0


Execute = Callable[[str], Iterable[Any]]
"""Asks a store, SQLite or PostgreSQL, for rows."""
_RUNS = """
SELECT r.num, r.run_id, r.status, r.reason, r.epoch, r.position, r.wake_at, r.cancel, r.steps, r.hops,
  r.input_tokens, r.output_tokens, r.micros, p.run_id, g.key, r.grp_index,
  (SELECT count(*) FROM requests q WHERE q.run = r.num AND q.status = 'open')
FROM runs r LEFT JOIN groups g ON g.num = r.grp LEFT JOIN runs p ON p.num = g.run
"""
_GROUPS = """
SELECT r.run_id, g.key, g.total, g.pending, g.ok, g.failed, g.rejected, g.reserved_tokens, g.reserved_micros
FROM groups g JOIN runs r ON r.num = g.run
"""


def runs_by(execute: Execute) -> dict[str, RunStory]:
    """Every run of a store with its journal, facts only: what was said stays sealed."""
    written: dict[int, list[Written]] = {}
    for run, seq, position, epoch, facts in execute(
        "SELECT run, seq, position, epoch, facts FROM journal ORDER BY run, position"
    ):
        written.setdefault(run, []).append(Written(seq, position, epoch, ENTRIES.validate_json(facts)))
    return {row[1]: _run(row, tuple(written.get(row[0], ()))) for row in execute(_RUNS)}


def groups_by(execute: Execute) -> tuple[GroupStory, ...]:
    """Every group of a store."""
    return tuple(GroupStory(*row[:7], reserved=Usage(input_tokens=row[7], micros=row[8])) for row in execute(_GROUPS))


def read_effects(log: Path) -> tuple[Effect, ...]:
    """Every line of a log, in order."""
    if not log.exists():
        return ()
    return tuple(Effect(**json.loads(line)) for line in log.read_text().splitlines())


def read_lines(output: Path) -> tuple[tuple[str, str], ...]:
    """(id, status) of every line of an output."""
    lines: Iterable[dict[str, Json]] = map(json.loads, output.read_text().splitlines())
    return tuple((str(line["id"]), str(line["status"])) for line in lines)


def _run(row: tuple[Json, ...], written: tuple[Written, ...]) -> RunStory:
    _, run_id, status, reason, epoch, position, wake_at, cancel, *used = row
    steps, hops, read, said, micros, parent, key, index, wants = used
    first = written[0].entries[0]
    assert isinstance(first, Accepted), f"run {run_id} does not begin with its acceptance"
    return RunStory(
        run_id=run_id,
        request=first.request,
        status=status,
        reason=reason,
        epoch=epoch,
        position=position,
        usage=Usage(steps=steps, hops=hops, input_tokens=read, output_tokens=said, micros=micros),
        written=written,
        group=None if key is None else (parent, key, index),
        wake_at=wake_at,
        cancel=cancel,
        wants=wants,
    )
