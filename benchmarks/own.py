"""Retinue's side of the comparison with its peers, and the floors: one line of JSON a figure, as their scripts print.

Steps run on the inline host and give back 100 characters; children go through two WorkerActors. Started by
peers/run.py, in turn with the peers; what `make bench` measures stands in run.py.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from floors import raw_commits
from peers.measure import CHILDREN, PILOT_STEPS, RUNS, SEQUENTIAL, STEPS, Stopwatch, bytes_in, report
from run import fan_outs, settings_in

from retinue import Client, connect
from retinue.host.collector import calm_collector

INLINE = "inline host"


async def seconds_for(client: Client, target: str, runs: int, steps: int) -> float:
    """Seconds for `runs` concurrent runs of a target with `steps` steps each."""
    with Stopwatch() as watch:
        handles = await asyncio.gather(*(client.submit(target, steps) for _ in range(runs)))
        await asyncio.gather(*(handle.result(300) for handle in handles))
    return watch.seconds


async def measured(runs: int, steps: int, target: str = "payload_steps") -> tuple[float, int]:
    """(seconds, bytes of the closed store)."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        capacity = settings.actors.model_copy(update={"capacity": runs})
        async with connect(local=True, settings=settings.model_copy(update={"actors": capacity})) as client:
            await seconds_for(client, target, 2, 10)
            seconds = await seconds_for(client, target, runs, steps)
        return seconds, bytes_in(Path(folder))


def main() -> None:
    """Floors, steps, fan-out."""
    calm_collector()
    with tempfile.TemporaryDirectory() as folder:
        report("floor_raw_one_row_commits", raw_commits(Path(folder), 1, 1.5), "1/s", "SQLite, 300 bytes a row")
    _, few = asyncio.run(measured(1, PILOT_STEPS))
    seconds, many = asyncio.run(measured(1, SEQUENTIAL))
    report("retinue_steps_1_run", SEQUENTIAL / seconds, "1/s", INLINE)
    report("retinue_bytes_per_step", (many - few) / (SEQUENTIAL - PILOT_STEPS), "B", INLINE)
    seconds, _ = asyncio.run(measured(RUNS, STEPS))
    report("retinue_steps_1000_runs", RUNS * STEPS / seconds, "1/s", f"{INLINE}, {RUNS:,} runs")
    for name, runs, each in (("1_run", 1, SEQUENTIAL), ("1000_runs", RUNS, STEPS)):
        seconds, _ = asyncio.run(measured(runs, each, "payload_calls"))
        report(f"retinue_calls_{name}", runs * each / seconds, "1/s", f"{INLINE}, capability calls: gate and budget")
    for line in asyncio.run(fan_outs(list(CHILDREN))):
        owner = "floor" if line["name"].startswith("plain_ray") else "retinue"
        how = "one actor call a child, not durable" if owner == "floor" else "two WorkerActors"
        report(f"{owner}_{line['name']}", line["value"], line["unit"], how)


if __name__ == "__main__":
    main()
