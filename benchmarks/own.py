"""Retinue's side of the comparison with its peers, and the floors: one line of JSON a figure, as their scripts print.

    own.py sqlite | postgres

Steps run on the inline host and give back 100 characters; children go through two WorkerActors. On PostgreSQL the
server is the one that the peers get. Started by peers/run.py, in turn with the peers; what `make bench` measures
stands in run.py.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from floors import raw_commits, raw_postgres_commits
from peers.measure import CHILDREN, PILOT_STEPS, RUNS, SEQUENTIAL, STEPS, Stopwatch, bytes_in, report
from peers.servers import given_server, postgres_bytes
from run import fan_outs, settings_in

from retinue import Client, connect
from retinue.host.collector import calm_collector

INLINE = "inline host"


@dataclass(frozen=True)
class Side:
    """The store that is measured: how its figures begin, and a new one (its URL, or None for a file of its own)."""

    prefix: str
    fresh: Callable[[], str | None]


async def seconds_for(client: Client, target: str, runs: int, steps: int) -> float:
    """Seconds for `runs` concurrent runs of a target with `steps` steps each."""
    with Stopwatch() as watch:
        handles = await asyncio.gather(*(client.submit(target, steps) for _ in range(runs)))
        await asyncio.gather(*(handle.result(300) for handle in handles))
    return watch.seconds


async def measured(side: Side, runs: int, steps: int, target: str = "payload_steps") -> tuple[float, int]:
    """(seconds, bytes of the closed store)."""
    url = side.fresh()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        capacity = settings.actors.model_copy(update={"capacity": runs})
        changed = settings.model_copy(update={"actors": capacity, "store": url})
        async with connect(local=True, settings=changed) as client:
            await seconds_for(client, target, 2, 10)
            seconds = await seconds_for(client, target, runs, steps)
        return seconds, bytes_in(Path(folder)) if url is None else postgres_bytes(url)


def measure(side: Side) -> None:
    """Steps, calls and fan-out on one store."""
    _, few = asyncio.run(measured(side, 1, PILOT_STEPS))
    seconds, many = asyncio.run(measured(side, 1, SEQUENTIAL))
    report(f"{side.prefix}_steps_1_run", SEQUENTIAL / seconds, "1/s", INLINE)
    report(f"{side.prefix}_bytes_per_step", (many - few) / (SEQUENTIAL - PILOT_STEPS), "B", INLINE)
    seconds, _ = asyncio.run(measured(side, RUNS, STEPS))
    report(f"{side.prefix}_steps_1000_runs", RUNS * STEPS / seconds, "1/s", f"{INLINE}, {RUNS:,} runs")
    for name, runs, each in (("1_run", 1, SEQUENTIAL), ("1000_runs", RUNS, STEPS)):
        seconds, _ = asyncio.run(measured(side, runs, each, "payload_calls"))
        report(
            f"{side.prefix}_calls_{name}", runs * each / seconds, "1/s", f"{INLINE}, capability calls: gate and budget"
        )
    for line in asyncio.run(fan_outs(list(CHILDREN), side.fresh())):
        owner = "floor" if line["name"].startswith("plain_ray") else side.prefix
        how = "one actor call a child, not durable" if owner == "floor" else "two WorkerActors"
        report(f"{owner}_{line['name']}", line["value"], line["unit"], how)


def main(engine: str) -> None:
    """The floor of a store, then what Retinue does on it."""
    calm_collector()
    if engine == "postgres":
        with given_server() as server:
            for name, rows in (("one_row", 1), ("group", 100)):
                rate = raw_postgres_commits(server.fresh(), rows, 1.5)
                report(f"floor_postgres_{name}_commits", rate, "1/s", f"{rows} rows of 300 bytes a transaction")
            measure(Side("retinue_postgres", server.fresh))
        return
    with tempfile.TemporaryDirectory() as folder:
        report("floor_raw_one_row_commits", raw_commits(Path(folder), 1, 1.5), "1/s", "SQLite, 300 bytes a row")
    measure(Side("retinue", lambda: None))


if __name__ == "__main__":
    main(sys.argv[1])
