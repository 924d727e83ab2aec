"""Reading two runs and laying them side by side, their children too when asked.

Bounded: so many children of a group, so many levels, and what was left out is counted. Knows no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.ingress.alignment import Comparison, Step, Story, compare, story_of
from retinue.runs.contracts import Frozen, RunRecord
from retinue.runs.errors import InvalidInput
from retinue.runs.identity import child_id
from retinue.store.store import Store

CHILDREN = 50
"""Children of one group that are compared."""
DEEPEST = 4
"""Levels of children that are compared."""


class Difference(Frozen):
    """Two runs side by side, and their children, group by group; `left_out` children of both were not compared."""

    comparison: Comparison
    children: tuple[ChildPair, ...] = ()
    left_out: int = 0


class ChildPair(Frozen):
    """The children at one place of a group. `difference` is None when only one run has one there, or
    both have the same one."""

    group: str
    index: int
    run_ids: tuple[str | None, str | None]
    difference: Difference | None = None

    @property
    def shared(self) -> bool:
        """Whether both runs have the very same child there, as a fork and its original do."""
        return self.run_ids[0] == self.run_ids[1]


Difference.model_rebuild()


@dataclass(frozen=True, slots=True)
class _Group:
    """A fan-out of one of the runs: its key, and the runs its outcome names, by index."""

    run_id: str
    key: str
    named: dict[int, str]


async def diff_runs(store: Store, one: str, other: str, children: bool = False) -> Difference:
    """Compare two runs. UnknownName when there is none; InvalidInput when they are the same one."""
    first, second = await store.get(one), await store.get(other)
    if first.run_id == second.run_id:
        raise InvalidInput(f"{one!r} and {other!r} are the same run {first.run_id}: name two")
    return await _difference(store, first, second, DEEPEST if children else 0)


async def _difference(store: Store, one: RunRecord, other: RunRecord, levels: int) -> Difference:
    stories = await _story(store, one), await _story(store, other)
    compared = compare((one, stories[0]), (other, stories[1]))
    if levels == 0:
        return Difference(comparison=compared)
    found: list[ChildPair] = []
    left_out = 0
    for pair in compared.pairs:
        if pair.one is None or pair.other is None or pair.one.effect != "children":
            continue
        groups = _group(one, pair.one, stories[0]), _group(other, pair.other, stories[1])
        pairs, more = await _children(store, groups, levels)
        found += pairs
        left_out += more
    return Difference(comparison=compared, children=tuple(found), left_out=left_out)


async def _story(store: Store, record: RunRecord) -> Story:
    return story_of([frame async for frame in store.read(record.run_id)])


def _group(record: RunRecord, step: Step, story: Story) -> _Group:
    return _Group(record.run_id, step.key, story.branches.get(step.key, {}))


async def _children(store: Store, groups: tuple[_Group, _Group], levels: int) -> tuple[list[ChildPair], int]:
    sides = [await _ids(store, group) for group in groups]
    width = max(len(side) for side in sides)
    records = await store.lineage([run_id for side in sides for run_id in side[:CHILDREN]])
    found = []
    for index in range(min(width, CHILDREN)):
        first, second = (records.get(side[index]) if index < len(side) else None for side in sides)
        if first is None and second is None:
            continue
        difference = None
        if first is not None and second is not None and first.run_id != second.run_id:
            difference = await _difference(store, first, second, levels - 1)
        run_ids = (first.run_id if first else None, second.run_id if second else None)
        found.append(ChildPair(group=groups[0].key, index=index, run_ids=run_ids, difference=difference))
    return found, max(width - CHILDREN, 0)


async def _ids(store: Store, group: _Group) -> list[str]:
    """The children of a group by index: as the outcome names them (a fork's are its original's), else computed."""
    totals = [state.total for state in await store.groups(group.run_id) if state.key == group.key]
    width = max([*totals, *(index + 1 for index in group.named)], default=0)
    return [group.named.get(index) or child_id(group.run_id, group.key, index) for index in range(width)]
