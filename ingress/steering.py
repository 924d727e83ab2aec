"""Taking up again what has ended: a retry of the same run, a fork that is another one.

Reads the journals that it takes and says what comes of it. Knows no project and no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.host import clock
from retinue.runs.contracts import Branch, Frozen, Json, RunRecord, RunRequest
from retinue.runs.effects.children import heard
from retinue.runs.errors import InvalidInput
from retinue.runs.forking import Fork, Given, Original, fork
from retinue.runs.journal import Accepted, AnyEntry, Checkpoint, Outcome, Retried
from retinue.runs.ownership import NewRun
from retinue.runs.retries import Retry
from retinue.store.store import Store

_SHOWN = 20


class Retaken(Frozen):
    """A run that goes on: `again` is the step that is taken anew, None where no step was the cause of its failure."""

    run_id: str
    target: str
    input_id: str | None
    again: str | None


class Retaking(Frozen):
    """What a retry queued, deepest first, the run itself last; of more than 20 only the last are shown."""

    run_id: str
    queued: tuple[str, ...]
    runs: tuple[Retaken, ...]


class Forked(Frozen):
    """A fork: where it leaves its original, how many finished steps it shares, the writes it would repeat."""

    run_id: str
    original: str
    at: str
    shared: int
    given: bool
    repeats: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A fork that may be submitted: its parts, and the version that its original went by at the end."""

    accepted: Accepted
    made: Fork
    version: str
    repeats: tuple[str, ...]


async def retake(store: Store, run_id: str, wanted: Retry) -> Retaking:
    """Queue a failed run again. Raises as `Control.retry`."""
    before = await store.get(run_id)
    queued = await store.retry(before.run_id, wanted)
    runs = []
    for each in queued[-_SHOWN:]:
        record = await store.get(each)
        after = before.position if each == before.run_id else None
        runs.append(
            Retaken(
                run_id=each,
                target=record.target,
                input_id=record.input_id,
                again=await _again(store, each, after),
            )
        )
    return Retaking(run_id=before.run_id, queued=tuple(queued), runs=tuple(runs))


async def _again(store: Store, run_id: str, after: int | None) -> str | None:
    """The step of the newest retry, by the frames after a position, or (None) since the newest checkpoint."""
    frames = await store.recent(run_id) if after is None else [frame async for frame in store.read(run_id, after)]
    marks = [entry for frame in frames for entry in frame.entries if isinstance(entry, Retried)]
    return marks[-1].again if marks else None


async def plan_fork(store: Store, record: RunRecord, at: str, given: Given | None) -> Plan:
    """Share the past of a run up to a step. UnknownName, InvalidInput as `forking.fork`."""
    entries = [entry async for frame in store.read(record.run_id) for entry in frame.entries]
    accepted = entries[0]
    if not isinstance(accepted, Accepted):
        raise InvalidInput(f"run {record.run_id} does not begin with its acceptance and cannot be forked")
    entries = [await _filled(store, record.run_id, entry) for entry in entries]
    made = fork(Original(entries, accepted.content, record.started_at or record.created_at), at, given)
    repeats = tuple(sorted({*made.repeats, *accepted.request.repeats}))
    return Plan(accepted, made, _version(entries, accepted.request), repeats)


def new_run(plan: Plan, original: RunRecord, **changes: Json) -> NewRun:
    """The fork as a run of its own, top-level whatever its original was; `changes` are fields of its request."""
    fork_id = clock.new_run_id()
    request = plan.accepted.request
    fields = {
        "run_id": fork_id,
        "root_run_id": fork_id,
        "effect_scope": fork_id,
        "trace_id": clock.new_trace_id(),
        "span_id": clock.new_span_id(),
        "parent_span_id": None,
        "parent_run_id": None,
        "job_id": None,
        "group_key": None,
        "group_index": None,
        "idempotency_key": None,
        "deadline": None,
        "depth": 0,
        "relayed": False,
        "forked_from": f"{original.run_id}@{plan.made.at}",
        "repeats": plan.repeats,
        "seed": request.seed or original.run_id,
    }
    return NewRun(request.model_copy(update=fields | changes), plan.made.input, clock.now_ns(), past=plan.made.past)


def shared_steps(plan: Plan) -> int:
    """How many finished steps a fork has from its original, without the outcome it was given."""
    outcomes = [entry for entry in plan.made.past if isinstance(entry, Outcome)]
    return len([entry for entry in outcomes if entry.activation and entry.key != plan.made.at])


async def _filled(store: Store, run_id: str, entry: AnyEntry) -> AnyEntry:
    """An outcome of a large fan-out with the branches that stayed in the children's table."""
    if not (isinstance(entry, Outcome) and entry.facts.get("stored")):
        return entry
    branches: list[Branch] = heard(entry.content, await store.branches(run_id, entry.key))
    return entry.model_copy(update={"content": [branch.model_dump(mode="json") for branch in branches]})


def _version(entries: list[AnyEntry], request: RunRequest) -> str:
    changes = [entry.amendment for entry in entries if isinstance(entry, Checkpoint | Retried)]
    versions = [change.version for change in changes if change is not None and change.version is not None]
    return versions[-1] if versions else request.target_version
