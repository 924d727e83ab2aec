"""The walk over a folder: which names are in it, and in what state, each through the descriptor of its directory.

Follows no symlink, crosses into no other file system, opens nothing but directories. Leaves out what no snapshot holds
and refuses what is too much. Knows the content of no file.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter
from dataclasses import dataclass
from threading import Event

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import Trail
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.stat_cache import stamp_of
from retinue.sandbox.snapshots.trees import KEPT_MODE, LONGEST_PATH, Attributes, Kind, keeps_attribute

MOST_OMITTED = 1_000
"""So many omitted paths are named."""
_SPECIAL = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_OTHER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})
"""What the kernel says of a name that is something else by now."""


class Stopped(Exception):
    """Whoever wanted the work no longer does."""


@dataclass(frozen=True, slots=True)
class Found:
    """A name and what the kernel said of it."""

    path: str
    kind: Kind
    status: os.stat_result
    target: str = ""

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode: names with the same ones are one file."""
        return self.status.st_dev, self.status.st_ino

    @property
    def mode(self) -> int:
        """The bits that a tree keeps."""
        return self.status.st_mode & KEPT_MODE


def changed(path: str) -> TransientError:
    """The error of a name that is not what it was a moment ago."""
    return TransientError(
        f"{path or '.'!r} changed while it was read: end what runs in the workspace and try again",
        code="changed_while_read",
    )


def said(error: OSError, path: str) -> Exception:
    """What it means that a name, which was there, cannot be opened or read."""
    if error.errno in _OTHER:
        return changed(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SandboxRefused(
            f"{path or '.'!r} may not be read by this process: change its mode, or leave it out by a pattern",
            code="unreadable",
        )
    return error


def attributes_of(fd: int) -> Attributes:
    """The user attributes of what is open; none where its file system has none."""
    if sys.platform != "linux":
        return ()
    try:
        names = sorted(name for name in os.listxattr(fd) if keeps_attribute(name))
        return tuple((name, os.getxattr(fd, name)) for name in names)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return ()


class Walk:
    """Names and states of all that is in a folder."""

    def __init__(self, trail: Trail, rules: Rules, stop: Event) -> None:
        self._trail = trail
        self._rules = rules
        self._stop = stop
        self._quota = rules.quota
        self._root = os.fstat(trail.at(""))
        self._folders: list[tuple[str, os.stat_result]] = []
        self._bytes = 0
        self._inodes: set[tuple[int, int]] = set()
        self._unnamed = 0
        self.found: list[Found] = []
        self.attributes: dict[str, Attributes] = {}
        self.omitted: list[str] = []

    def run(self) -> None:
        """Go through all folders, deepest first."""
        pending: list[tuple[str, os.stat_result]] = [("", self._root)]
        while pending:
            path, status = pending.pop()
            if self._stop.is_set():
                raise Stopped
            pending += self._folder(path, status)
        self.found.sort(key=lambda found: found.path)
        self._leave_out_foreign()
        if self._unnamed:
            self.omitted.append(f"and {self._unnamed} more")

    def check_unchanged(self) -> None:
        """Nothing came, went or was renamed since."""
        for path, status in self._folders:
            try:
                now = os.fstat(self._trail.at(path))
            except OSError as error:
                raise said(error, path) from None
            if stamp_of(now) != stamp_of(status):
                raise changed(path)

    def _folder(self, path: str, status: os.stat_result) -> list[tuple[str, os.stat_result]]:
        try:
            fd = self._trail.at(path)
            now = os.fstat(fd)
            attributes = attributes_of(fd)
            with os.scandir(fd) as names:
                seen = [(name.name, name.stat(follow_symlinks=False)) for name in names]
        except OSError as error:
            raise said(error, path) from None
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            raise changed(path)
        self._folders.append((path, now))
        if attributes:
            self._rules.check_attributes(attributes, path)
            self.attributes[path] = attributes
        below = []
        for name, each in seen:
            inner = f"{path}/{name}" if path else name
            if self._take(inner, name, each, fd):
                below.append((inner, each))
        return below

    def _take(self, path: str, name: str, status: os.stat_result, folder: int) -> bool:
        """Note one name; True when it is a directory to go into."""
        kind = stat.S_IFMT(status.st_mode)
        why = self._why_omitted(path, kind, status)
        if why is not None:
            self._omit(path, why)
            return False
        target = ""
        if kind == stat.S_IFLNK:
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError as error:
                raise said(error, path) from None
        self._rules.check_name(path, target)
        self._count(path, kind, status)
        self.found.append(Found(path, _kind(kind), status, target))
        return kind == stat.S_IFDIR

    def _why_omitted(self, path: str, kind: int, status: os.stat_result) -> str | None:
        if kind in _SPECIAL:
            return _SPECIAL[kind]
        if kind == stat.S_IFDIR and status.st_dev != self._root.st_dev:
            return "mount"
        pattern = self._rules.omits(path, kind == stat.S_IFDIR)
        return None if pattern is None else f"omit {pattern}"

    def _leave_out_foreign(self) -> None:
        """A link to somebody else's file, which stands elsewhere too, is no content of this workspace: what reads it
        here may be allowed more than what linked it.
        """
        here = Counter(found.inode for found in self.found if found.status.st_nlink > 1)
        foreign = {
            found.path
            for found in self.found
            if found.kind == "file"
            and found.status.st_nlink > here.get(found.inode, 1)
            and found.status.st_uid != self._root.st_uid
        }
        for path in sorted(foreign):
            self._omit(path, "link to a file of another user")
        if foreign:
            self.found = [found for found in self.found if found.path not in foreign]

    def _omit(self, path: str, why: str) -> None:
        if len(self.omitted) < MOST_OMITTED:
            self.omitted.append(f"{path} ({why})")
        else:
            self._unnamed += 1

    def _count(self, path: str, kind: int, status: os.stat_result) -> None:
        self._quota.check("files", len(self.found) + 1)
        self._quota.check("depth", path.count("/") + 1, path)
        if len(path) * 4 > LONGEST_PATH and len(os.fsencode(path)) > LONGEST_PATH:
            raise SandboxRefused(f"quota: {path[:200]!r}... is longer than {LONGEST_PATH} bytes", code="quota")
        if kind == stat.S_IFREG and (status.st_nlink == 1 or (status.st_dev, status.st_ino) not in self._inodes):
            self._quota.check("file_bytes", status.st_size, path)
            self._bytes += status.st_size
            self._quota.check("bytes", self._bytes)
            if status.st_nlink > 1:
                self._inodes.add((status.st_dev, status.st_ino))


def _kind(kind: int) -> Kind:
    return "file" if kind == stat.S_IFREG else "symlink" if kind == stat.S_IFLNK else "directory"
