"""What the scripts of this folder share: the payload, the size of the work, and how a figure is printed.

Plain standard library, as it runs in the peers' environment as well as in Retinue's; knows no engine.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

PAYLOAD = "x" * 100  # what every step gives back
SEQUENTIAL = 2_000  # steps of the one run
RUNS, STEPS = 1_000, 20  # concurrent runs, and steps of each
PILOT_STEPS, PILOT_RUNS = 300, 40  # of the short pilots that choose between ways of using one engine
CHILDREN = (1_000, 10_000)  # the second only where the first promises less than FAN_OUT_LIMIT for it
FAN_OUT_LIMIT = 120.0  # seconds
RUNS_LIMIT = 60.0  # seconds for the concurrent runs: fewer of them where a pilot promises more


def report(name: str, value: float, unit: str, how: str) -> None:
    """Print one figure as a line of JSON; `how` says which way of using the engine it is."""
    print(json.dumps({"name": name, "value": value, "unit": unit, "how": how}), flush=True)


def runs_within_the_limit(pilot_runs: int, pilot_seconds: float) -> int:
    """How many runs of STEPS steps fit RUNS_LIMIT at the rate of a pilot: RUNS at most."""
    return max(pilot_runs, min(RUNS, int(pilot_runs * RUNS_LIMIT / pilot_seconds)))


def counts_within_the_limit(seconds_of_first: float) -> list[int]:
    """The larger fan-outs that the first one promises to finish in time."""
    return [count for count in CHILDREN[1:] if seconds_of_first * count / CHILDREN[0] < FAN_OUT_LIMIT]


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder, write-ahead logs included."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Stopwatch:
    """`with Stopwatch() as watch: ...`, then `watch.seconds`."""

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
