"""Users for sandboxes where the host is root: a number of its own for each, so that no two reach each other's files.

Owns the range and which number is whose, in one file of the node that all its processes share. Knows no workspace but
its path: a number is free again when the workspace it was taken for is gone, whoever removed it, and whenever.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypedDict

from retinue.runs.errors import ConfigError, TransientError
from retinue.runs.sandboxes import SandboxRefused

FOLDER = Path("/var/lib/retinue")
"""Where a node keeps its users, whatever data folders it has."""

LOCK_SECONDS = 10.0
"""How long another process may hold the file."""

_THREADS = Lock()
"""The lock of the file is that of a process: its threads take turns besides."""

_RANGE = re.compile(r"(\d+)-(\d+)")
_LEAST = 1000
_MOST = 2**32 - 2


class _Taken(TypedDict):
    sandbox_id: str
    workspace: str


class _Known(TypedDict):
    """What the file holds: the number that is tried next, and those that are taken."""

    next: int
    taken: dict[str, _Taken]


def parse_range(text: str) -> tuple[int, int]:
    """(first, last) of `sandbox: uids:`, as "600000-665535". ConfigError for anything else."""
    found = _RANGE.fullmatch(text.strip())
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not _LEAST <= first <= last <= _MOST:
        raise ConfigError(
            f"`sandbox: uids: {text}` is no range of users: write FIRST-LAST, from {_LEAST} on, of users that nobody "
            f'else is, such as "600000-665535"'
        )
    return first, last


class Users:
    """The users of this node. Its methods block for a moment; each is one transaction on the file."""

    def __init__(self, first: int, last: int, folder: Path = FOLDER) -> None:
        self._first = first
        self._last = last
        self._folder = folder

    def take(self, sandbox_id: str, workspace: Path) -> int:
        """The number of a sandbox, the same each time. Its workspace has to be there: when it is gone, the number is
        another's. SandboxRefused when all are taken, TransientError when the file is held for too long.
        """
        with self._known() as known:
            _forget_gone(known)
            mine = _Taken(sandbox_id=sandbox_id, workspace=str(workspace))
            for held, taken in known["taken"].items():
                if taken == mine:
                    return int(held)
            number = self._free(known)
            known["taken"][str(number)] = mine
            known["next"] = number + 1
            return number

    def _free(self, known: _Known) -> int:
        """The next one in turn, so that a number rests before it is used again."""
        count = self._last - self._first + 1
        start = known["next"] - self._first if self._first <= known["next"] <= self._last else 0
        for step in range(count):
            number = self._first + (start + step) % count
            if str(number) not in known["taken"]:
                return number
        raise SandboxRefused(
            f"all {count} users of `sandbox: uids: {self._first}-{self._last}` are taken: close sandboxes, or widen "
            f"the range",
            code="sandbox_users",
        )

    @contextmanager
    def _known(self) -> Iterator[_Known]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        with _THREADS, open(self._folder / "users.lock", "a") as lock:
            _hold(lock.fileno(), self._folder)
            file = self._folder / "users.json"
            known = _load(file)
            before = json.dumps(known)
            yield known
            after = json.dumps(known)
            if after != before:
                _replace(file, after)


def _forget_gone(known: _Known) -> None:
    """What is known is never more than there are workspaces."""
    known["taken"] = {number: taken for number, taken in known["taken"].items() if os.path.lexists(taken["workspace"])}


def _hold(lock: int, folder: Path) -> None:
    """`lockf`, which a forked child does not inherit."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > until:
                raise TransientError(
                    f"{folder}/users.lock was held for {LOCK_SECONDS:.0f} s: find who holds it with fuser",
                    code="sandbox_users",
                ) from None
            time.sleep(0.01)


def _load(file: Path) -> _Known:
    try:
        known: _Known = json.loads(file.read_text())
    except FileNotFoundError:
        known = _Known(next=0, taken={})
    except ValueError:
        raise ConfigError(
            f"{file} is not readable, so nobody knows which users are taken: stop this node's hosts, then remove it"
        ) from None
    return known


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    with open(fresh, "w") as writes:
        writes.write(text)
        writes.flush()
        os.fsync(writes.fileno())
    fresh.replace(file)
