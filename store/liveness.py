"""Proof of life on one machine: is that very process still there?

A process is named by its pid and its start time, so a pid that came back is somebody else; a machine by
its boot. Knows nothing of leases.
"""

from __future__ import annotations

import os
import signal
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import psutil


class Owner(NamedTuple):
    """A process that cannot be confused with another: pid and start time (seconds since the epoch)."""

    pid: int
    started: float


def current_owner() -> Owner:
    """This process (also right after a fork)."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> Owner:
    """The process that has this pid now. psutil.NoSuchProcess when there is none."""
    return Owner(pid, _started(pid))


@lru_cache(maxsize=64)
def _started(pid: int) -> float:
    return psutil.Process(pid).create_time()


def is_alive(owner: Owner) -> bool:
    """True while that very process exists and is not a zombie."""
    try:
        process = psutil.Process(owner.pid)
        return abs(process.create_time() - owner.started) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(owner: Owner) -> None:
    """SIGKILL that very process, if it still exists."""
    if is_alive(owner):
        os.kill(owner.pid, signal.SIGKILL)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """A name for this boot of this machine, as far as its processes see each other: a container has one of its own."""
    path = Path("/proc/sys/kernel/random/boot_id")
    boot = path.read_text().strip() if path.exists() else f"boot-{round(psutil.boot_time())}"
    names = Path("/proc/self/ns/pid")
    return f"{boot}/{os.readlink(names)}" if names.is_symlink() else boot
