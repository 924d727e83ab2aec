"""Short looks at a store from outside while others write it: who lives, who holds what, what is left to do.

Writes no row. Knows no database and no fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
from tests.chaos.stores import Seen


@dataclass(frozen=True, slots=True)
class HostSeen:
    """A living host: its row, its process, and (run, epoch) of what it held when it was looked at."""

    number: int
    kind: str
    pid: int
    holds: tuple[tuple[int, int], ...]


class Look:
    """Looks at one store. Every method is a read of milliseconds; raises what is UNREADABLE."""

    def __init__(self, store: Seen) -> None:
        self.store = store

    def hosts(self, kind: str | None = None) -> list[HostSeen]:
        """Hosts whose process lives, oldest first."""
        rows = self.ask("SELECT num, kind, pid FROM hosts WHERE state = 'alive' ORDER BY num")
        return [
            HostSeen(number, found, pid, self._held(number))
            for number, found, pid in rows
            if kind in (None, found) and _lives(pid)
        ]

    def is_known(self, number: int) -> bool:
        """Whether the store takes that host for alive: its leases are its own."""
        return bool(self.ask("SELECT 1 FROM hosts WHERE num = ? AND state = 'alive'", number))

    def silence(self) -> float:
        """For how long (s) the most silent of the runtime's hosts has not shown itself."""
        query = "SELECT num, beat FROM hosts WHERE state = 'alive' AND kind IN ('run', 'worker')"
        beats = dict(self.ask(query))
        return max((self.store.now() - beats[host.number] for host in self.hosts() if host.number in beats), default=0)

    def left_behind(self, host: HostSeen) -> int:
        """How many of the runs that a host held nobody has taken up since."""
        held = dict(host.holds)
        rows = self.ask("SELECT num, epoch, status FROM runs WHERE status IN ('queued', 'in_progress')")
        return sum(run in held and epoch <= held[run] for run, epoch, _ in rows)

    def unfinished(self) -> list[tuple[str, str, str | None, int]]:
        """(target, status, reason, how many) of all that has not ended."""
        return [
            (target, status, reason, count)
            for target, status, reason, count in self.ask(
                "SELECT target, status, reason, count(*) FROM runs WHERE final IS NULL GROUP BY 1, 2, 3 ORDER BY 1"
            )
        ]

    def in_progress(self, target: str, not_by: int = 0) -> int:
        """How many runs of a target are owned by another host than that one."""
        query = "SELECT count(*) FROM runs WHERE target = ? AND status = 'in_progress' AND host != ?"
        return int(self.ask(query, target, not_by)[0][0])

    def waiting_for(self, effect: str) -> list[str]:
        """Ids of runs that wait for such a thing."""
        return [row[0] for row in self.ask("SELECT run_id FROM runs WHERE final IS NULL AND reason = ?", effect)]

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Any short read."""
        return self.store.ask(query, *values)

    def _held(self, number: int) -> tuple[tuple[int, int], ...]:
        rows = self.ask("SELECT num, epoch FROM runs WHERE host = ? AND status = 'in_progress'", number)
        return tuple((num, epoch) for num, epoch in rows)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
