"""Measures durable steps and fan-out against their floors, and writes benchmarks/results.json.

    python benchmarks/run.py [--quick]

Steps are measured on the inline host (one process), fan-out on a runtime with one RunActor and two WorkerActors.
The trace tables are not projected meanwhile: they are derived, by a process of their own, whenever there is time.
Every figure is the median of several rounds of the same run as its floor; ratios are what to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from floors import plain_ray, raw_commits
from peers.table import merged

from retinue import Client, connect
from retinue.host.collector import calm_collector
from retinue.host.settings import Settings, load_settings

HERE = Path(__file__).parent
ROUNDS = 3
Result = dict[str, Any]


def settings_in(folder: Path) -> Settings:
    """The benchmark project with a fresh data folder."""
    settings = load_settings(HERE)
    quiet = settings.telemetry.model_copy(update={"emit_structured_events": False})
    return settings.model_copy(update={"data": folder, "telemetry": quiet})


async def steps_per_second(runs: int, steps: int) -> float:
    """Durable no-op steps per second with `runs` concurrent runs on the inline host."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        capacity = settings.actors.model_copy(update={"capacity": runs})
        async with connect(local=True, settings=settings.model_copy(update={"actors": capacity})) as client:
            await run_all(client, 2, 10)
            return runs * steps / await run_all(client, runs, steps)


async def run_all(client: Client, runs: int, steps: int) -> float:
    """Seconds from the first submission to the last result."""
    started = time.perf_counter()
    handles = await asyncio.gather(*(client.submit("steps", steps) for _ in range(runs)))
    await asyncio.gather(*(handle.result(300) for handle in handles))
    return time.perf_counter() - started


async def fan_outs(counts: list[int], store: str | None = None) -> list[Result]:
    """Seconds for durable children through WorkerActors, and for plain Ray calls on the same Ray."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder)).model_copy(update={"store": store})
        async with connect(settings=settings) as client:
            await (await client.submit("fan_out", 2_000)).result(120)
            for count in counts:
                durable, plain = [], []
                for _ in range(ROUNDS):
                    started = time.perf_counter()
                    total = await (await client.submit("fan_out", count)).result(300)
                    durable.append(time.perf_counter() - started)
                    assert total == count * (count - 1) // 2
                    plain.append(await asyncio.to_thread(plain_ray, count))
                results += compared(count, statistics.median(durable), statistics.median(plain))
    return results


def compared(count: int, durable: float, plain: float) -> list[Result]:
    """The rows of one fan-out."""
    return [
        row(f"plain_ray_{count}", plain, "s", None, None),
        row(f"fanout_{count}", durable, "s", f"plain_ray_{count}", durable / plain),
    ]


def row(name: str, value: float, unit: str, against: str | None, ratio: float | None) -> Result:
    """One line of results.json."""
    return {
        "name": name,
        "value": round(value, 4 if unit == "s" else 1),
        "unit": unit,
        "against": against,
        "ratio": None if ratio is None else round(ratio, 3),
    }


def measure_steps(quick: bool) -> list[Result]:
    """Steps with 1, 100 and 1,000 runs, each beside its floor."""
    figures: dict[str, list[float]] = {}
    plan = {"steps_1_run": (1, 2_000), "steps_100_runs": (100, 200), "steps_1000_runs": (1_000, 50)}
    for _ in range(1 if quick else ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            figures.setdefault("raw_one_row_commits", []).append(raw_commits(Path(folder), 1, 1.5))
            figures.setdefault("raw_group_commits", []).append(raw_commits(Path(folder), 100, 1.5))
        for name, (runs, steps) in plan.items():
            figures.setdefault(name, []).append(asyncio.run(steps_per_second(runs, steps)))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    floors = {"steps_1_run": "raw_one_row_commits"}
    return [
        row(name, value, "1/s", against, value / medians[against] if against else None)
        for name, value in medians.items()
        for against in [floors.get(name, "raw_group_commits") if name.startswith("steps") else None]
    ]


def main() -> None:
    """Measure, print a table, write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the steps")
    quick = parser.parse_args().quick
    calm_collector()
    results = measure_steps(quick) + asyncio.run(fan_outs([1_000, 10_000]))
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps(merged(known, results), indent=1) + "\n")
    print(f"Python {platform.python_version()} on {platform.machine()}")
    for line in results:
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.3f} of {line['against']}"
        print(f"{line['name']:22} {line['value']:>12,} {line['unit']:4} {ratio}")


if __name__ == "__main__":
    main()
