"""Copies that the file system makes by itself: of a file's content, and of a whole subvolume.

Owns the system calls. Knows neither snapshots nor sandboxes. OSError where the file system has no such thing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from retinue.sandbox.folders import DIRECTORY, Trail, open_file
from retinue.sandbox.snapshots.trees import Entry

_FICLONE = 0x40049409
_SUBVOLUME, _SNAPSHOT, _DESTROY = 0x5000940E, 0x50009417, 0x5000940F
_ROOT = 256
"""The inode of the root of each subvolume."""
_NAME, _NAME2 = 4088, 4040
_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})
_PART = 64 * 1024 * 1024


def copy_file(base: Trail, entry: Entry, target: int) -> None:
    """Fill an empty file with what a file of a base holds: shared with it where the file system can, else copied by the
    kernel. OSError when the base does not hold all of it.
    """
    if entry.size == 0:
        return
    folder, name = base.beside(entry.path)
    source = open_file(name, folder)
    try:
        if os.fstat(source).st_size != entry.size:
            raise OSError(errno.EIO, f"the base of {entry.path!r} has another size")
        if not clone(source, target):
            _copy(source, target, entry.size)
    finally:
        os.close(source)


def clone(source: int, target: int) -> bool:
    """Let one file share the content of another; False where the file system has no such thing."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _copy(source: int, target: int, size: int) -> None:
    """Holes stay holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        at = start
        end = os.lseek(source, start, os.SEEK_HOLE)
        while at < end:
            done = os.copy_file_range(source, target, min(_PART, end - at), at, at)
            if done == 0:
                raise OSError(errno.EIO, "the base of a file became shorter")
            at += done
    os.ftruncate(target, size)


def make_subvolume(folder: Path) -> None:
    """A new subvolume of btrfs, which its owner alone may enter."""
    _ask(folder.parent, _SUBVOLUME, struct.pack(f"q{_NAME}s", 0, _name(folder, _NAME)))
    folder.chmod(0o700)


def snapshot_subvolume(source: Path, target: Path) -> None:
    """A new subvolume that holds what another does."""
    fd = os.open(source, DIRECTORY)
    try:
        _ask(target.parent, _SNAPSHOT, struct.pack(f"qQQ32x{_NAME2}s", fd, 0, 0, _name(target, _NAME2)))
    finally:
        os.close(fd)


def is_subvolume(folder: Path) -> bool:
    """Whether a folder is the root of a subvolume, as far as its inode tells."""
    try:
        return folder.lstat().st_ino == _ROOT
    except FileNotFoundError:
        return False


def destroy_subvolume(folder: Path) -> bool:
    """Remove a subvolume with all in it, at once; False where that cannot be: it is then removed name by name."""
    try:
        _ask(folder.parent, _DESTROY, struct.pack(f"q{_NAME}s", 0, _name(folder, _NAME)))
    except OSError:
        return False
    return True


def _ask(folder: Path, request: int, words: bytes) -> None:
    fd = os.open(folder, DIRECTORY)
    try:
        fcntl.ioctl(fd, request, bytearray(words))
    finally:
        os.close(fd)


def _name(folder: Path, most: int) -> bytes:
    name = os.fsencode(folder.name)
    if len(name) >= most:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name
