"""A project folder of one's own and the command line in it, as a user types it: each command is a process.

A command that is only waited for is forked from a process that has imported the command line already; see there.

No command of these tests may end in a traceback or as a defect, whatever it was given, and none may hang.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.forked import forking

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]
BOUND = 45
"""Seconds after which a command is taken to hang."""
DEFECT = 70


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """All it said as one line, for words that may be wrapped."""
        return " ".join(f"{self.out} {self.err}".split())


@dataclass(frozen=True)
class Project:
    """A folder with a `retinue.yaml`, and commands in it."""

    folder: Path
    environ: dict[str, str]

    def write(self, name: str, content: str | bytes) -> Path:
        """Put a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def write_rows(self, name: str, *rows: Any) -> Path:
        """Put a JSONL file into the folder."""
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, name: str) -> list[Any]:
        """The rows of a JSONL file of the folder; none when it is not there."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def start(self, *words: str, wrap: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start `retinue WORDS`; the caller ends it."""
        return subprocess.Popen(
            [*wrap, *COMMAND, *words],
            cwd=self.folder,
            env=self.environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, code: int | None = None, wrap: tuple[str, ...] = ()) -> Said:
        """Run `retinue WORDS` to its end. Fails when it hangs, shows a traceback, or ends with another code."""
        said = self._typed(wrap, words) if wrap else Said(*forking().run(words, self.folder, self.environ, BOUND))
        everything = f"retinue {' '.join(words)}: exit code {said.code}\n{said.out[-3000:]}\n{said.err[-3000:]}"
        assert "Traceback" not in said.out + said.err, everything
        assert said.code != DEFECT, everything
        assert code is None or said.code == code, everything
        return said

    def _typed(self, wrap: tuple[str, ...], words: tuple[str, ...]) -> Said:
        process = self.start(*words, wrap=wrap)
        try:
            out, err = process.communicate(timeout=BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Said(process.returncode, out, err)


def environment() -> dict[str, str]:
    """The environment without any setting of Retinue or Ray in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RETINUE_", "RAY_"))}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


AGENTS = '''
import asyncio
import threading

from pydantic import BaseModel

from retinue import agent, tool


class Question(BaseModel):
    id: str
    question: str


class Place(BaseModel):
    name: str


@tool(side_effect="read")
def find(place: str) -> Place:
    """Find a place."""
    return Place(name=place)


@tool(side_effect="read")
def raises(place: str) -> Place:
    """Fails."""
    raise LookupError(f"no map of {place}")


@tool(side_effect="read", timeout=0.3)
async def hangs(place: str) -> Place:
    """Never ends."""
    await asyncio.Event().wait()
    return Place(name=place)


@tool(side_effect="read", timeout=0.3)
def blocks(place: str) -> Place:
    """Never ends and cannot be stopped: it has a thread of its own."""
    threading.Event().wait(5)
    return Place(name=place)


@tool(side_effect="read")
def floods(place: str) -> str:
    """Returns 50 MB."""
    return "x" * 50_000_000


@tool(side_effect="read")
def lies(place: str) -> Place:
    """Returns a number and not a place."""
    return 42


plain = agent("plain", "Answer the question.")
strict = agent("strict", "Answer the question.", input=Question)
guide = agent("guide", "Use the tools.", tools=[find, raises, hangs, blocks, floods, lies])
broken = agent("broken", "Use the tools.", tools=["teleport"])
'''

SETTINGS = """\
modules: [agents]
default_model: scripted:yes.jsonl
model_timeout: 3.0
retry: {attempts: 2, base: 0.05, cap: 0.2}
"""


def make_project(folder: Path) -> Project:
    """Agents that answer yes, one with tools that misbehave; transient failures are tried twice, quickly."""
    made = Project(folder, environment())
    made.write("retinue.yaml", SETTINGS)
    made.write("agents.py", AGENTS)
    made.write_rows("yes.jsonl", {"match": {}, "decisions": [{"answer": "yes"}]})
    return made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of `make_project` for one test."""
    return make_project(tmp_path / "project")
