"""The writers' lock of an embedded store: fair between processes, and never held by a frozen one for long.

SQLite's own waiting polls and starves; a blocking POSIX lock before each transaction queues writers fairly.
POSIX locks belong to the process (a forked child does not keep one), so the file is opened once per process
and never copied or closed while the store is open. The holder writes who it is; a watchdog kills a holder
that has kept the lock longer than the bound, after making sure that it is still the same process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from pathlib import Path

from retinue.store.liveness import Owner, current_owner, is_alive, kill

_HOLDER = struct.Struct("<qd")


class WriterLock:
    """A lock file between processes. `patience` is how long (seconds) a holder may keep others waiting."""

    def __init__(self, path: Path, patience: float = 10.0) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._patience = patience
        self._identity = _HOLDER.pack(*current_owner())
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="retinue-lock-watchdog", daemon=True)
        self._watchdog.start()

    def acquire(self, wait: bool = True) -> bool:
        """Wait for the lock in the kernel's queue; or do not wait, and return False when another process has it."""
        if wait:
            self._waiting_since = time.monotonic()
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            self._waiting_since = None
        elif not _free(self._file):
            return False
        os.pwrite(self._file, self._identity, 0)
        return True

    def release(self) -> None:
        """Let the next writer in."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Stop the watchdog and close the file; the lock must not be held."""
        self._closed.set()
        self._watchdog.join()
        os.close(self._file)

    def holder(self) -> Owner | None:
        """Who took the lock last, as it wrote itself."""
        raw = os.pread(self._file, _HOLDER.size, 0)
        return Owner(*_HOLDER.unpack(raw)) if len(raw) == _HOLDER.size else None

    def _watch(self) -> None:
        suspect: Owner | None = None
        while not self._closed.wait(self._patience / 4):
            since = self._waiting_since
            if since is None or time.monotonic() - since < self._patience:
                suspect = None
                continue
            holder = self.holder()
            if holder is not None and holder == suspect and is_alive(holder) and holder != current_owner():
                kill(holder)
            suspect = holder


def _free(file: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
