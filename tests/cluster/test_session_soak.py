"""Two hundred runs at once in one actor, each with a capability session, over mixed servers that die at random.

For two minutes: no call fails but of a server that had just died, no run does, no process of a server is left, and the
actor does not grow. Prints its figures (make test-long).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from tests.doubles.fleet import Fleet, fleet, kill_at_random, marked
from tests.doubles.projects import project

from retinue.host.clock import now_ns
from retinue.host.opening import open_store
from retinue.host.settings import Settings
from retinue.ingress.client import Client, RunHandle
from retinue.ingress.connecting import connect
from retinue.runs.control import SessionQuery
from retinue.runs.journal import Attempt, Leased, Outcome
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.pins import pin, write_lock
from retinue.store.opening import CACHE_KIB
from retinue.store.store import Store

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
RUNS = 200
GROWTH = 15.0
"""MB that the actor may have more in the last third than in the first, without the pages that its store keeps."""
FLOW = """
import asyncio
import random
import time

from retinue import Context, workflow
from retinue.runs.errors import EffectError


async def rest(pause: float) -> float:
    await asyncio.sleep(random.uniform(0.0, pause))
    return time.monotonic()


@workflow
async def sail(ctx: Context, given: dict, state: dict | None) -> dict:
    log = state or given
    while True:
        log["count"] += 1
        wanted = {"result": log["number"] * 100_000 + log["count"]}
        try:
            if log["count"] % 7 == 0:
                wanted = {"result": "done"}
                said = await ctx.call(f"{log['server']}__slow", seconds=0.2)
            else:
                said = await ctx.call(f"{log['server']}__add", a=log["number"] * 100_000, b=log["count"])
            log["made"] += 1
            if said != wanted:
                log["wrong"].append([said, wanted])
        except EffectError as error:
            log["failed"].append([log["began"], error.code, str(error)[:300]])
        log["began"] = await ctx.step(rest, log["pause"])
        if log["failed"] and len(log["failed"][-1]) == 3:
            log["failed"][-1].append(log["began"])
        if log["began"] > log["until"]:
            return log
        if log["count"] % 10 == 0:
            await ctx.checkpoint("leg", log)
"""


@dataclass
class Journals:
    """What the journals of all runs say: the processes that hosted them, and what failed."""

    pids: set[int] = field(default_factory=set)
    tries: list[tuple[str, float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def read(self, store: Store, run_id: str, offset: float) -> None:
        """`offset`: the wall clock less the monotonic one."""
        async for frame in store.read(run_id):
            for entry in frame.entries:
                if isinstance(entry, Leased):
                    self.pids.add(entry.pid)
                elif isinstance(entry, Attempt):
                    server = entry.key.rpartition("/")[2].partition("__")[0]
                    self.tries.append((server, entry.at / 1e9 - offset, f"{entry.error.code}: {entry.error.message}"))
                elif isinstance(entry, Outcome) and entry.effect == "call" and entry.result != "ok":
                    self.failed.append(entry.key)


async def project_with(folder: Path, ships: Fleet) -> Settings:
    """A project whose servers are those of the fleet, all pinned; what their tools do is read."""
    reads = {name: {"side_effect": "read"} for name in ("add", "slow")}
    settings = project(
        folder,
        modules=["sailing"],
        settings={
            "capabilities": {name: {**given, "tools": reads} for name, given in ships.servers().items()},
            "actors": {"runs": 1, "workers": 1, "capacity": RUNS + 56},
            "max_tool_hops": 1_000_000,
            "telemetry": {"emit_structured_events": False},
        },
    )
    (folder / "sailing.py").write_text(FLOW)
    pool = McpConnections(os.environ)
    try:
        listings = await asyncio.gather(*(pool.list_tools(server) for server in settings.servers.values()))
    finally:
        await pool.close()
    for server, listing in zip(settings.servers.values(), listings, strict=True):
        write_lock(folder, server.name, pin(server, listing, "ana", "2026-01-02T03:04:05Z"))
    return settings


async def actor_of(store: Store) -> psutil.Process:
    """The process of the one actor that hosts top-level runs."""
    async with asyncio.timeout(60):
        while True:
            for _, kind, pid, *_ in await store.hosts():
                if kind == "run" and psutil.pid_exists(pid):
                    return psutil.Process(pid)
            await asyncio.sleep(0.1)


async def submitted(client: Client, ships: Fleet, until: float) -> list[RunHandle]:
    """Two hundred runs, dealt out over the servers."""
    names = list(ships.servers())
    logs: list[dict[str, Any]] = [
        {"number": n, "server": names[n % len(names)], "count": 0, "made": 0, "pause": RUNS / 50, "until": until}
        for n in range(RUNS)
    ]
    return [await client.submit("sail", {**log, "wrong": [], "failed": [], "began": 0.0}) for log in logs]


async def watched(actor: psutil.Process, store: Store, until: float) -> tuple[list[float], int]:
    """The actor's memory without its store's pages (MB) over the time, and how many sessions were open at once."""
    rss, most, file = [], 0, store.folder / "store.db"
    while time.monotonic() < until:
        await asyncio.sleep(SECONDS / 30)
        rss.append((actor.memory_info().rss - min(CACHE_KIB * 1024, file.stat().st_size)) / 1e6)
        most = max(most, len(await store.sessions(SessionQuery(open_only=True, limit=1_000))))
    return rss, most


def unexplained(ships: Fleet, logs: list[dict[str, Any]], journals: Journals) -> list[str]:
    """Failed calls and tries of servers that had not just died, and wrong answers."""
    found = [f"{log['server']} said {said} for {wanted}" for log in logs for said, wanted in log["wrong"]]
    for log in logs:
        for began, code, text, ended in log["failed"]:
            if not ships.explains(log["server"], began, ended):
                found.append(f"{log['server']} failed: {code}: {text}")
    return found + [
        f"{name} was tried: {text}" for name, at, text in journals.tries if not ships.explains(name, at, at)
    ]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.promise("D4", "D5", "B2")
async def test_two_hundred_runs_in_one_actor_over_dying_servers_for_two_minutes(tmp_path: Path) -> None:
    random.seed(5)
    ships, journals = fleet(8), Journals()
    settings = await project_with(tmp_path, ships)
    offset = now_ns() / 1e9 - time.monotonic()
    store = open_store(settings)
    try:
        async with connect(settings=settings) as client:
            actor = await actor_of(store)
            until = time.monotonic() + SECONDS
            handles = await submitted(client, ships, until)
            killing = asyncio.create_task(kill_at_random(ships, actor, 2.0, until - SECONDS * 0.1))
            rss, most = await watched(actor, store, until)
            await killing
            logs = [await handle.result(timeout=120) for handle in handles]
            records = [await store.get(handle.run_id) for handle in handles]
            for handle in handles:
                await journals.read(store, handle.run_id, offset)
            ships.note_children(actor)
        psutil.wait_procs([actor], timeout=20)
    finally:
        await store.close()
        ships.close()
    made: Counter[str] = Counter()
    for log in logs:
        made[log["server"].rpartition("-")[0]] += log["made"]
    codes = Counter(code for log in logs for _, code, *_ in log["failed"])
    first, last = median(rss[: len(rss) // 3]), median(rss[-(len(rss) // 3) :])
    print(f"\n{RUNS} runs in {len(journals.pids)} actor(s), {most} sessions open at once, {SECONDS:g} s")
    print(f"{sum(made.values())} calls {dict(made)}; {ships.deaths} deaths of servers")
    print(f"{len(journals.tries)} tries failed, {sum(codes.values())} calls failed {dict(codes)}")
    print(f"rss {[round(value) for value in rss]} MB: {first:.0f} in the first third, {last:.0f} in the last")
    print(f"{len(ships.pids)} processes of servers, {len(ships.left())} left")
    strange = unexplained(ships, logs, journals)
    print("\n".join(strange[:20]))
    assert {record.status for record in records} == {"completed"}
    assert journals.pids == {actor.pid} and most == RUNS
    assert strange == []
    assert ships.left() == [] and marked(actor.pid) == []
    assert last - first < GROWTH, rss
    assert ships.deaths >= SECONDS / 4 and sum(made.values()) > 4 * RUNS
