"""Projects and command lines for tests on a real Ray: each starts its own runtime, one at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from retinue.ingress.cli import main; main()"]
BOUND = 110


@dataclass
class CommandLine:
    """The command line in a project folder."""

    folder: Path
    environ: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command; the caller waits for it or kills it."""
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end and return what it printed; fails on another exit code."""
        process = self.start(*words)
        out, err = process.communicate(timeout=BOUND)
        assert process.returncode == code, f"{words}: exit code {process.returncode}\n{out}\n{err}"
        return out

    def json(self, *words: str) -> Any:
        """The JSON a command prints with --json."""
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def research(tmp_path: Path) -> Iterator[CommandLine]:
    """A copy of the research example with a data folder of its own, and no runtime left behind."""
    folder = tmp_path / "research"
    shutil.copytree(ROOT / "examples" / "research", folder, ignore=shutil.ignore_patterns(".retinue", "out"))
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RETINUE_ACTORS__WORKERS": "2"}
    environ.pop("RAY_ADDRESS", None)
    line = CommandLine(folder, environ)
    yield line
    line.start("down").communicate(timeout=BOUND)
