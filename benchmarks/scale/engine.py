"""Probes of Retinue itself: what a step, a parked run and a projected frame cost its own processes, and real figures.

Hosts are inline hosts, without Ray; `store` is the address of a PostgreSQL store, None the SQLite store of a data
folder. Knows nothing of the model.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts beside this folder are no package

from benchmarks.scale.probe import busy_seconds
from benchmarks.scale.store_probe import writer_cpu
from run import settings_in

from retinue import Client, connect
from retinue.host.collector import calm_collector
from retinue.host.composition import open_traces
from retinue.host.opening import open_store
from retinue.host.projecting import catch_up
from retinue.host.settings import Settings


@dataclass(frozen=True)
class Steps:
    """What steps cost: how many a second, CPU seconds of loop and writer for each, what others used of the machine."""

    rate: float
    loop: float
    writer: float
    others: float


def settings_for(folder: Path, store: str | None, capacity: int) -> Settings:
    """The benchmark project, on a store."""
    settings = settings_in(folder)
    actors = settings.actors.model_copy(update={"capacity": capacity})
    return settings.model_copy(update={"actors": actors} | ({"store": store} if store else {}))


def measure_steps(store: str | None, runs: int, steps: int) -> Steps:
    """Durable no-op steps of `runs` concurrent runs on one inline host."""
    calm_collector()
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_steps(settings_for(Path(folder), store, max(2, runs)), runs, steps))


async def _steps(settings: Settings, runs: int, steps: int) -> Steps:
    async with connect(local=True, settings=settings) as client:
        await _all(client, "payload_steps", 2, 10)
        writer, own, busy, started = writer_cpu(), time.process_time(), busy_seconds(), time.perf_counter()
        await _all(client, "payload_steps", runs, steps)
        elapsed, own = time.perf_counter() - started, time.process_time() - own
        writer, others = writer_cpu() - writer, (busy_seconds() - busy - own) / (elapsed * (os.cpu_count() or 1))
    done = runs * steps
    return Steps(done / elapsed, (own - writer) / done, writer / done, max(0.0, others))


async def _all(client: Client, target: str, runs: int, value: int) -> None:
    handles = await asyncio.gather(*(client.submit(target, value) for _ in range(runs)))
    await asyncio.gather(*(handle.result(300) for handle in handles))


def projector_cpu(runs: int = 500, steps: int = 20) -> float:
    """CPU seconds to project one frame of a journal into the trace tables."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_project(settings_for(Path(folder), None, runs), runs, steps))


async def _project(settings: Settings, runs: int, steps: int) -> float:
    async with connect(local=True, settings=settings) as client:
        await _all(client, "payload_steps", runs, steps)
    store = open_store(settings)
    async with open_traces(settings, store) as traces:
        started = time.process_time()
        frames = await catch_up(traces)
        used = time.process_time() - started
    await store.close()
    return used / frames


def rows_seconds(store: str, nodes: int, rows: int, capacity: int) -> float:
    """Seconds of one fan-out of half-second rows over `nodes` host processes that share a store."""
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Barrier(nodes)
    others = [context.Process(target=_serve, args=(store, capacity, ready, stop)) for _ in range(nodes - 1)]
    for other in others:
        other.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_rows(settings_for(Path(folder), store, capacity), rows, ready))
    finally:
        stop.set()
        for other in others:
            other.join(30)


async def _rows(settings: Settings, rows: int, ready: Any) -> float:
    async with connect(local=True, settings=settings) as client:
        await asyncio.to_thread(ready.wait, 60)
        started = time.perf_counter()
        assert await (await client.submit("slow_rows", rows)).result(300) == rows * (rows - 1) // 2
        return time.perf_counter() - started


def _serve(store: str, capacity: int, ready: Any, stop: Any) -> None:
    async def serve(folder: Path) -> None:
        async with connect(local=True, settings=settings_for(folder, store, capacity)):
            await asyncio.to_thread(ready.wait, 60)
            await asyncio.to_thread(stop.wait, 300)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(Path(folder)))
