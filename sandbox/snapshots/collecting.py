"""Garbage: snapshots that nobody uses, and objects that no snapshot needs.

Owns what is marked and the order in which the rest goes. What is in use is said by the caller; a snapshot that was
taken or restored within the time of grace stays too, for its record may not be there yet.

Marking is done beside those who write. Before anything goes, new batches are kept waiting and what became of the list
of snapshots meanwhile is marked as well. Lists go first and for good, then objects: a kill or a loss of power at any
point leaves whole snapshots, and objects that the next collection removes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Event

from retinue.sandbox.snapshots.objects import Held
from retinue.sandbox.snapshots.shelves import OBJECTS, Shelf
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.walking import Stopped

_PART = 1_000
"""Objects that are removed at a time."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What went, or would go: ids of snapshots, how many objects they and earlier ones left, and the bytes of all that
    in the store. `kept` is how many snapshots stay.
    """

    snapshots: tuple[str, ...] = ()
    objects: int = 0
    bytes: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _Marks:
    """What stays, and the lists that go, each as it was seen; `erased` are those that nobody can read any more."""

    needed: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    doomed: dict[str, Held] = field(default_factory=dict)
    erased: tuple[Held, ...] = ()


async def collect(
    snapshots: Snapshots, tenant: str, in_use: Collection[str], older_than_ns: int, dry: bool = False
) -> Collected:
    """Remove the snapshots of a tenant that are not `in_use` and were last taken or restored before `older_than_ns`
    (Unix ns), and all objects that no other snapshot needs. `dry`: only say what would go.

    SandboxLost when a snapshot that stays is damaged: then nothing goes, for what it needs is not known. TransientError
    with code `snapshots_busy` when others write all the time. Canceled, it stops between two parts.
    """
    how = (frozenset(in_use), older_than_ns, dry)
    return await snapshots.apart(lambda stop: _collect(snapshots, tenant, how, stop))


def _collect(snapshots: Snapshots, tenant: str, how: tuple[frozenset[str], int, bool], stop: Event) -> Collected:
    shelf = snapshots.shelf(tenant)
    if shelf is None or not snapshots.objects.exists(tenant):
        return Collected()
    in_use, older_than_ns, dry = how
    marks = _mark(shelf, in_use, older_than_ns, _Marks(), stop)
    with snapshots.objects.collecting(tenant):
        marks = _mark(shelf, in_use, older_than_ns, marks, stop)
        loose = [held for held in snapshots.objects.list(tenant, OBJECTS) if held.key not in marks.needed]
        loose += marks.erased
        size = sum(held.size for held in [*loose, *marks.doomed.values()])
        found = Collected(tuple(sorted(marks.doomed)), len(loose), size, len(marks.kept))
        if not dry:
            snapshots.objects.remove(tenant, [held.key for held in marks.doomed.values()])
            for at in range(0, len(loose), _PART):
                if stop.is_set():
                    raise Stopped
                snapshots.objects.remove(tenant, [held.key for held in loose[at : at + _PART]])
    return found


def _mark(shelf: Shelf, in_use: frozenset[str], older_than_ns: int, before: _Marks, stop: Event) -> _Marks:
    """What stays; what `before` has marked is not read again."""
    needed, kept, doomed, erased = set(before.needed), set[str](), dict[str, Held](), list[Held]()
    for held, head in shelf.listed():
        if stop.is_set():
            raise Stopped
        if head is None:
            erased.append(held)
            continue
        if head.snapshot_id not in in_use and held.written_ns < older_than_ns:
            doomed[head.snapshot_id] = held
            continue
        kept.add(head.snapshot_id)
        if head.snapshot_id not in before.kept:
            needed |= shelf.needs(head.snapshot_id)
    return _Marks(frozenset(needed), frozenset(kept), doomed, tuple(erased))
