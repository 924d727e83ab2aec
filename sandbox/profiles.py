"""Permission profiles: what a sandbox may do, as data that its user can read and extend.

Owns the shipped profiles, the limits and the hash that a record keeps. Knows no backend: how a demand is met, and
whether it can be here, is the business of backends.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from retinue.runs.contracts import Frozen

Network = Literal["none", "listed", "host"]
"""No network at all; only listed hosts, through a proxy that is asked each time; that of the host."""

MIB = 1024 * 1024


class Limits(Frozen):
    """What one exec and a whole workspace may use. Seconds, bytes and counts; None: not limited.

    `cpu_seconds` and `file_bytes` hold for each process, `memory` for all of an exec together, `processes` for
    processes and threads together, `disk` and `files` for the workspace, `seconds` for one exec.
    """

    seconds: float = Field(default=600.0, gt=0)
    cpu_seconds: int | None = Field(default=600, gt=0)
    memory: int | None = Field(default=1024 * MIB, ge=16 * MIB)
    processes: int | None = Field(default=256, gt=0)
    open_files: int | None = Field(default=1024, gt=15)
    file_bytes: int | None = Field(default=1024 * MIB, gt=0)
    disk: int | None = Field(default=2048 * MIB, gt=0)
    files: int | None = Field(default=100_000, gt=0)


class Profile(Frozen):
    """What a sandbox may do. `confined` False is the explicit choice to run as a plain process of this user.

    `own_root`: nothing of the host's file system but what programs need to run, read only. `hosts` are names, or
    `*.name` for all below one, with a port other than 443 and 80 as `name:port`; they hold for network `listed`.
    `reads` are paths of the host that it sees read only besides.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    confined: bool = True
    own_root: bool = True
    network: Network = "none"
    hosts: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    limits: Limits = Limits()

    @property
    def digest(self) -> str:
        """Hash of all it says: two profiles of one digest allow the same."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return "p1-" + blake2b(text.encode(), digest_size=16).hexdigest()


STRICT = Profile(name="strict")
BUILD = Profile(name="build", network="listed")
UNCONFINED = Profile(name="unconfined", confined=False, own_root=False, network="host")

SHIPPED = {profile.name: profile for profile in (STRICT, BUILD, UNCONFINED)}
"""By name; a project's own extend one of these."""
