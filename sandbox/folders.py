"""Folders through descriptors: a way into a tree that follows no symlink, and removal of any tree.

Owns the system calls that Python lacks. Knows no snapshot. What runs in a sandbox may rename anything below its
workspace at any moment, so nothing here gives the kernel a path of more than one name.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Trail:
    """Descriptors of the directories on the way to the one that was asked for last: asking for paths in order opens
    each directory once. Not for two threads. OSError (ENOTDIR, ELOOP) where a name on the way is no directory.
    """

    def __init__(self, root: Path | int) -> None:
        self._fds = [os.open(root, DIRECTORY) if isinstance(root, Path) else os.dup(root)]
        self._names: list[str] = []

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def at(self, path: str) -> int:
        """The descriptor of a directory, "" for the root; it belongs to the trail and is good until the next call."""
        names = path.split("/") if path else []
        same = 0
        for mine, asked in zip(self._names, names, strict=False):
            if mine != asked:
                break
            same += 1
        while len(self._names) > same:
            self._names.pop()
            os.close(self._fds.pop())
        for name in names[same:]:
            self._fds.append(os.open(name, DIRECTORY, dir_fd=self._fds[-1]))
            self._names.append(name)
        return self._fds[-1]

    def beside(self, path: str) -> tuple[int, str]:
        """The directory that a path is in, and the path's last name."""
        folder, _, name = path.rpartition("/")
        return self.at(folder), name


def open_file(name: str, folder: int) -> int:
    """A descriptor to read from what has to be looked at first: it may be a FIFO, and then nobody waits for it."""
    return os.open(name, _FILE, dir_fd=folder)


def sync_whole(fd: int) -> None:
    """Make all that was written to the file system of `fd` durable, names and bytes."""
    if hasattr(_libc, "syncfs"):
        if _libc.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    else:
        os.sync()


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder."""
    fd = os.open(folder, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def make_private(folder: Path) -> None:
    """A new folder that its owner alone may enter."""
    folder.mkdir(mode=0o700)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it, however deep and whatever its modes; nothing happens where there is none.

    Needs two descriptors and no recursion: directories below are moved up to the folder and emptied there.
    """
    try:
        root = _open_for_removal(folder.name, folder.parent)
    except FileNotFoundError:
        return
    try:
        while _empty(root):
            continue
    finally:
        os.close(root)
    folder.rmdir()


def _empty(root: int) -> bool:
    """Remove what is in the root and lift what its directories hold; False when there was nothing."""
    names = _names(root)
    for name, is_folder in names:
        if is_folder:
            _lift(root, name)
            os.rmdir(name, dir_fd=root)
        else:
            os.unlink(name, dir_fd=root)
    return bool(names)


def _lift(root: int, name: str) -> None:
    fd = _open_for_removal(name, root)
    try:
        for child, is_folder in _names(fd):
            if is_folder:
                os.close(_open_for_removal(child, fd))
                os.rename(child, f".{os.urandom(12).hex()}", src_dir_fd=fd, dst_dir_fd=root)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)


def _names(fd: int) -> list[tuple[str, bool]]:
    os.lseek(fd, 0, os.SEEK_SET)  # btrfs shows what came since only to whoever begins anew
    with os.scandir(fd) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def _open_for_removal(name: str, folder: int | Path) -> int:
    """A directory that its owner can read, write and enter from now on, which its mode may have forbidden."""
    where = os.open(folder, DIRECTORY) if isinstance(folder, Path) else folder
    try:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
    finally:
        if isinstance(folder, Path):
            os.close(where)
    try:
        if os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)
