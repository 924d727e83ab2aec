"""What the projection remembers of a run between two of its frames, and how it is found again.

Owns the state and its loading from the tables, so that a restart continues exactly where it stopped. All of
it follows from rows already written, but the content of open intents, which is read from the journal again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from retinue.runs.contracts import RunRequest
from retinue.runs.journal import Frame, Intent, Leased
from retinue.traces.file import TraceFile

KEPT = 20_000
"""Runs whose state is kept in memory; the others are loaded when they go on."""

IDENTITY = (
    "run_id",
    "root_run_id",
    "parent_run_id",
    "tenant_id",
    "agent",
    "agent_version",
    "kind",
    "job_id",
    "session_id",
    "input_id",
    "instance_id",
    "model",
    "trace_id",
    "span_id",
    "parent_span_id",
    "at_ns",
)

HOST = ("epoch", "host_id", "actor_id", "pid", "node")


@dataclass(slots=True)
class Open:
    """The first intent of a step whose outcome is awaited; `tries` counts the failed attempts."""

    intent: Intent
    tries: int = 0


@dataclass(slots=True)
class RunState:
    """What later frames of a run need of earlier ones.

    `who` holds the columns that most rows share, `host` the newest lease's, `started_ns` the first lease.
    """

    identity: dict[str, Any]
    who: dict[str, Any]
    host: dict[str, Any] = field(default_factory=dict)
    started_ns: int | None = None
    open: dict[str, Open] = field(default_factory=dict)

    @classmethod
    def of(cls, identity: dict[str, Any]) -> RunState:
        """A run of which nothing but its identity has been seen."""
        return cls(identity, {name: identity[name] for name in ("run_id", "root_run_id", "tenant_id", "agent")})

    def take(self, lease: Leased) -> None:
        """A host took the run."""
        self.host = {name: getattr(lease, name) for name in HOST}
        self.started_ns = lease.at if self.started_ns is None else self.started_ns


def identity_of(request: RunRequest, at: int) -> dict[str, Any]:
    """The columns of IDENTITY from the request of a run accepted at `at` (Unix ns)."""
    return {
        "run_id": request.run_id,
        "root_run_id": request.root_run_id,
        "parent_run_id": request.parent_run_id,
        "tenant_id": request.tenant_id,
        "agent": request.target,
        "agent_version": request.target_version,
        "kind": request.kind,
        "job_id": request.job_id,
        "session_id": request.session_id,
        "input_id": request.input_id,
        "instance_id": request.agent_instance_id,
        "model": request.model,
        "trace_id": request.trace_id,
        "span_id": request.span_id,
        "parent_span_id": request.parent_span_id,
        "at_ns": at,
    }


def stranger(run_id: str, tenant_id: str) -> RunState:
    """The state of a run whose acceptance is not in the tables: its rows are kept all the same."""
    digest = blake2b(run_id.encode()).hexdigest()
    known = {
        "run_id": run_id,
        "root_run_id": run_id,
        "tenant_id": tenant_id,
        "kind": "agent",
        "trace_id": digest[:32],
        "span_id": digest[32:48],
    }
    return RunState.of(dict.fromkeys(IDENTITY) | known)


class States:
    """The states of runs in progress: the most recent in memory, all others in the tables."""

    def __init__(self, kept: int = KEPT) -> None:
        self._known: OrderedDict[str, RunState] = OrderedDict()
        self._ended: set[str] = set()
        self._kept = kept

    def missing(self, frames: Iterable[Frame]) -> dict[str, str]:
        """Runs of these frames to be loaded, with their tenants; one that is accepted here is new."""
        first: dict[str, Frame] = {}
        for frame in frames:
            first.setdefault(frame.run_id, frame)
        return {
            run_id: frame.tenant_id
            for run_id, frame in first.items()
            if run_id not in self._known and not (frame.entries and frame.entries[0].kind == "accepted")
        }

    def get(self, run_id: str, tenant_id: str) -> RunState:
        """The state of a run; a stranger when nothing is known."""
        if run_id not in self._known:
            self._known[run_id] = stranger(run_id, tenant_id)
        self._known.move_to_end(run_id)
        self._ended.discard(run_id)
        return self._known[run_id]

    def put(self, state: RunState) -> None:
        """Remember a run."""
        self._known[state.identity["run_id"]] = state

    def end(self, run_id: str) -> None:
        """A run has ended: forget it after this batch, unless it is retried in it."""
        self._ended.add(run_id)

    def trim(self) -> None:
        """Forget the runs that ended, and those that were quiet longest; call it between batches."""
        for run_id in self._ended:
            self._known.pop(run_id, None)
        self._ended.clear()
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: after a batch that was not written, memory and tables differ."""
        self._known.clear()
        self._ended.clear()


@dataclass(frozen=True, slots=True)
class Loaded:
    """States found in the tables; open intents by run, each a place in the journal: (seq, ordinal, tries)."""

    states: dict[str, RunState]
    intents: dict[str, list[tuple[int, int, int]]]


def load(file: TraceFile, runs: dict[str, str]) -> Loaded:
    """Find the states of runs, given with their tenants, in the tables."""
    wanted = pa.table({"run_id": pa.array(sorted(runs), pa.string())})
    states = {run_id: stranger(run_id, tenant_id) for run_id, tenant_id in runs.items()}
    columns = ", ".join(IDENTITY)
    for row in file.lookup(f"SELECT {columns} FROM run_requests SEMI JOIN wanted USING (run_id)", wanted=wanted):
        states[row[0]] = RunState.of(dict(zip(IDENTITY, row, strict=True)))
    for run_id, started, *host in file.lookup(_LEASES, wanted=wanted):
        states[run_id].started_ns = started
        states[run_id].host = dict(zip(HOST, host, strict=True))
    intents: dict[str, list[tuple[int, int, int]]] = {}
    for run_id, *place in file.lookup(_OPEN, wanted=wanted):
        intents.setdefault(run_id, []).append((place[0], place[1], place[2]))
    return Loaded(states, intents)


_LEASES = """
SELECT run_id, arg_min(at_ns, epoch), max(epoch), arg_max_null(host_id, epoch), arg_max_null(actor_id, epoch),
    arg_max_null(pid, epoch), arg_max_null(node, epoch)
FROM leases SEMI JOIN wanted USING (run_id)
GROUP BY run_id
"""

_OPEN = """
WITH mine AS (SELECT * FROM intents SEMI JOIN wanted USING (run_id)),
ended AS (SELECT run_id, key, seq, ordinal FROM spans SEMI JOIN wanted USING (run_id)),
unended AS (
    SELECT run_id, key, min((seq, ordinal)) AS place
    FROM mine
    WHERE NOT EXISTS (
        FROM ended AS e
        WHERE e.run_id = mine.run_id AND e.key = mine.key AND (e.seq, e.ordinal) > (mine.seq, mine.ordinal)
    )
    GROUP BY run_id, key
)
SELECT u.run_id, u.place[1], u.place[2], count(a.key)
FROM unended AS u
LEFT JOIN attempts AS a ON a.run_id = u.run_id AND a.key = u.key AND (a.seq, a.ordinal) > u.place
GROUP BY ALL
ORDER BY ALL
"""
