"""Projects and command lines for tests on a real Ray: each starts its own runtime, one at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.forked import forking

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]
BOUND = 110
ASKING = """
import contextlib, io, json, sys
from retinue.ingress.cli import main
for line in sys.stdin:
    said, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(said):
            main(json.loads(line))
    except SystemExit as end:
        code = end.code
    print("asked", json.dumps([code, said.getvalue()]), flush=True)
"""


@dataclass
class CommandLine:
    """The command line in a project folder."""

    folder: Path
    environ: dict[str, str]
    asked: subprocess.Popen[str] | None = None

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
        ended, out, err = forking().run(words, self.folder, self.environ, BOUND)
        assert ended == code, f"{words}: exit code {ended}\n{out}\n{err}"
        return out

    def json(self, *words: str) -> Any:
        """The JSON a command prints with --json."""
        return json.loads(self.run(*words, "--json"))

    def ask(self, *words: str) -> Any:
        """The same of a command that is asked again and again: by one process, since most of a command is its start."""
        if self.asked is None:
            self.asked = subprocess.Popen(
                [sys.executable, "-c", ASKING],
                cwd=self.folder,
                env=self.environ,
                text=True,
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
            )
        assert self.asked.stdin is not None and self.asked.stdout is not None
        self.asked.stdin.write(json.dumps([*words, "--json"]) + "\n")
        self.asked.stdin.flush()
        told = next((line for line in self.asked.stdout if line.startswith("asked ")), "")
        code, said = json.loads(told.removeprefix("asked "))
        assert code == 0, f"{words}: exit code {code}\n{said}"
        return json.loads(said)

    def close(self) -> None:
        """Stop what is running, and what is asked."""
        self.start("down").communicate(timeout=BOUND)
        if self.asked is not None:
            self.asked.communicate(timeout=BOUND)


@contextmanager
def research_in(folder: Path) -> Iterator[CommandLine]:
    """A copy of the research example with a data folder of its own, and no runtime left behind."""
    shutil.copytree(ROOT / "examples" / "research", folder, ignore=shutil.ignore_patterns(".retinue", "out"))
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RETINUE_ACTORS__WORKERS": "2"}
    environ.pop("RAY_ADDRESS", None)
    line = CommandLine(folder, environ)
    yield line
    line.close()


@pytest.fixture
def research(tmp_path: Path) -> Iterator[CommandLine]:
    """The research example of one test."""
    with research_in(tmp_path / "research") as line:
        yield line


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """The research example of a module: each test says `up`, which starts a runtime or finds that of the one before."""
    with research_in(tmp_path_factory.mktemp("standing") / "research") as line:
        yield line
