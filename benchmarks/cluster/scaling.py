"""Rows per second on one, two and three nodes where rows wait for a slow model, with the CPU that it took.

The endpoint holds any number of calls, so what limits is the capacity of the worker actors: one a node.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from benchmarks.cluster import projects
from benchmarks.cluster.equality import on_nodes
from benchmarks.cluster.stage import ADDRESSES, ROOT, Stage
from tests.doubles.machines import LAPTOP

_PORT = 8100
_RATE = """
SELECT count(*), min(started_at), max(finished_at),
  percentile_cont(0.5) WITHIN GROUP (ORDER BY finished_at - started_at)
FROM runs WHERE target = 'waiter' AND status = 'completed'
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """`capacity` runs a worker actor, `turns` model calls a row of `delay` seconds each, `waves` of rows."""

    capacity: int = 8
    turns: int = 2
    delay: float = 0.5
    waves: int = 12

    @property
    def ceiling(self) -> float:
        """Rows per second of one node that loses no moment between two calls."""
        return self.capacity / (self.turns * self.delay)


@contextmanager
def slow_model(stage: Stage, shape: Shape) -> Iterator[str]:
    """The endpoint on the laptop; the model's name."""
    words = ["-m", "benchmarks.cluster.slow_model", LAPTOP, str(_PORT), str(shape.delay), str(shape.turns)]
    paths = f"PYTHONPATH={ROOT / 'src'}:{ROOT}"
    server = stage.cluster.start(["env", paths, sys.executable, *words], folder="/tmp")
    try:
        assert server.stdout is not None
        yield f"{server.stdout.readline().strip()}/v1#slow"
    finally:
        stage.cluster.interrupt(server)


def measure(stage: Stage, shape: Shape) -> list[dict[str, Any]]:
    """A figure for each number of nodes; starts the nodes one after the other."""
    figures: list[dict[str, Any]] = []
    with slow_model(stage, shape) as model:
        for count, address in enumerate(ADDRESSES, start=1):
            stage.start_node(address)
            figures.append(_figure(stage, shape, model, count))
            figures[-1]["of_linear"] = round(figures[-1]["rows_per_s"] / figures[0]["rows_per_s"] / count, 3)
    return figures


def _figure(stage: Stage, shape: Shape, model: str, count: int) -> dict[str, Any]:
    name = f"scaling{count}"
    rows = count * shape.capacity * shape.waves
    folder = projects.waiting(stage.folder / name, rows)
    actors = {"runs": 1, "workers": count, "capacity": shape.capacity, "lease_seconds": 15}
    projects.settle(folder, ["waiting"], stage.database(name), default_model=model, actors=actors)
    busy, began = psutil.cpu_times(), time.monotonic()
    said = on_nodes(stage, folder, "waiter", ["--concurrency", str(4 * count * shape.capacity)])
    wall = time.monotonic() - began
    with stage.connect(name) as connection:
        row = connection.execute(_RATE).fetchone()
        hosts = connection.execute("SELECT count(DISTINCT node) FROM hosts WHERE kind = 'worker'").fetchone()
    assert row is not None and hosts is not None
    assert (row[0], hosts[0]) == (rows, count), f"{row[0]} of {rows} rows on {hosts[0]} of {count} nodes: {said}"
    rate = rows / ((row[2] - row[1]) / 1e9)
    return {
        "nodes": count,
        "rows": rows,
        "rows_per_s": round(rate, 2),
        "of_ceiling": round(rate / (shape.ceiling * count), 3),
        "row_p50_s": round(float(row[3]) / 1e9, 2),
        "cpus_busy": round(_busy(busy, psutil.cpu_times()) / wall, 2),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def _busy(before: Any, after: Any) -> float:
    return sum(after) - sum(before) - (after.idle - before.idle) - (after.iowait - before.iowait)
