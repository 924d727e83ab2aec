"""A way to a backend: what the tests of this folder ask of it, in few words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends.port import Backend, Place, Surroundings
from retinue.sandbox.profiles import Limits, Profile

UID = 64001 if os.geteuid() == 0 else None
"""The user of sandboxes here: one of their own where the tests are root."""

STAYS = """
import fcntl, os, sys, time
file = open("held", "w")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.write(1, b"started")
        time.sleep(600)
    os._exit(0)
os.wait()
if sys.argv[1:] == ["wait"]:
    time.sleep(600)
while True:
    try:
        probe = open("held", "r+")
        fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe.close()
    except OSError:
        break
"""
"""Leaves a process in a session of its own, which locks the file `held` and keeps the output open. It ends when that
has begun, or, told to wait, never."""


@dataclass(frozen=True, slots=True)
class Door:
    """A backend with a workspace and a profile."""

    backend: Backend
    workspace: Path
    profile: Profile

    @property
    def place(self) -> Place:
        return Place(self.workspace, UID)

    def limited(self, **limits: Any) -> Door:
        """The same under other limits."""
        return replace(self, profile=self.profile.model_copy(update={"limits": Limits(**limits)}))

    def under(self, **changed: Any) -> Door:
        """The same under a profile that says something else."""
        return replace(self, profile=self.profile.model_copy(update=changed))

    async def run(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        output: Callable[[str, bytes], None] | None = None,
        **order: Any,
    ) -> ExecResult:
        around = Surroundings(environment or {}, output=output)
        return await self.backend.exec(self.place, self.profile, Exec(argv=argv, **order), around)

    async def sh(self, script: str, **order: Any) -> ExecResult:
        return await self.run("sh", "-c", script, **order)

    async def python(self, code: str, *words: str, **order: Any) -> ExecResult:
        return await self.run("python3", "-I", "-S", "-c", code, *words, **order)
