"""The folder that chaos works in: project, script of the model, rows of the waves, the store and its small disk.

Owns what is on disk, the mount and the server. Knows no process of the runtime.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import work
from tests.chaos.stores import DatabaseSeen, FileSeen, Kind
from tests.doubles.postgres import PostgresServer
from tests.doubles.processes import ROOT
from tests.doubles.projects import decides, project

from retinue.host.settings import Settings

LEASE = 5.0
"""Seconds a host may be silent."""
DISK = 1024
"""Megabytes of the small disk."""


@dataclass(frozen=True, slots=True)
class World:
    """Where everything is. `no_disk` tells why the store has no disk of its own, None when it has."""

    folder: Path
    settings: Settings
    store: FileSeen | DatabaseSeen
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
def world(folder: Path, kind: Kind = "sqlite") -> Iterator[World]:
    """Make the project and its store; what was mounted or started is gone at the end."""
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer()) if kind == "postgres" else None
        url = None if server is None else server.fresh()
        settings = _project(folder, url)
        store = FileSeen(settings.data_folder) if server is None or url is None else DatabaseSeen(url, server)
        settings.data_folder.mkdir(parents=True)
        no_disk = _mount(settings.data_folder) if server is None else "the store is a server's"
        if no_disk is None:
            command = ["umount", "--lazy", str(settings.data_folder)]
            stack.callback(subprocess.run, command, check=False, timeout=30)
        stack.enter_context(_environment(folder))
        yield World(folder, settings, store, no_disk)


def _project(folder: Path, url: str | None) -> Settings:
    return project(
        folder,
        *_script(),
        modules=["tests.chaos.work"],
        settings={
            "actors": {"runs": 1, "workers": 2, "lease_seconds": LEASE, "capacity": 1200},
            "retry": {"attempts": 6, "base": 0.1, "cap": 2.0},
            "store": url,
        },
    )


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """What every process of the runtime finds in its environment."""
    before = os.environ.get("PYTHONPATH")
    os.environ |= {work.LOG: str(folder / "effects.log"), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    try:
        yield
    finally:
        del os.environ[work.LOG], os.environ["PYTHONPATH"]
        os.environ |= {} if before is None else {"PYTHONPATH": before}


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
