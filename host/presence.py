"""Whose data folder it is: one runtime at a time, named in a lock file that a dead process cannot keep.

The supervisor holds the lock; anyone can read who it is. The runtime of a shared store may live on any node of a
cluster and holds no folder: its hosts show themselves in the store. Knows no Ray.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from retinue.host.opening import serving_hosts
from retinue.host.settings import Settings
from retinue.runs.errors import StoreBusy
from retinue.store.liveness import Owner, boot_id, is_alive

RUNTIME = "run"
"""The kind of a host by which a shared store shows that a runtime serves it."""
_FILE = "runtime.lock"
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """A live runtime: the Ray address and namespace to find it, the process that holds the folder, and the Ray head
    that was started for it, if one was: while that lives, Ray brings a supervisor back that has crashed."""

    address: str
    namespace: str
    pid: int
    started: float
    boot_id: str
    node: str
    head_pid: int | None = None
    head_started: float | None = None

    @property
    def lives(self) -> bool:
        """Whether it is there, or on its way back."""
        if self.boot_id != boot_id():
            return False
        owners = [Owner(self.pid, self.started)]
        if self.head_pid is not None and self.head_started is not None:
            owners.append(Owner(self.head_pid, self.head_started))
        return any(map(is_alive, owners))


class Presence:
    """The lock on a data folder, held for as long as this object lives in its process."""

    def __init__(self, data_folder: Path) -> None:
        data_folder.mkdir(parents=True, exist_ok=True)
        self._path = data_folder / _FILE
        self._file: int | None = None

    def claim(self, info: RuntimeInfo) -> None:
        """Take the folder, waiting a moment for a predecessor to be gone. StoreBusy names who has it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _PATIENCE
        while not _locked(handle):
            if time.monotonic() > deadline:
                holder = _read(self._path)
                os.close(handle)
                who = f"pid {holder.pid} on {holder.node}, Ray at {holder.address}" if holder else "another process"
                raise StoreBusy(
                    f"{self._path.parent} has a runtime already ({who}): join it, stop it with `retinue down`, or use "
                    "another data folder"
                )
            time.sleep(0.1)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(info)).encode(), 0)
        os.fsync(handle)
        self._file = handle

    def leave(self) -> None:
        """Let the folder go."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def cluster_address(settings: Settings) -> str | None:
    """The Ray cluster that the project joins; None for a Ray of its own."""
    return settings.cluster or os.environ.get("RAY_ADDRESS")


def roams(settings: Settings) -> bool:
    """Whether the project's runtime may live on any node of a cluster, and is bound to no machine's folder."""
    return settings.store is not None and cluster_address(settings) is not None


def runtime_of(settings: Settings) -> RuntimeInfo | None:
    """The live runtime of a project, wherever it is, or None. Never call it in the process that holds the claim.

    Of one that is found by its store the process is that of a host, and the address is empty where none is set.
    StoreError when a shared store cannot be asked.
    """
    found = find_runtime(settings.data_folder)
    hosts = [host for host in serving_hosts(settings) if host.kind == RUNTIME] if found is None else []
    if not hosts:
        return found
    host, address = hosts[0], cluster_address(settings) or ""
    return RuntimeInfo(address, "", host.pid, host.started, host.boot_id, host.node)


def find_runtime(data_folder: Path) -> RuntimeInfo | None:
    """The live runtime of a data folder, or None. Never call it in the process that holds the claim."""
    path = data_folder / _FILE
    if not path.exists():
        return None
    info = _read(path)
    return info if info is not None and info.lives else None


def _locked(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(path: Path) -> RuntimeInfo | None:
    try:
        return RuntimeInfo(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None
