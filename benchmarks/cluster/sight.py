"""Short looks at a store on PostgreSQL while others write it, and its history when they have ended. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster.projects import rows_of
from benchmarks.cluster.stage import Stage
from tests.chaos.history import History, Wave, groups_by, read_effects, read_lines, runs_by

from retinue.host import clock


@dataclass(frozen=True, slots=True)
class HostSeen:
    """A host and what it held when it was looked at: run to epoch."""

    number: int
    kind: str
    node: str
    pid: int
    holds: dict[int, int]


class Sight:
    """Looks at one database. psycopg.OperationalError while the server is away."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name = stage, name

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, on a connection of its own."""
        with self._stage.connect(self._name) as connection:
            return connection.execute(statement, values).fetchall()

    def hosts(self, kind: str) -> list[HostSeen]:
        """The hosts that the store takes for alive."""
        rows = self.ask("SELECT num, node, pid FROM hosts WHERE kind = %s AND state = 'alive' ORDER BY num", kind)
        return [HostSeen(number, kind, node, pid, self._held(number)) for number, node, pid in rows]

    def left_behind(self, hosts: list[HostSeen]) -> int:
        """How many of the runs that hosts held nobody has taken up since."""
        held = {run: epoch for host in hosts for run, epoch in host.holds.items()}
        rows = self.ask(
            "SELECT num, epoch FROM runs WHERE status IN ('queued', 'in_progress') AND num = ANY(%s)", [*held]
        )
        return sum(epoch <= held[run] for run, epoch in rows)

    def ended(self) -> int:
        """How many runs have ended."""
        return int(self.ask("SELECT count(*) FROM runs WHERE final IS NOT NULL")[0][0])

    def written(self) -> int:
        """The number of the newest entry."""
        return int(self.ask("SELECT coalesce(max(seq), 0) FROM journal")[0][0])

    def history(self, job_id: str, folder: Path, log: Path) -> History:
        """Everything, for the judge: the journal, the log of effects, the output of the batch."""
        ids = tuple(row["id"] for row in rows_of(folder / "questions.jsonl"))
        with self._stage.connect(self._name) as connection:

            def execute(statement: str) -> Any:
                return connection.execute(statement)

            return History(
                runs=runs_by(execute),
                groups=groups_by(execute),
                effects=read_effects(log),
                waves=(Wave(job_id, ids, read_lines(folder / "answers.jsonl")),),
                accepted=(job_id,),
                now=clock.now_ns(),
            )

    def _held(self, number: int) -> dict[int, int]:
        return dict(self.ask("SELECT num, epoch FROM runs WHERE host = %s AND status = 'in_progress'", number))
