"""Which actors should exist: from settings, needs, what waits and who lives, to who starts and who leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinue.actors.pools import Line, Member, Plan, Pool, plan, pools_of
from retinue.host.keys import Actors
from retinue.host.settings import Settings
from retinue.runs.resources import Resources

pytestmark = pytest.mark.promise("B5", "H4")

GPU = Resources(gpus=1)
ALONE = Resources(dedicated=True)
ONE = Pool("gpu1", low=0, high=4, capacity=1, needs=GPU, grow_after=2, shrink_after=60)
WIDE = Pool("env", low=1, high=5, capacity=10, grow_after=2, shrink_after=60)
HARD = Pool("dedicated", low=0, high=3, capacity=1, needs=ALONE, grow_after=2, shrink_after=60)
FIXED = Pool("workers", low=2, high=2, capacity=10)


def members(*said: tuple[str, int, float]) -> list[Member]:
    return [Member(n, state, active, idle) for n, (state, active, idle) in enumerate(said)]  # type: ignore[arg-type]


BUSY, FREE, LONG_FREE = ("serving", 1, 0.0), ("serving", 0, 5.0), ("serving", 0, 90.0)
STARTING, STUCK, LEAVING = ("starting", 0, 1.0), ("starting", 0, 90.0), ("leaving", 1, 0.0)


@pytest.mark.parametrize(
    ("why", "pool", "there", "line", "settled", "expected"),
    [
        ("nothing waits: nobody", ONE, [], Line(), 99, Plan()),
        ("from nothing at once, whatever the age", ONE, [], Line(1, 0), 99, Plan(start=(0,))),
        ("one for each that waits, up to the maximum", ONE, [], Line(9, 0), 99, Plan(start=(0, 1, 2, 3))),
        ("as many as there is work, no more", ONE, [BUSY], Line(2, 3), 99, Plan(start=(1, 2))),
        ("the oldest has not waited long enough", ONE, [BUSY], Line(2, 1.9), 99, Plan()),
        ("a place is free: the queue is held back by a limit", ONE, [BUSY, FREE], Line(2, 30), 99, Plan()),
        ("who starts is on the way already", ONE, [BUSY, STARTING], Line(1, 30), 99, Plan()),
        ("who starts is not enough", ONE, [BUSY, STARTING], Line(2, 30), 99, Plan(start=(2,))),
        ("full", ONE, [BUSY] * 4, Line(50, 30), 99, Plan()),
        ("who leaves counts no more, and its number is taken", ONE, [LEAVING], Line(1, 0), 0, Plan(start=(1,))),
        ("idle for long", ONE, [BUSY, LONG_FREE], Line(), 99, Plan(leave=(1,))),
        ("idle for long, both: to nothing", ONE, [LONG_FREE, LONG_FREE], Line(), 99, Plan(leave=(1, 0))),
        ("idle for a moment", ONE, [BUSY, FREE], Line(), 10, Plan()),
        ("idle, but something waits: one stays for it", ONE, [LONG_FREE, LONG_FREE], Line(1, 9), 99, Plan(leave=(1,))),
        ("waits for a node in vain, and nothing waits for it", ONE, [STUCK], Line(), 99, Plan(leave=(0,))),
        ("waits for a node in vain, and something waits for it", ONE, [STUCK], Line(1, 9), 99, Plan()),
        ("waits for a node in vain beside a busy one", ONE, [BUSY, STUCK], Line(1, 9), 99, Plan()),
        ("a minimum is there without work", WIDE, [], Line(), 0, Plan(start=(0,))),
        ("a minimum stays without work", WIDE, [LONG_FREE], Line(), 99, Plan()),
        ("a minimum that is gone comes back", FIXED, members(BUSY)[1:], Line(), 0, Plan(start=(0, 1))),
        ("a fixed pool does not grow", FIXED, [("serving", 10, 0.0)] * 2, Line(500, 900), 99, Plan()),
        ("a fixed pool does not shrink", FIXED, [LONG_FREE, LONG_FREE], Line(), 999, Plan()),
        ("room for ten each", WIDE, [("serving", 10, 0.0)], Line(11, 9), 99, Plan(start=(1, 2))),
        ("half empty for long: the quietest leaves", WIDE, [("serving", 4, 0.0), BUSY], Line(), 99, Plan(leave=(1,))),
        ("half empty, but just grown", WIDE, [("serving", 4, 0.0), BUSY], Line(), 59, Plan()),
        ("not half empty", WIDE, [("serving", 5, 0.0), BUSY], Line(), 99, Plan()),
        ("a lower maximum: the quietest leave", ONE, [BUSY] * 4 + [FREE, BUSY], Line(), 0, Plan(leave=(4, 5))),
        ("a dedicated run waits for nobody", HARD, [BUSY], Line(1, 0), 0, Plan(start=(1,))),
        ("a dedicated pool has its maximum too", HARD, [BUSY] * 3, Line(5, 99), 0, Plan()),
        ("a dedicated run is not moved", HARD, [BUSY, FREE], Line(), 99, Plan()),
    ],
)
def test_what_becomes_of_a_pool(
    why: str, pool: Pool, there: list[Any], line: Line, settled: float, expected: Plan
) -> None:
    assert plan(pool, members(*there), line, settled) == expected, why


@pytest.mark.parametrize("queued", [0, 1, 7, 1000])
@pytest.mark.parametrize("pool", [ONE, WIDE, HARD, FIXED])
def test_a_plan_that_is_carried_out_comes_to_rest(pool: Pool, queued: int) -> None:
    there: list[Member] = []
    for _ in range(20):
        decided = plan(pool, there, Line(queued, 999), 999)
        there = [m for m in there if m.number not in decided.leave]
        there += [Member(number, "serving", min(pool.capacity, queued)) for number in decided.start]
        if decided == Plan():
            break
    assert decided == Plan()
    assert pool.low <= len(there) <= pool.high
    assert len({member.number for member in there}) == len(there)


def settings(**actors: Any) -> Settings:
    return Settings(folder=Path("/nowhere"), actors=Actors.model_validate(actors))


def test_the_pools_of_a_project_without_needs_are_as_they_were() -> None:
    pools = pools_of(settings(runs=1, workers=3, capacity=7), {})
    assert {name: (pool.low, pool.high, pool.capacity) for name, pool in pools.items()} == {
        "runs": (1, 1, 7),
        "workers": (3, 3, 7),
    }


def test_settings_are_found_by_full_name_readable_name_or_star() -> None:
    declared = {
        "gpu1-abc": GPU,
        "gpu1-def": Resources(gpus=1, runtime_env={"pip": []}),
        "cpu1-x": Resources(cpus=1),
        "ssd-y": Resources(labels={"disk": "ssd"}),
    }
    said = {"gpu1-abc": {"max": 9}, "gpu1": {"max": 2, "min": 1}, "*": {"max": 3, "shrink_after": "5m"}}
    pools = pools_of(settings(pools=said, capacity=64), declared)
    found = {name: (pool.low, pool.high, pool.shrink_after) for name, pool in pools.items() if pool.needs.reserves}
    assert found == {"gpu1-abc": (0, 9, 60.0), "gpu1-def": (0, 3, 300.0), "cpu1-x": (0, 3, 300.0)}
    assert pools["cpu1-x"].capacity == 1, "what is reserved is reserved for a run"
    assert pools["ssd-y"].capacity == 64, "a label is shared"


def test_the_default_pools_can_be_given_room_to_grow() -> None:
    pools = pools_of(settings(workers=2, pools={"workers": {"max": 8, "placement": "pack"}, "runs": {"min": 2}}), {})
    assert (pools["workers"].low, pools["workers"].high, pools["workers"].placement) == (2, 8, "pack")
    assert (pools["runs"].low, pools["runs"].high) == (2, 2)


def test_a_dedicated_actor_has_one_run_whatever_is_said() -> None:
    pools = pools_of(settings(pools={"*": {"capacity": 50, "min": 1}}), {"dedicated-z": ALONE})
    assert (pools["dedicated-z"].capacity, pools["dedicated-z"].low) == (1, 1)
