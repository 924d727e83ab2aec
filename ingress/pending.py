"""The inbox: everything that trees of runs wait for, with who asked, why, since when, and what depends on it.

Reads requests and records by index, and the journals of those runs only that it lists. Knows no terminal.
"""

from __future__ import annotations

import shlex

from retinue.ingress.answering import is_checked, ways
from retinue.ingress.awaiting import Awaited, AwaitedKind, awaited, awaited_of
from retinue.ingress.inspection import with_joins
from retinue.runs.contracts import Frozen, Json, PendingRequest, RunRecord
from retinue.runs.machine import WAITING
from retinue.runs.reviewing import COMMANDS, REVIEW
from retinue.store.store import Store

LIMIT = 200
"""How many runs or requests are looked at, unless said otherwise."""
DEEPEST = 64
"""Levels of a tree that are looked at."""
_TAIL = 12


class Place(Frozen):
    """A run on the way from a root to the one that waits."""

    run_id: str
    target: str


class Waiting(Frozen):
    """One thing that is waited for, and its surroundings.

    `path` goes from the root to the run that waits, which is its last. `holds_up` counts the runs above that have
    not ended; a `held` run goes on only when it is let go as well. `goal` is the root's input; `commands` are those
    that resolve it, none where only time or another run does. `request` is there for an approval or an input.
    """

    kind: AwaitedKind
    key: str
    name: str
    why: str
    reason: str
    rules: tuple[str, ...]
    since: int
    due: int | None
    run_id: str
    run_kind: str
    target: str
    depth: int
    path: tuple[Place, ...]
    holds_up: int
    root_run_id: str
    goal: Json
    input_id: str | None
    job_id: str | None
    held: bool = False
    commands: tuple[str, ...]
    request_id: str | None = None
    request: PendingRequest | None = None


class Pending(Frozen):
    """What is waited for, root by root; `more` counts the requests (or parked runs) that were not looked at."""

    waits: tuple[Waiting, ...]
    more: int


_Found = tuple[str, Awaited, PendingRequest | None]
"""The run that waits, what for, and the request if it asks a person."""


async def pending(store: Store, run_id: str | None, everything: bool, limit: int) -> Pending:
    """What the tree of a run waits for, or (None) what is asked anywhere: with `everything` what any run waits for.

    UnknownName when there is no such run.
    """
    if run_id is not None:
        return await _of_tree(store, (await store.get(run_id)).root_run_id, limit)
    if everything:
        records, total = await store.waiting(limit)
        return await _of_runs(store, records, total - len(records))
    requests, total = await store.asked(None, limit)
    found: list[_Found] = [(request.run_id, awaited_of(request), request) for request in requests]
    return await _surrounded(store, found, total - len(requests))


async def _of_tree(store: Store, root: str, limit: int) -> Pending:
    tree = await store.below(root, limit, DEEPEST)
    parked = [record for record in tree.records if record.status in WAITING]
    shown = sum(not record.status.terminal for record in tree.records if record.run_id != root)
    below = sum(count for counts in tree.children.values() for status, count in counts.items() if not status.terminal)
    return await _of_runs(store, parked, below - shown)


async def _of_runs(store: Store, records: list[RunRecord], more: int) -> Pending:
    requests, _ = await store.asked([record.run_id for record in records], 10 * LIMIT)
    open_ones = {request.request_id: request for request in requests}
    found: list[_Found] = []
    for record in records:
        waits_of = await with_joins(store, record.run_id, awaited(await store.recent(record.run_id)))
        found += [
            (record.run_id, waits, open_ones.get(waits.request_id or ""))
            for waits in waits_of
            if waits.request_id is None or waits.request_id in open_ones
        ]
    return await _surrounded(store, found, more)


async def _surrounded(store: Store, found: list[_Found], more: int) -> Pending:
    records = await store.lineage(sorted({run_id for run_id, _, _ in found}))
    roots = list(dict.fromkeys(records[run_id].root_run_id for run_id, _, _ in found))
    goals = await store.inputs(roots)
    order = {root: place for place, root in enumerate(roots)}
    found.sort(key=lambda each: _place(order, records[each[0]], each[1]))
    items = [
        _waiting(records, run_id, waits, request).model_copy(update={"goal": goals.get(records[run_id].root_run_id)})
        for run_id, waits, request in found
    ]
    return Pending(waits=tuple(items), more=more)


def _place(order: dict[str, int], record: RunRecord, waits: Awaited) -> tuple[int, int, int, int]:
    """Root by root as they come, in a tree from the top down, then by age."""
    return order[record.root_run_id], record.depth, record.created_at, waits.since


def _waiting(records: dict[str, RunRecord], run_id: str, waits: Awaited, request: PendingRequest | None) -> Waiting:
    record = records[run_id]
    line = _line(records, record)
    root = line[0]
    return Waiting(
        **waits.model_dump(),
        run_id=run_id,
        run_kind=record.kind,
        target=record.target,
        depth=record.depth,
        path=tuple(Place(run_id=one.run_id, target=one.target) for one in line),
        holds_up=sum(not one.status.terminal for one in line[:-1]),
        root_run_id=root.run_id,
        goal=None,
        input_id=record.input_id or root.input_id,
        job_id=record.job_id,
        held=record.held,
        commands=_commands(waits, run_id, request) + ((f"retinue resume {run_id[-_TAIL:]}",) if record.held else ()),
        request=request,
    )


def _line(records: dict[str, RunRecord], record: RunRecord) -> list[RunRecord]:
    """From the root down to the record."""
    line = [record]
    while (above := line[0].parent_run_id) is not None and above in records:
        line.insert(0, records[above])
    return line


def _commands(waits: Awaited, run_id: str, request: PendingRequest | None) -> tuple[str, ...]:
    return ways(request) if request is not None and is_checked(request) else commands(waits, run_id)


def commands(waits: Awaited, run_id: str) -> tuple[str, ...]:
    """What to type to resolve it; nothing where only time or another run does."""
    match waits.kind:
        case "approval":
            return f"retinue approve {waits.request_id}", f"retinue deny {waits.request_id}"
        case "input" if waits.name == REVIEW:
            return tuple(f"retinue answer {waits.request_id} {words}" for words in COMMANDS)
        case "input":
            return (f"retinue answer {waits.request_id} TEXT",)
        case "unknown" if waits.request_id is not None:
            return tuple(f"retinue answer {waits.request_id} {word}" for word in ("happened", "absent", "fail"))
        case "event":
            return (f"retinue signal {run_id[-_TAIL:]} {shlex.quote(waits.name)} '{{...}}'",)
        case _:
            return ()
