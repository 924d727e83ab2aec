"""Many sessions in one event loop over servers that die at random: each failure is of a server that had just died.

The short one is in the suite; the long one has 200 sessions and two minutes (make test-long), and prints its figures.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
import pytest
from tests.doubles.processes import Other
from tests.unit.sessions.mcp.linking import TALKER, Keeping, caller, connections, http, stdio, text_of
from tests.unit.sessions.mcp.test_children import gone

from retinue.runs.errors import EffectError
from retinue.sessions.mcp.guardian import VARIABLE
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server

AFTERMATH = 30.0
"""Seconds after a death in which its server may still fail: it starts anew, and is not tried at once."""


@dataclass
class Fleet:
    """The servers, their deaths, and what came of the calls."""

    stdio: list[Server]
    ports: dict[int, Other] = field(default_factory=dict)
    died: dict[str, float] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    made: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    unexplained: list[str] = field(default_factory=list)

    def servers(self) -> list[Server]:
        ways = [(protocol, scope) for protocol in ("legacy", "auto") for scope in ("run", "worker")]
        over_http = [
            http(
                port,
                name=f"http-{number}-{protocol}-{scope}",
                protocol=protocol,
                scope=scope,
                timeout=60.0,
                connect_seconds=60.0,
            )
            for number, port in enumerate(self.ports)
            for protocol, scope in ways
        ]
        return [*over_http, *self.stdio]

    def of_port(self, port: int) -> list[Server]:
        return [server for server in self.servers() if server.url is not None and f":{port}/" in server.url]

    def note_children(self) -> list[psutil.Process]:
        children = [child for child in psutil.Process().children() if "stdio" in _words(child)]
        self.pids |= {child.pid for child in children}
        return children


def fleet(processes: int) -> Fleet:
    command = (sys.executable, TALKER, "stdio")
    servers = [
        stdio(
            name=f"stdio-{n}",
            command=(*command, f"n{n}"),
            protocol="legacy" if n % 2 else "auto",
            timeout=60.0,
            connect_seconds=60.0,
        )
        for n in range(processes)
    ]
    made = Fleet(servers)
    for _ in range(2):
        other = Other([TALKER, "http", "0"])
        made.ports[int(other.wait_for("ready").split()[1])] = other
    return made


async def session(number: int, pool: McpConnections, ships: Fleet, pause: float, until: float) -> None:
    """One run that calls one server again and again."""
    servers = ships.servers()
    server, count = servers[number % len(servers)], 0
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
            ships.failed[error.code] += 1
            if not any(began - AFTERMATH < moment for moment in [ships.died.get(server.name, -1e9)]):
                since = time.monotonic() - ships.died.get(server.name, 0.0)
                ships.unexplained.append(f"{server.name} {since:.0f} s after: {error.code}: {error}")
            await asyncio.sleep(min(2.0, 20 * pause))
            continue
        expected = "done" if slow else str(number * 100_000 + count)
        if text != expected:
            ships.unexplained.append(f"{server.name} said {text!r} for {expected!r}")
        ships.made[server.name.rpartition("-")[0]] += 1
        await asyncio.sleep(random.uniform(0.0, pause))


async def kill_at_random(ships: Fleet, every: float, until: float) -> None:
    """Now and then one server dies without a word."""
    number = 0
    while time.monotonic() < until:
        await asyncio.sleep(every)
        number += 1
        children = ships.note_children()
        if number % 5 == 0:
            port, other = random.choice(list(ships.ports.items()))
            for server in ships.of_port(port):
                ships.died[server.name] = math.inf
            _end(other)
            ships.ports[port] = await asyncio.to_thread(_again, port)
            for server in ships.of_port(port):
                ships.died[server.name] = time.monotonic()
        elif children:
            child = random.choice(children)
            if words := _words(child):
                ships.died[f"stdio-{words[-1][1:]}"] = time.monotonic()
                child.kill()
        ships.deaths += 1


def _end(other: Other) -> None:
    other.kill()
    for pipe in (other.process.stdin, other.process.stdout):
        assert pipe is not None
        pipe.close()


def _again(port: int) -> Other:
    other = Other([TALKER, "http", str(port)])
    other.wait_for("ready")
    return other


async def soak(sessions: int, seconds: float, every: float, processes: int) -> list[float]:
    ships, rss = fleet(processes), []
    mine = psutil.Process()
    until = time.monotonic() + seconds
    try:
        async with connections(most=400) as pool:
            killing = asyncio.create_task(kill_at_random(ships, every, until - seconds * 0.1))
            running = [
                asyncio.create_task(session(number, pool, ships, sessions / 50, until)) for number in range(sessions)
            ]
            while time.monotonic() < until:
                await asyncio.sleep(seconds / 20)
                rss.append(mine.memory_info().rss / 1e6)
            await asyncio.gather(killing, *running)
            ships.note_children()
            began = time.monotonic()
        closing = time.monotonic() - began
    finally:
        for other in ships.ports.values():
            _end(other)
    left = [pid for pid in ships.pids if not gone(pid)]
    print(f"\n{sessions} sessions, {seconds:g} s: {sum(ships.made.values())} calls {dict(ships.made)}")
    print(f"{ships.deaths} deaths of servers, {sum(ships.failed.values())} calls failed {dict(ships.failed)}")
    print(f"rss {[round(value) for value in rss]} MB; closed in {closing:.1f} s")
    print(f"{len(ships.pids)} processes of servers, {len(left)} left")
    print("\n".join(ships.unexplained[:20]))
    assert len(ships.unexplained) == 0
    assert left == [] and not [child for child in mine.children() if VARIABLE in _environment(child)]
    assert ships.deaths >= 2 and sum(ships.made.values()) > sessions
    return rss


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


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
