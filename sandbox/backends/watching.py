"""What is looked at while an exec runs, for limits that the kernel does not hold here as a whole.

Owns the polls: memory and count of a process tree where there are no control groups, bytes and files of the workspace.
Knows no backend. A poll sees what is there when it looks: a program can pass a limit for that long.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from retinue.sandbox.backends.keeper import descendants
from retinue.sandbox.backends.running import Running
from retinue.sandbox.profiles import Limits

TREE_SECONDS = 0.05
"""Between two looks at the memory and the count of processes."""

DISK_SECONDS = 1.0
"""Least time between two looks at the workspace; a look that takes long is made less often."""

_SCAN_SHARE = 20
_SUDDEN_SHARE = 4


@dataclass(frozen=True, slots=True)
class Watched:
    """What has to be looked at: None and False for what the kernel holds."""

    memory: int | None
    processes: int | None
    folders: tuple[Path, ...]
    disk: int | None
    files: int | None


def watched(limits: Limits, held: frozenset[str], *folders: Path | None) -> Watched:
    """The limits of a profile without those that control groups (`memory`, `pids`) hold; those of the disk hold for
    all `folders` together.
    """
    return Watched(
        memory=None if "memory" in held else limits.memory,
        processes=None if "pids" in held or limits.processes is None else limits.processes,
        folders=tuple(folder for folder in folders if folder is not None),
        disk=limits.disk,
        files=limits.files,
    )


@asynccontextmanager
async def watching(running: Running, over: Watched | None) -> AsyncIterator[None]:
    """Look at an exec while the body waits for it, and once more at the workspace after it; the first limit that is
    passed ends it. None: nothing is looked at.
    """
    if over is None:
        yield
        return
    disk = _Disk(over)
    tasks = [asyncio.create_task(_watch_disk(running, disk))]
    if over.memory is not None or over.processes is not None:
        tasks.append(asyncio.create_task(_watch_tree(running, over)))
    try:
        yield
        if not running.stopped and await disk.passed_now():
            running.stopped = "disk"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch_tree(running: Running, over: Watched) -> None:
    while True:
        await asyncio.sleep(TREE_SECONDS)
        if running.keeper and (passed := await asyncio.to_thread(_tree_passed, running.keeper, over)):
            running.stop(passed)
            return


def _tree_passed(keeper: int, over: Watched) -> str:
    below = descendants(keeper)
    if over.processes is not None and sum(map(_threads, below)) > over.processes:
        return "processes"
    if over.memory is None or sum(map(_resident, below)) <= over.memory:
        return ""
    return "memory" if sum(map(_share, below)) > over.memory else ""


def threads_of(uid: int) -> int:
    """How many threads a user has on this machine."""
    try:
        names = [entry for entry in os.scandir("/proc") if entry.name.isdigit() and _owner(entry.path) == uid]
    except OSError:
        return 0
    return sum(_threads(int(entry.name)) for entry in names)


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1


def _threads(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _share(pid: int) -> int:
    """What of its memory is its own, with its part of what it shares; all of it where that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return _resident(pid)


_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Disk:
    """When the workspace was looked at last, and what the whole file system held then."""

    def __init__(self, over: Watched) -> None:
        self._over = over
        self._before = _used(over.folders[0])
        self._next = time.monotonic() + DISK_SECONDS

    async def passed_now(self) -> bool:
        """Whether a limit is passed. The workspace is looked at when it is time to, or when the file system has lost
        a good part of what the workspace may hold.
        """
        over, used = self._over, _used(self._over.folders[0])
        if over.disk is None and over.files is None:
            return False
        if time.monotonic() < self._next and not (
            _grown(self._before[0], used[0], over.disk) or _grown(self._before[1], used[1], over.files)
        ):
            return False
        began = time.monotonic()
        passed = await asyncio.to_thread(passes_disk, over)
        ended = time.monotonic()
        self._before, self._next = used, ended + max(DISK_SECONDS, (ended - began) * _SCAN_SHARE)
        return passed


async def _watch_disk(running: Running, disk: _Disk) -> None:
    while True:
        await asyncio.sleep(2 * TREE_SECONDS)
        if await disk.passed_now():
            running.stop("disk")
            return


def _grown(before: int, now: int, limit: int | None) -> bool:
    return limit is not None and now - before >= limit // _SUDDEN_SHARE


def _used(folder: Path) -> tuple[int, int]:
    """(bytes, names) that the file system of a folder holds."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0, 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def passes_disk(over: Watched) -> bool:
    """Whether the workspace holds more bytes, as the disk has them, or more names than it may."""
    size = 0
    for count, found in enumerate(_all_below(map(str, over.folders)), 1):
        size += found.st_blocks * 512
        if (over.disk is not None and size > over.disk) or (over.files is not None and count > over.files):
            return True
    return False


def _all_below(tops: Iterable[str]) -> Iterator[os.stat_result]:
    """Every name below some folders; what vanishes meanwhile is left out. Links are not followed."""
    folders = [*tops]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    yield found
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
        except OSError:
            continue
