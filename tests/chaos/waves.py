"""Batches, one after another, each by the real command line in a process that may be killed and resumes.

Owns these processes and what they wrote. Knows no fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys

from tests.chaos.history import Wave, read_lines
from tests.chaos.world import World

COMMAND = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]
_ROWS = 40
_AGAIN = {-9, 3, 6}
"""Exit codes after which a batch is resumed: killed, a person was asked, the runtime or the store was not there."""


class Waves:
    """`done` are the batches that ended, `faults` what a command line said that it should not."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._process: subprocess.Popen[str] | None = None
        self._may = asyncio.Event()
        self.address = ""
        self.done: list[Wave] = []
        self.faults: list[str] = []
        self.starts = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Run batches until told to stop; the last one is brought to its end."""
        wave = 0
        while not stopping.is_set():
            await self._wave(wave)
            wave += 1

    def pause(self) -> None:
        """Kill the batch's process and start none until `go_on`."""
        self._may.clear()
        self.kill()

    def go_on(self, address: str) -> None:
        """Start batches on the Ray at that address."""
        self.address = address
        self._may.set()

    def kill(self) -> int | None:
        """SIGKILL the process of the batch; its pid, or None when there is none."""
        if self._process is None or self._process.poll() is not None:
            return None
        self._process.kill()
        return self._process.pid

    async def call(self, *words: str, timeout: float = 120) -> tuple[int, str, str]:
        """Run another command of the project: exit code, what it printed, what it noted."""
        process = self._start(words)
        out, err = await asyncio.to_thread(process.communicate, timeout=timeout)
        return process.returncode, out, err

    async def _wave(self, wave: int) -> None:
        path, ids = self._world.rows(wave, _ROWS, self._chance)
        output = self._world.folder / f"out-{wave}.jsonl"
        words = ["batch", "clerk" if wave % 3 == 2 else "row", "--input", str(path), "--output", str(output)]
        words += ["--concurrency", "24", "--resume", "--json"]
        words += ["--max-cost", "0.4"] if wave % 3 == 2 else []
        while True:
            await self._may.wait()
            self._process = self._start(words)
            self.starts += 1
            out, err = await asyncio.to_thread(self._process.communicate)
            code = self._process.returncode
            if code in (0, 1):
                said = [line for line in out.splitlines() if line.startswith("{")]  # a raylet may speak too
                self.done.append(Wave(json.loads(said[-1])["job_id"], tuple(ids), read_lines(output)))
                return
            if code not in _AGAIN:
                self.faults.append(f"wave {wave}: exit code {code}: {err.strip()[-2000:]}")
                return
            await asyncio.sleep(0.3)

    def _start(self, words: list[str] | tuple[str, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self._world.folder,
            env={**os.environ, "RAY_ADDRESS": self.address},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
