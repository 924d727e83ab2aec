"""The port of isolation backends: what one can do here, and how it runs a program in a workspace.

Owns the demands, the report and the port. Knows no snapshot and no manifest. A backend is fit for a profile when it
meets all that the profile demands; the room refuses otherwise and never falls back to a weaker one in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from retinue.runs.sandboxes import Assurance, Exec, ExecResult
from retinue.sandbox.profiles import Profile

Demand = Literal[
    "files",  # reads and writes nothing outside its workspace but what its profile shows it
    "processes",  # sees, signals and traces no process outside
    "network",  # reaches nothing but what its profile lists
    "hosts",  # reaches those through the proxy
    "syscalls",  # the kernel's dangerous doors are closed
    "privileges",  # gains none: no setuid, no capabilities, an own user where the host is root
    "memory",
    "cpu",
    "process_count",
    "file_size",
    "disk",
    "time",
    "cleanup",  # no process of an exec outlives it
]


_WHOLE = frozenset[Demand]({"files", "processes", "network", "hosts", "syscalls", "privileges", "cleanup"})
"""Demands of isolation: a gap in one of them is no isolation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How well a demand is met, as a real attempt showed it: what it tried, what is missing and what mends that."""

    assurance: Assurance
    why: str = ""
    remedy: str = ""


_UNTRIED = Finding("absent", "this backend has no way to do it", "choose another backend")


def demands(profile: Profile) -> tuple[Demand, ...]:
    """What a profile asks of a backend: always its time; isolation and each limit that it sets where it is confined."""
    limits = profile.limits
    asked: dict[Demand, bool] = {
        "time": True,
        "cleanup": profile.confined,
        "files": profile.confined,
        "processes": profile.confined,
        "syscalls": profile.confined,
        "privileges": profile.confined,
        "network": profile.network != "host",
        "hosts": profile.network == "listed",
        "memory": profile.confined and limits.memory is not None,
        "cpu": profile.confined and limits.cpu_seconds is not None,
        "process_count": profile.confined and limits.processes is not None,
        "file_size": profile.confined and limits.file_bytes is not None,
        "disk": profile.confined and (limits.disk is not None or limits.files is not None),
    }
    return tuple(demand for demand, wanted in asked.items() if wanted)


@dataclass(frozen=True, slots=True)
class Report:
    """What a backend can do on this node: `findings` by demand, from attempts and not from version numbers."""

    backend: str
    version: str
    findings: Mapping[Demand, Finding] = field(default_factory=dict)

    def lacking(self, profile: Profile) -> dict[Demand, Finding]:
        """The demands of a profile that are not met: isolation has to be whole, a limit has to hold up to a gap."""
        found = {demand: self.findings.get(demand, _UNTRIED) for demand in demands(profile)}
        return {
            demand: finding
            for demand, finding in found.items()
            if finding.assurance == "absent" or (finding.assurance == "limited" and demand in _WHOLE)
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where an exec happens: the workspace's folder on the host, and the user that it belongs to (None: our own).

    `programs` are folders of the host that its programs come from, shown read only at the same path.
    """

    workspace: Path
    uid: int | None = None
    programs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What comes with an exec besides its order: all variables of its environment, secrets among them, and the socket
    of the proxy where the profile lists hosts. The `output` is called with (stream, bytes) as they come.
    """

    environment: Mapping[str, str]
    proxy: Path | None = None
    output: Callable[[str, bytes], None] | None = None


class Backend(Protocol):
    """Runs programs under a profile. Belongs to one event loop."""

    name: str

    async def probe(self) -> Report:
        """What it can do here, found by real attempts; remembered for the life of the process."""
        ...

    def inside(self, place: Place) -> str:
        """Where programs see the workspace: an absolute path."""
        ...

    async def exec(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        """Run a program to its end. Every process of it is gone when this returns, raises or is canceled."""
        ...
