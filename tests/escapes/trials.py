"""Runs the attempts through real backends and judges what came of them.

Owns the confinements, as whom they are tried, and the judgement: `open` when the attempt got what it wanted, `stopped`
when it did not, `limited` when it got some of it for a moment.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tests.escapes.planting import Planted, planted

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends.bubblewrap import Bubblewrap, find_program
from retinue.sandbox.backends.cgroups import find
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.landlock import Landlock, version
from retinue.sandbox.backends.launching import Launcher
from retinue.sandbox.backends.port import Backend, Place, Surroundings
from retinue.sandbox.backends.running import Output
from retinue.sandbox.backends.unconfined import Unconfined
from retinue.sandbox.profiles import STRICT, UNCONFINED, Limits, Profile

State = Literal["stopped", "limited", "open"]
UID = 64001 if os.geteuid() == 0 else None
"""The user of the sandbox that makes the attempts."""

CONFINEMENTS = ("bubblewrap", "landlock", "unconfined")
MODULES = ("files", "processes", "kernel", "network")
INSIDE = Path(__file__).with_name("inside")
IN_SECRET = "RETINUE_ESCAPE_TOKEN"
"""A variable of the host."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt; `said` is what it got, or what stopped it."""

    state: State
    said: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A confinement with a workspace."""

    backend: Backend
    profile: Profile
    workspace: Path
    held: frozenset[str]

    @property
    def place(self) -> Place:
        return Place(self.workspace, UID)

    def limited(self, **limits: Any) -> Cell:
        """The same with other limits."""
        return replace(self, profile=self.profile.model_copy(update={"limits": Limits(**limits)}))

    async def run(self, *argv: str, output: Output = None, **order: Any) -> ExecResult:
        """Run a program inside."""
        around = Surroundings({}, output=output)
        return await self.backend.exec(self.place, self.profile, Exec(argv=argv, **order), around)

    async def python(self, code: str, *words: str, **order: Any) -> ExecResult:
        """Run a script inside."""
        return await self.run("python3", "-I", "-S", "-c", code, *words, **order)


def usable(name: str) -> bool:
    """Whether a confinement can be had on this machine at all."""
    return {"bubblewrap": find_program() is not None, "landlock": version() > 0, "unconfined": True}[name]


@contextmanager
def cell(name: str) -> Iterator[Cell]:
    """A confinement with a fresh workspace, where its user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="cell-"))
    folder.chmod(0o755)
    workspace = folder / "tree"
    workspace.mkdir(mode=0o700)
    give(workspace)
    runner = Runner(Launcher(), find())
    made: Backend = {
        "bubblewrap": lambda: Bubblewrap(runner, UID),
        "landlock": lambda: Landlock(runner, UID),
        "unconfined": lambda: Unconfined(runner),
    }[name]()
    try:
        yield Cell(made, UNCONFINED if name == "unconfined" else STRICT, workspace, runner.held)
    finally:
        runner.close()
        shutil.rmtree(folder, ignore_errors=True)


def give(path: Path) -> None:
    """To the sandbox's user."""
    if UID is not None:
        os.chown(path, UID, UID)


async def attempts_inside(at: Cell) -> dict[str, Outcome]:
    """All attempts of the folder `inside`, made in one exec."""
    with planted(at.workspace) as outside:
        os.environ[IN_SECRET] = outside.token
        try:
            folder = at.workspace / "inside"
            shutil.copytree(INSIDE, folder, ignore=shutil.ignore_patterns("__pycache__"))
            # Spelled backwards: no attempt is to find the token in what it was told itself.
            facts = {**outside.facts, "modules": _modules(at), "nekot": outside.token[::-1]}
            (folder / "facts.json").write_text(json.dumps(facts))
            give(folder)
            outside.look()
            done = await at.run("python3", "-I", "-S", "inside/trying.py", "inside/facts.json", timeout=100)
            assert done.ok, f"{done}"
            return {name: _judged(name, one, outside) for name, one in json.loads(done.stdout).items()}
        finally:
            del os.environ[IN_SECRET]


def _modules(at: Cell) -> tuple[str, ...]:
    """Without a confinement nobody knocks at the kernel as root: a mistake in a test would hit the machine."""
    return MODULES if at.profile.confined or os.geteuid() != 0 else tuple(set(MODULES) - {"kernel"})


def _judged(name: str, said: dict[str, str], outside: Planted) -> Outcome:
    if change := outside.reached(name):
        return Outcome("open", change)
    if said["got"]:
        return Outcome("open", said["got"].replace(outside.token, "the token"))
    return Outcome("stopped", said["error"])


async def each(names: tuple[str, ...] = CONFINEMENTS) -> AsyncIterator[tuple[str, Cell]]:
    """Every confinement that can be had."""
    for name in names:
        if usable(name):
            with cell(name) as at:
                yield name, at
