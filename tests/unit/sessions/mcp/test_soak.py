"""Many sessions in one event loop over servers that die at random: each failure is of a server that had just died.

The short one is in the suite; the long one has 200 sessions and two minutes (make test-long), and prints its figures.
`tests/cluster/test_session_soak.py` does the same with runs in an actor.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
import pytest
from tests.doubles.fleet import Fleet, fleet, kill_at_random, marked
from tests.unit.sessions.mcp.linking import Keeping, caller, connections, text_of

from retinue.runs.errors import EffectError
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server


@dataclass
class Log:
    """What came of the calls."""

    made: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


async def session(number: int, pool: McpConnections, ships: Fleet, log: Log, pace: tuple[float, float]) -> None:
    """One run that calls one server again and again; `pace` is the longest pause and the end."""
    (pause, until), servers, count = pace, ships.servers(), 0
    name = list(servers)[number % len(servers)]
    server = Server(name=name, **servers[name])
    while time.monotonic() < until:
        count += 1
        slow = count % 7 == 0
        tool = "slow" if slow else "add"
        arguments = {"seconds": 0.2} if slow else {"a": number * 100_000, "b": count}
        who = caller(f"{number}-{count}", f"run-{number}", f"tenant-{number % 2}")
        began = time.monotonic()
        try:
            async with asyncio.timeout(300):
                text = text_of(await pool.call(server, tool, arguments, who, Keeping(), None))
        except EffectError as error:
            log.failed[error.code] += 1
            if not ships.explains(name, began, time.monotonic()):
                log.unexplained.append(f"{name}: {error.code}: {error}")
            await asyncio.sleep(min(2.0, 20 * pause))
            continue
        expected = "done" if slow else str(number * 100_000 + count)
        if text != expected:
            log.unexplained.append(f"{name} said {text!r} for {expected!r}")
        log.made[name.rpartition("-")[0]] += 1
        await asyncio.sleep(random.uniform(0.0, pause))


async def soak(sessions: int, seconds: float, every: float, processes: int) -> list[float]:
    ships, log, rss = fleet(processes), Log(), []
    mine = psutil.Process()
    until = time.monotonic() + seconds
    try:
        async with connections(most=400) as pool:
            killing = asyncio.create_task(kill_at_random(ships, mine, every, until - seconds * 0.1))
            pace = (sessions / 50, until)
            running = [asyncio.create_task(session(number, pool, ships, log, pace)) for number in range(sessions)]
            while time.monotonic() < until:
                await asyncio.sleep(seconds / 20)
                rss.append(mine.memory_info().rss / 1e6)
            await asyncio.gather(killing, *running)
            ships.note_children(mine)
            began = time.monotonic()
        closing = time.monotonic() - began
    finally:
        ships.close()
    print(f"\n{sessions} sessions, {seconds:g} s: {sum(log.made.values())} calls {dict(log.made)}")
    print(f"{ships.deaths} deaths of servers, {sum(log.failed.values())} calls failed {dict(log.failed)}")
    print(f"rss {[round(value) for value in rss]} MB; closed in {closing:.1f} s")
    print(f"{len(ships.pids)} processes of servers, {len(ships.left())} left")
    print("\n".join(log.unexplained[:20]))
    assert len(log.unexplained) == 0
    assert ships.left() == [] and marked(mine.pid) == []
    assert ships.deaths >= 2 and sum(log.made.values()) > sessions
    return rss


@pytest.mark.promise("D4")
@pytest.mark.promise("D5")
async def test_twenty_sessions_over_dying_servers() -> None:
    await soak(20, 10.0, 2.0, 3)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.promise("D4")
@pytest.mark.promise("D5")
async def test_two_hundred_sessions_over_dying_servers_for_two_minutes() -> None:
    rss = await soak(200, float(os.environ.get("SOAK_SECONDS", "120")), 2.0, 8)
    assert max(rss[-3:]) - max(rss[4:8]) < 25.0, rss
