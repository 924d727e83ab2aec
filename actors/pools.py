"""The pools of a runtime as data, and what should become of each: who starts and who leaves. Pure; knows no Ray.

A pool is a set of like actors that host runs of one shape. `runs` and `workers` are always there; each shape that
definitions need has a pool of its own, which is empty until something is queued in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import ceil
from typing import Literal

from retinue.host.keys import Pool as PoolSettings
from retinue.host.settings import Settings
from retinue.runs.resources import Resources, readable_name

RUNS, WORKERS = "runs", "workers"
_MOST = 4
"""Actors of a pool for which nobody has set a maximum."""
_ANYTHING = Resources()
_NOT_SET = PoolSettings()


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as it is to be kept: `low` to `high` actors of `capacity` runs each; spans are in seconds."""

    name: str
    low: int
    high: int
    capacity: int
    needs: Resources = _ANYTHING
    placement: Literal["spread", "pack"] = "spread"
    grow_after: float = 1.0
    shrink_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Member:
    """An actor of a pool: how many runs it holds, and for how long (s) it has held none.

    `starting`: it has not answered yet, and may wait for a place. `leaving`: it takes no run any more.
    """

    number: int
    state: Literal["starting", "serving", "leaving"]
    active: int = 0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """What waits for a pool: how many runs, and for how long (s) the oldest."""

    queued: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of the actors that are to start and to leave."""

    start: tuple[int, ...] = ()
    leave: tuple[int, ...] = ()


NOBODY = Line()


def pools_of(settings: Settings, declared: Mapping[str, Resources]) -> dict[str, Pool]:
    """All pools of a runtime, by name; `declared` are those that definitions need."""
    counts = {RUNS: settings.actors.runs, WORKERS: settings.actors.workers}
    pools = {name: _default_pool(settings, name, number) for name, number in counts.items()}
    return pools | {name: _declared_pool(settings, name, needs) for name, needs in declared.items()}


def plan(pool: Pool, members: Sequence[Member], line: Line, settled: float) -> Plan:
    """Who starts and who leaves now. `settled`: for how long (s) nobody has.

    An actor more helps only when those there are full: runs that a limit of their tenant holds back wait beside free
    places. From nothing it begins at once, since nobody else would ever come.
    """
    staying = [member for member in members if member.state != "leaving"]
    wanted = _wanted(pool, staying, line)
    if wanted > len(staying):
        taken = {member.number for member in members}
        free = (number for number in count() if number not in taken)
        return Plan(start=tuple(islice(free, wanted - len(staying))))
    return Plan(leave=tuple(member.number for member in _superfluous(pool, staying, line, settled)))


def _default_pool(settings: Settings, name: str, number: int) -> Pool:
    said = settings.actors.pools.get(name, _NOT_SET)
    low = number if said.min is None else said.min
    low = low if said.max is None else min(low, said.max)
    return _pool(name, said, (low, max(low, said.max or number)), said.capacity or settings.actors.capacity)


def _declared_pool(settings: Settings, name: str, needs: Resources) -> Pool:
    """What reserves something of its node reserves it for each run, unless somebody says how many may share it."""
    pools = settings.actors.pools
    said = next((pools[key] for key in (name, readable_name(needs), "*") if key in pools), _NOT_SET)
    capacity = said.capacity or (1 if needs.reserves else settings.actors.capacity)
    low = said.min or 0
    bounds = (low, max(low, said.max or _MOST))
    return _pool(name, said, bounds, 1 if needs.dedicated else capacity, needs)


def _pool(name: str, said: PoolSettings, bounds: tuple[int, int], capacity: int, needs: Resources = _ANYTHING) -> Pool:
    low, high = bounds
    return Pool(name, low, high, capacity, needs, said.placement, said.grow_after, said.shrink_after)


def _wanted(pool: Pool, staying: Sequence[Member], line: Line) -> int:
    least = max(pool.low, len(staying))
    if not line.queued or not _ripe(pool, staying, line):
        return least
    demand = ceil((line.queued + sum(member.active for member in staying)) / pool.capacity)
    return max(least, min(pool.high, demand))


def _ripe(pool: Pool, staying: Sequence[Member], line: Line) -> bool:
    if not staying or pool.needs.dedicated:
        return True
    full = all(member.active >= pool.capacity for member in staying if member.state == "serving")
    return full and line.age >= pool.grow_after


def _superfluous(pool: Pool, staying: Sequence[Member], line: Line, settled: float) -> Sequence[Member]:
    """Those that have held nothing for long; else the least busy one, when half of the others' places are enough."""
    quietest = sorted(staying, key=lambda member: (member.active, -member.number))
    over = len(staying) - pool.high
    if over > 0:
        return quietest[:over]
    room = len(staying) - max(pool.low, 1 if line.queued else 0)
    useless = [m for m in quietest if not m.active and (m.state == "serving" or not line.queued)]
    idle = [member for member in useless if member.idle >= pool.shrink_after]
    if idle or room <= 0 or line.queued or settled < pool.shrink_after or pool.needs.dedicated:
        return idle[: max(room, 0)]
    left = quietest[1:]
    busy = sum(member.active for member in staying)
    return quietest[:1] if left and busy <= len(left) * pool.capacity / 2 else []
