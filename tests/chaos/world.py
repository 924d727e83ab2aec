"""The folder that chaos works in: project, script of the model, rows of the waves, and the data folder's small disk.

Owns what is on disk and the mount. Knows no process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import work
from tests.doubles.processes import ROOT
from tests.doubles.projects import decides, project

from retinue.host.settings import Settings

LEASE = 5.0
"""Seconds a host may be silent."""
DISK = 1024
"""Megabytes of the small disk."""


@dataclass(frozen=True, slots=True)
class World:
    """Where everything is. `disk` tells why the data folder has no disk of its own, None when it has."""

    folder: Path
    settings: Settings
    no_disk: str | None

    @property
    def log(self) -> Path:
        """The log of effects."""
        return self.folder / "effects.log"

    def rows(self, wave: int, count: int, chance: random.Random) -> tuple[Path, list[str]]:
        """The input file of a wave, and the ids in it."""
        path = self.folder / f"rows-{wave}.jsonl"
        lines = [_row(wave, number, chance) for number in range(count)]
        path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        return path, [str(line["id"]) for line in lines]


def _row(wave: int, number: int, chance: random.Random) -> dict[str, object]:
    return {
        "id": f"w{wave}-{number}",
        "n": number,
        "width": chance.randint(1, 5),
        "join": chance.choice(sorted(work.JOINS)),
        "pause": chance.choice([0, 0, 0.2, 1, 6]),
        "ask": chance.random() < 0.05,
    }


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Make the project; what was mounted is unmounted at the end."""
    settings = project(
        folder,
        *_script(),
        modules=["tests.chaos.work"],
        settings={
            "actors": {"runs": 1, "workers": 2, "lease_seconds": LEASE, "capacity": 1200},
            "retry": {"attempts": 6, "base": 0.1, "cap": 2.0},
        },
    )
    settings.data_folder.mkdir(parents=True)
    no_disk = _mount(settings.data_folder)
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    before = os.environ.get("PYTHONPATH")
    os.environ |= {work.LOG: str(folder / "effects.log"), "PYTHONPATH": paths}
    try:
        yield World(folder, settings, no_disk)
    finally:
        del os.environ[work.LOG], os.environ["PYTHONPATH"]
        os.environ |= {} if before is None else {"PYTHONPATH": before}
        if no_disk is None:
            subprocess.run(["umount", "--lazy", str(settings.data_folder)], check=False, timeout=30)


def _mount(folder: Path) -> str | None:
    """Give a folder a small disk of its own (in memory); returns why that cannot be."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "retinue-chaos", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError as error:
        return f"no mount here: {error}"
    return None if done.returncode == 0 else f"mount is not permitted: {done.stderr.strip()}"


def _script() -> list[dict[str, object]]:
    """Two turns of tools and an answer; each call costs, so that money counts."""
    usage = {"input_tokens": 300, "output_tokens": 30}

    def call(*names: str) -> list[dict[str, object]]:
        return [{"name": name, "arguments": {"text": f"{name} of an agent"}} for name in names]

    first = {"tool_calls": call("look_up", "put"), "usage": {**usage, "usd": 0.001}, "latency_ms": 30}
    second = {"tool_calls": call("file"), "usage": {**usage, "usd": work.MODEL_CALL_USD}, "latency_ms": 60}
    last = {"answer": "filed", "usage": {**usage, "usd": 0.0005}, "latency_ms": 30}
    return [decides(first, second, last, agent="clerk"), decides(first, last, agent="miser")]
