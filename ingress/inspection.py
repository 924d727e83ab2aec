"""What can be known of a run from outside, named: where it resumes, where its replay begins, what is safe.

Derived from its journal and the store's counters; changes nothing. Knows no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from retinue.ingress.awaiting import Awaited, Open
from retinue.ingress.wholes import FullOutput, full_output
from retinue.runs.capabilities import FULL_OUTPUT
from retinue.runs.contracts import Budget, Frozen, PendingRequest, RunRecord, Status
from retinue.runs.control import GroupState
from retinue.runs.journal import Accepted, AnyEntry, Attempt, Checkpoint, Finished, Intent, Outcome, Record, Retried
from retinue.runs.machine import WAITING, remedy_of
from retinue.store.store import Store


class Cursor(Frozen):
    """Where the run resumes: its next entry is written at `position`, by an owner whose epoch is above `epoch`."""

    position: int
    epoch: int


class Boundary(Frozen):
    """Where replay begins: the newest checkpoint, or the beginning (number 0)."""

    name: str
    number: int
    position: int


class NamedBoundary(Frozen):
    """A checkpoint that the target says it has: what it means, how often it was passed and where last.

    `newest` marks the one that the run passed last.
    """

    name: str
    meaning: str
    passed: int = 0
    position: int | None = None
    newest: bool = False


class FinishedStep(Frozen):
    """An effect with a durable outcome since the boundary: replay delivers it, nothing does it again."""

    key: str
    effect: str
    name: str
    result: str
    position: int


class ChildGroup(Frozen):
    """The join state of one fan-out: its counters, and how the children stand that have not ended."""

    key: str
    name: str
    total: int
    pending: int
    ok: int
    failed: int
    rejected: int
    waiting: int
    running: int
    queued: int

    def __str__(self) -> str:
        done = self.ok + self.failed + self.rejected
        rest = {"running": self.running, "queued": self.queued, "not readable": self.rejected}
        parts = [f"{self.failed} failed", f"{self.waiting} waiting", *(f"{n} {what}" for what, n in rest.items() if n)]
        return f"{done} of {self.total + self.rejected} done, {', '.join(parts)}"


class Inspection(Frozen):
    """Everything `retinue inspect` shows. `in_flight` are effects begun and not ended: key, effect, name; `erased` says
    that contents are gone with the tenant's key.
    """

    record: RunRecord
    budget: Budget
    cursor: Cursor
    boundary: Boundary
    boundaries: tuple[NamedBoundary, ...] = ()
    finished: tuple[FinishedStep, ...]
    finished_before: int
    full_outputs: tuple[FullOutput, ...] = ()
    in_flight: tuple[FinishedStep, ...]
    waits: tuple[Awaited, ...]
    requests: tuple[PendingRequest, ...]
    children: tuple[ChildGroup, ...]
    failed_tries: tuple[str, ...]
    checked: str = ""
    erased: bool = False
    error: str | None
    remedy: str | None


@dataclass(slots=True)
class _Reading:
    """What a pass over the journal gathers."""

    budget: Budget = field(default_factory=Budget)
    boundary: Boundary = field(default_factory=lambda: Boundary(name="begin", number=0, position=0))
    boundaries: dict[str, NamedBoundary] = field(default_factory=dict)
    finished: dict[str, FinishedStep] = field(default_factory=dict)
    finished_before: int = 0
    begun: dict[str, FinishedStep] = field(default_factory=dict)
    open: Open = field(default_factory=Open)
    groups: dict[str, str] = field(default_factory=dict)
    tries: list[str] = field(default_factory=list)
    wholes: dict[str, FullOutput] = field(default_factory=dict)
    checked: str = ""
    error: str | None = None
    error_code: str | None = None

    def take(self, position: int, entry: AnyEntry) -> None:
        """One entry."""
        self.open.take(entry)
        match entry:
            case Accepted():
                self.budget = entry.request.budget
            case Record():
                self._record(position, entry)
            case Intent():
                self._begin(position, entry)
            case Outcome():
                self._end(position, entry)
            case Attempt():
                self.tries = [*self.tries[-4:], f"{entry.key}, try {entry.number}: {entry.error.message}"]
            case Checkpoint():
                self.boundary = Boundary(name=entry.name, number=entry.number, position=position)
                self._pass(entry.name, position)
                self.finished_before += len(self.finished)
                self.finished.clear()
                self.begun.clear()
            case Retried():
                self._take_back(entry)
            case Finished():
                self.error = entry.error.message if entry.error else None
                self.error_code = entry.error.code if entry.error else None

    def _record(self, position: int, entry: Record) -> None:
        if entry.topic == FULL_OUTPUT:
            self.wholes[entry.facts["key"]] = full_output(position, entry)
        elif entry.topic == "validation":
            self.checked = _checked(entry)
        elif entry.by == "runtime" and "boundaries" in entry.facts:
            self.boundaries = {name: NamedBoundary(name=name, meaning=said) for name, said in _pairs(entry)}

    def _pass(self, name: str, position: int) -> None:
        for other, boundary in self.boundaries.items():
            passed = {"passed": boundary.passed + 1, "position": position} if other == name else {}
            self.boundaries[other] = boundary.model_copy(update={"newest": other == name, **passed})

    def _take_back(self, entry: Retried) -> None:
        """The run goes on after a failure: the step that failed it is open again, its limits may be others."""
        self.error = None
        if entry.amendment.budget is not None:
            self.budget = entry.amendment.budget.within(self.budget)
        if entry.again is not None:
            self.finished.pop(entry.again, None)

    def _begin(self, position: int, entry: Intent) -> None:
        self.begun[entry.key] = FinishedStep(
            key=entry.key, effect=entry.effect, name=entry.name, result="in flight", position=position
        )
        if entry.effect == "children":
            self.groups[entry.key] = entry.name

    def _end(self, position: int, entry: Outcome) -> None:
        self.begun.pop(entry.key, None)
        self.finished[entry.key] = FinishedStep(
            key=entry.key, effect=entry.effect, name=entry.name, result=entry.result, position=position
        )


def _checked(entry: Record) -> str:
    """The newest validation in words: what was checked, how far it came, what was found."""
    facts = entry.facts
    found = ", ".join(f"{name} {good:g}/{of}" for name, (good, of) in (facts.get("checks") or {}).items())
    sure = f"confidence {facts['confidence']}" if facts.get("confidence") is not None else ""
    ended = facts.get("verdict") or ("passed" if facts.get("ok") else "refused")
    stage = f" at {facts['stage']}" if facts.get("stage") not in (None, "result") else ""
    said = [f"{facts.get('what')} {ended}{stage}", found, sure, *map(str, facts.get("errors") or ())]
    return "; ".join(filter(None, said))


def _pairs(entry: Record) -> list[tuple[str, str]]:
    """What admission wrote down of the target's boundaries: name and meaning of each."""
    return [(str(name), str(meaning)) for name, meaning in entry.facts["boundaries"]]


async def inspect_run(store: Store, run_id: str) -> Inspection:
    """Look at a run. UnknownName when there is none."""
    record = await store.get(run_id)
    reading, erased = _Reading(), False
    async for frame in store.read(record.run_id):
        erased = erased or frame.erased
        for position, entry in enumerate(frame.entries, start=frame.position):
            reading.take(position, entry)
    waits = () if record.status.terminal else reading.open.awaited()
    requests, _ = await store.asked([record.run_id], _ASKED)
    groups = await store.groups(record.run_id)
    return Inspection(
        record=record,
        budget=reading.budget,
        cursor=Cursor(position=record.position + 1, epoch=record.epoch),
        boundary=reading.boundary,
        boundaries=tuple(reading.boundaries.values()),
        finished=tuple(reading.finished.values()),
        finished_before=reading.finished_before,
        full_outputs=tuple(reading.wholes.values()),
        in_flight=_in_flight(record, reading, waits),
        waits=_with_joins(waits, groups),
        requests=tuple(requests),
        children=tuple(_group(state, reading.groups.get(state.key, state.key)) for state in groups),
        failed_tries=tuple(reading.tries),
        checked=reading.checked,
        erased=erased,
        error=reading.error,
        remedy=remedy_of(record.reason, reading.error_code) if record.reason else None,
    )


async def with_joins(store: Store, run_id: str, waits: tuple[Awaited, ...]) -> tuple[Awaited, ...]:
    """The waits, those for children with how far their groups are."""
    if all(one.kind != "child" for one in waits):
        return waits
    return _with_joins(waits, await store.groups(run_id))


def _with_joins(waits: tuple[Awaited, ...], groups: list[GroupState]) -> tuple[Awaited, ...]:
    states = {state.key: state for state in groups}
    return tuple(
        one.model_copy(update={"why": f"{one.why}: {_group(states[one.key], one.name)}"}) if one.key in states else one
        for one in waits
    )


def _in_flight(record: RunRecord, reading: _Reading, waits: tuple[Awaited, ...]) -> tuple[FinishedStep, ...]:
    """Effects begun and not ended, but for those that only wait."""
    if record.status.terminal:
        return ()
    waited = {one.key for one in waits}
    return tuple(step for key, step in reading.begun.items() if key.partition("!")[0] not in waited)


def _group(state: GroupState, name: str) -> ChildGroup:
    counted = {status: state.open.get(status, 0) for status in Status}
    return ChildGroup(
        key=state.key,
        name=name,
        total=state.total,
        pending=state.pending,
        ok=state.ok,
        failed=state.failed,
        rejected=state.rejected,
        waiting=sum(counted[status] for status in WAITING),
        running=counted[Status.in_progress],
        queued=counted[Status.queued],
    )


_ASKED = 1_000
"""Open requests of one run that are read at most."""
