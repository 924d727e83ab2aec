"""The backend `unconfined`: a plain process of the host's user, chosen by that name only.

It keeps what every exec keeps: a scrubbed environment, bounded output, an end in time, and no process that stays. It
confines nothing, and says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import roots
from retinue.sandbox.backends.execution import Plan, Runner, variables
from retinue.sandbox.backends.launching import Start
from retinue.sandbox.backends.port import Demand, Finding, Place, Report, Surroundings
from retinue.sandbox.backends.selftest import MET, absent
from retinue.sandbox.profiles import Profile

NAME = "unconfined"

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
_BY_GROUP = Finding("limited", "a process that leaves its group may stay", "use Linux")


class Unconfined:
    """The backend. One a process; it shares the runner with others."""

    name = NAME

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def probe(self) -> Report:
        """It holds the time and ends what it started; nothing of the rest, so nothing of it is tried."""
        nothing = absent(NAME, "", "it runs as a plain process of the host's user", "choose another profile")
        held: dict[Demand, Finding] = {"time": MET, "cleanup": MET if sys.platform == "linux" else _BY_GROUP}
        return Report(NAME, sys.platform, {**nothing.findings, **held})

    def inside(self, place: Place) -> str:
        """See Backend."""
        return str(place.workspace)

    async def exec(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        """Run a program to its end. SandboxRefused for a profile that is confined."""
        if profile.confined:
            raise SandboxRefused(
                f"profile {profile.name} is confined, and `{NAME}` confines nothing: choose another backend",
                code="sandbox_unconfined",
            )
        roots.inner(order.cwd)
        start = Start(
            argv=order.argv,
            environment=variables(_kept(place), order, around),
            cwd=str(place.workspace / order.cwd),
            stdin=order.stdin.encode(),
        )
        return await self._runner.run(start, Plan(place, profile, order, around))


def _kept(place: Place) -> dict[str, str]:
    """Variables of the host that say who and where it is; programs of the place come first."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    programs = [*(program / "bin" for program in place.programs), Path(sys.executable).parent]
    return {**kept, "PATH": os.pathsep.join([*map(str, programs), kept.get("PATH", os.defpath)])}
