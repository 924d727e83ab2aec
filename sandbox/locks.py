"""Locks on files, between threads and processes of one machine: held through a descriptor, and gone with its process.

A lock's file may be removed by whoever has it; who waited for it then locks the next one of this name. Knows nothing of
what is locked. Blocking.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, how: int, turn: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file, which is made with its folders. `turn` is called between two tries: it takes some time,
    and raises when it has been enough.
    """
    while True:
        lock = open_lock(path)
        try:
            if try_lock(lock, how) and is_at(lock, path):
                yield
                return
        finally:
            os.close(lock)
        turn()


def open_lock(path: Path) -> int:
    """The descriptor of a file to lock, which is made with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(lock: int, how: int) -> bool:
    """Lock it if nobody holds it otherwise."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether no process holds the record lock of a file, which none inherits from the one that began it."""
    with path.open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def is_at(lock: int, path: Path) -> bool:
    """Whether the path is what was locked: it may have been removed while we waited."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
