"""The nouns of the model: a cluster's shape, the work it is given, a run, and what is counted. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A cluster; times in seconds. `shared`: hosts and database on the cores of one machine, as where it was checked.

    How the store works: `lanes` writers a process; `settle_trips` round trips of a transaction in which runs end, and
    `lease_trips` of one that leases; `locks`: those that end lock their parents' rows, `late`: only just before the
    commit. A process hints at most once in `tick` seconds when it has queued runs, and when it has leased or tended
    (`tells_all`); whoever was hinted looks, at most once in `look` seconds. `judges`: every host looks at all others
    each second. `projectors`, each with its part of the journal.
    """

    nodes: int
    round_trip: float
    flush: float
    processes: int = 2
    capacity: int = 64
    node_cores: int = 2
    db_cores: int = 16
    shared: bool = False
    lanes: int = 1
    settle_trips: int = 4
    lease_trips: int = 5
    locks: bool = True
    late: bool = False
    tick: float = 0.004
    tells_all: bool = True
    look: float = 0.005
    judges: bool = True
    projectors: int = 1


@dataclass(frozen=True)
class Work:
    """What runs do: `steps` of `latency` seconds, `commits` each, and one commit to end.

    They are children of `groups` fan-outs that are filled up again (0: runs of their own); `total` runs in all (None:
    without end); `parks`: the share of runs that waits once, for `wait` seconds on average, held by no process.
    """

    steps: int
    latency: float
    commits: int = 1
    groups: int = 0
    total: int | None = None
    parks: float = 0.0
    wait: float = 1.0


@dataclass(slots=True)
class Run:
    """A run: its number and fan-out, how many commits are left, and at how many it parks (-1: never)."""

    number: int
    group: int
    left: int
    parks_at: int


@dataclass(slots=True)
class Counts:
    """What has happened since the last reset."""

    ended: int = 0
    commits: int = 0
    steps: int = 0
    parked: int = 0
    parked_seconds: float = 0.0
    transactions: int = 0
