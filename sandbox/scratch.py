"""Folders for a while, each locked by the process that made it: what nobody holds was left by one that is gone.

Owns how such a folder is taken and how it is known to be nobody's; the lock is on the folder itself, so that nothing in
it has to be believed. Knows not what is in one. Blocking.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retinue.sandbox.folders import DIRECTORY, remove_tree
from retinue.sandbox.locks import is_at, try_lock

TEMPORARY = "retinue-box-"
"""How the names of folders begin that stand where the system keeps what is temporary."""

Remove = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Scratch:
    """A folder that is this process's own, for the owner alone to enter, and the lock that says so."""

    folder: Path
    lock: int

    def remove(self, how: Remove = remove_tree) -> None:
        """Remove the folder and let go of it."""
        try:
            how(self.folder)
        finally:
            os.close(self.lock)


def take(parent: Path | None = None, prefix: str = TEMPORARY) -> Scratch:
    """A new folder in `parent`, or where the system keeps what is temporary. OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(folder, DIRECTORY)
        except FileNotFoundError:
            continue  # a sweep has taken it for a dead one's
        if try_lock(lock, fcntl.LOCK_EX) and is_at(lock, folder):
            return Scratch(folder, lock)
        os.close(lock)


@contextmanager
def taken(parent: Path | None = None, prefix: str = TEMPORARY, how: Remove = remove_tree) -> Iterator[Path]:
    """A new folder while the block lasts."""
    scratch = take(parent, prefix)
    try:
        yield scratch.folder
    finally:
        scratch.remove(how)


def sweep(parent: Path, prefix: str, ours: Callable[[int], bool], how: Remove = remove_tree) -> int:
    """Remove the folders in `parent` that begin so, belong to a user that is `ours` and are nobody's any more; how many
    they were. What cannot be removed stays for the next time."""
    return sum(_removed(folder, ours, how) for folder in sorted(parent.glob(f"{prefix}*")))


def sweep_temporary(ours: Callable[[int], bool]) -> int:
    """The same where the system keeps what is temporary."""
    return sweep(Path(tempfile.gettempdir()), TEMPORARY, ours)


def _removed(folder: Path, ours: Callable[[int], bool], how: Remove) -> bool:
    try:
        lock = os.open(folder, DIRECTORY)
    except OSError:
        return False  # a link, a file, another user's, or gone
    try:
        if not ours(os.fstat(lock).st_uid) or not try_lock(lock, fcntl.LOCK_EX) or not is_at(lock, folder):
            return False
        how(folder)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
