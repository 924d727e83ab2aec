"""Reads a folder into a tree: each name through the descriptor of its directory, each changed file once.

Owns the walk and the reading. Follows no symlink, opens nothing but regular files and directories, crosses into no
other file system. Knows no store: whoever wants the content gives a sink. Blocking; uses a few threads.

What runs in the workspace should have ended. Where something changes it all the same, a file that changes while it is
read and a folder that changes before the end make the scan fail: code `changed_while_read`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Protocol

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import Trail, open_file
from retinue.sandbox.rules import Rules
from retinue.sandbox.stat_cache import Content, StatCache, stamp_of
from retinue.sandbox.trees import CHUNK, KEPT_MODE, LONGEST_PATH, Attributes, Entry, Kind, Tree

_THREADS = min(4, os.cpu_count() or 1)
_SLICE_FILES, _SLICE_BYTES = 64, 8 * 1024 * 1024
"""What one thread takes at a time."""
MOST_OMITTED = 1_000
"""So many omitted paths are named."""
_ZEROS = bytes(CHUNK)
_SPECIAL = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Sink(Protocol):
    """Where the content of files goes, in chunks by their sha256. Called from several threads."""

    def lacking(self, digests: Collection[str]) -> Collection[str]:
        """Which of these are not kept yet; asked once, for what would not be read otherwise."""
        ...

    def keep(self, digest: str, chunk: bytes) -> None:
        """A chunk as it was read."""
        ...


class Stopped(Exception):
    """Whoever wanted the work no longer does."""


@dataclass(frozen=True, slots=True)
class Scan:
    """How to scan: what to leave out and refuse, what is remembered, where content goes, what ends it early."""

    rules: Rules = field(default_factory=Rules)
    cache: StatCache | None = None
    sink: Sink | None = None
    stop: Event = field(default_factory=Event)


@dataclass(slots=True)
class _Found:
    path: str
    kind: Kind
    status: os.stat_result
    target: str = ""
    content: Content | None = None


def scan(folder: Path, how: Scan | None = None) -> Tree:
    """The tree of a folder. TransientError with code `changed_while_read`; SandboxRefused with code `quota`,
    `secret_in_snapshot` or `unreadable`; OSError of the disk; Stopped.
    """
    how = how or Scan()
    _check_encoding()
    with Trail(folder) as trail:
        walk = _Walk(trail, how)
        walk.run()
        files = [found for found in walk.found if found.kind == "file"]
        kept = _read_changed(trail.at(""), files, how)
        walk.check_unchanged()
    if how.cache is not None:
        how.cache.save({found.path: (stamp_of(found.status), kept[_inode(found)]) for found in files})
    return _tree(walk, kept)


def _check_encoding() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        raise SandboxRefused(
            f"names of files are read as {sys.getfilesystemencoding()} here, snapshots need UTF-8: set PYTHONUTF8=1",
            code="unreadable",
        )


def changed(path: str) -> TransientError:
    """The error of a name that is not what it was a moment ago."""
    return TransientError(
        f"{path or '.'!r} changed while it was read: end what runs in the workspace and try again",
        code="changed_while_read",
    )


class _Walk:
    """Names and states of all that is in a folder."""

    def __init__(self, trail: Trail, how: Scan) -> None:
        self._trail = trail
        self._how = how
        self._quota = how.rules.quota
        self._root = os.fstat(trail.at(""))
        self._folders: list[tuple[str, os.stat_result]] = []
        self._bytes = 0
        self._inodes: set[tuple[int, int]] = set()
        self._unnamed = 0
        self.found: list[_Found] = []
        self.attributes: dict[str, Attributes] = {}
        self.omitted: list[str] = []

    def run(self) -> None:
        """Go through all folders, deepest first."""
        pending: list[tuple[str, os.stat_result]] = [("", self._root)]
        while pending:
            path, status = pending.pop()
            if self._how.stop.is_set():
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
            except OSError:
                raise changed(path) from None
            if stamp_of(now) != stamp_of(status):
                raise changed(path)

    def _folder(self, path: str, status: os.stat_result) -> list[tuple[str, os.stat_result]]:
        try:
            fd = self._trail.at(path)
            now = os.fstat(fd)
            attributes = attributes_of(fd)
            with os.scandir(fd) as names:
                seen = [(name.name, name.stat(follow_symlinks=False)) for name in names]
        except PermissionError:
            raise _unreadable(path) from None
        except OSError:
            raise changed(path) from None
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            raise changed(path)
        self._folders.append((path, now))
        if attributes:
            self._how.rules.check_attributes(attributes, path)
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
            except OSError:
                raise changed(path) from None
        self._how.rules.check_name(path, target)
        self._count(path, kind, status)
        self.found.append(_Found(path, _kind(kind), status, target))
        return kind == stat.S_IFDIR

    def _why_omitted(self, path: str, kind: int, status: os.stat_result) -> str | None:
        if kind in _SPECIAL:
            return _SPECIAL[kind]
        if kind == stat.S_IFDIR and status.st_dev != self._root.st_dev:
            return "mount"
        pattern = self._how.rules.omits(path, kind == stat.S_IFDIR)
        return None if pattern is None else f"omit {pattern}"

    def _leave_out_foreign(self) -> None:
        """A link to somebody else's file, which stands elsewhere too, is no content of this workspace: what reads it
        here may be allowed more than what linked it.
        """
        here = Counter(_inode(found) for found in self.found if found.status.st_nlink > 1)
        foreign = {
            found.path
            for found in self.found
            if found.kind == "file"
            and found.status.st_nlink > here.get(_inode(found), 1)
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
        self._quota.check("depth", path.count("/") + 1, repr(path[:200]))
        if len(path) * 4 > LONGEST_PATH and len(os.fsencode(path)) > LONGEST_PATH:
            raise SandboxRefused(f"quota: {path[:200]!r}... is longer than {LONGEST_PATH} bytes", code="quota")
        if kind == stat.S_IFREG and (status.st_nlink == 1 or (status.st_dev, status.st_ino) not in self._inodes):
            self._quota.check("file_bytes", status.st_size, repr(path))
            self._bytes += status.st_size
            self._quota.check("bytes", self._bytes)
            if status.st_nlink > 1:
                self._inodes.add((status.st_dev, status.st_ino))


def _kind(kind: int) -> Kind:
    return "file" if kind == stat.S_IFREG else "symlink" if kind == stat.S_IFLNK else "directory"


def _inode(found: _Found) -> tuple[int, int]:
    return found.status.st_dev, found.status.st_ino


def _read_changed(root: int, files: list[_Found], how: Scan) -> dict[tuple[int, int], Content]:
    """The content of every file by its inode: remembered, or read now."""
    kept: dict[tuple[int, int], Content] = {}
    for found in files:
        known = how.cache.find(found.path, found.status) if how.cache is not None else None
        if known is not None:
            kept[_inode(found)] = known
    if how.sink is not None and kept:
        lacking = set(how.sink.lacking({chunk for content in kept.values() for chunk in content.chunks}))
        if lacking:
            kept = {inode: content for inode, content in kept.items() if lacking.isdisjoint(content.chunks)}
    unread = {_inode(found): found for found in reversed(files) if _inode(found) not in kept}
    slices = list(_slices(list(reversed(unread.values()))))
    if len(slices) < 2:
        for each in slices:
            kept.update(_read_slice(root, each, how))
        return kept
    with ThreadPoolExecutor(_THREADS, "snapshot") as pool:
        try:
            for done in [pool.submit(_read_slice, root, each, how) for each in slices]:
                kept.update(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return kept


def _slices(files: Sequence[_Found]) -> Iterator[list[_Found]]:
    part: list[_Found] = []
    size = 0
    for found in files:
        part.append(found)
        size += found.status.st_size
        if len(part) >= _SLICE_FILES or size >= _SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _read_slice(root: int, files: Sequence[_Found], how: Scan) -> dict[tuple[int, int], Content]:
    with Trail(root) as trail:
        return {_inode(found): _read(trail, found, how) for found in files}


def _read(trail: Trail, found: _Found, how: Scan) -> Content:
    try:
        folder, name = trail.beside(found.path)
        fd = open_file(name, folder)
    except PermissionError:
        raise _unreadable(found.path) from None
    except OSError:
        raise changed(found.path) from None
    try:
        if stamp_of(os.fstat(fd)) != stamp_of(found.status):
            raise changed(found.path)
        content = _content(fd, found, how)
        if stamp_of(os.fstat(fd)) != stamp_of(found.status):
            raise changed(found.path)
    finally:
        os.close(fd)
    return content


def _content(fd: int, found: _Found, how: Scan) -> Content:
    size = found.status.st_size
    attributes = attributes_of(fd)
    how.rules.check_attributes(attributes, found.path)
    sparse = found.status.st_blocks * 512 < size and os.lseek(fd, 0, os.SEEK_HOLE) < size
    whole, chunks, tail = sha256(), [], b""
    for offset in range(0, size, CHUNK):
        if how.stop.is_set():
            raise Stopped
        length = min(CHUNK, size - offset)
        chunk = _ZEROS[:length] if sparse and _is_hole(fd, offset, length) else os.pread(fd, length, offset)
        if len(chunk) != length:
            raise changed(found.path)
        if how.rules.secrets:
            how.rules.check_content(tail + chunk if tail else chunk, found.path)
            tail = chunk[-how.rules.overlap :] if how.rules.overlap else b""
        digest = sha256(chunk).hexdigest()
        if size > CHUNK:
            whole.update(chunk)
        if how.sink is not None:
            how.sink.keep(digest, chunk)
        chunks.append(digest)
    return Content(chunks[0] if len(chunks) == 1 else whole.hexdigest(), tuple(chunks), attributes, sparse)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return True


def attributes_of(fd: int) -> Attributes:
    """The user attributes of what is open; none where its file system has none."""
    if sys.platform != "linux":
        return ()
    try:
        names = sorted(name for name in os.listxattr(fd) if name.startswith("user."))
        return tuple((name, os.getxattr(fd, name)) for name in names)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return ()


def _unreadable(path: str) -> SandboxRefused:
    return SandboxRefused(
        f"{path or '.'!r} may not be read by this process: change its mode, or leave it out by a pattern",
        code="unreadable",
    )


def _tree(walk: _Walk, kept: dict[tuple[int, int], Content]) -> Tree:
    together = Counter(_inode(found) for found in walk.found if found.kind == "file" and found.status.st_nlink > 1)
    groups: dict[tuple[int, int], int] = {}
    entries = []
    for found in walk.found:
        if found.kind == "file":
            inode = _inode(found)
            group = groups.setdefault(inode, len(groups) + 1) if together[inode] > 1 else 0
            entries.append(_file(found, kept[inode], group))
        else:
            attributes = walk.attributes.get(found.path, ())
            mode, mtime = _mode(found), found.status.st_mtime_ns
            entries.append(Entry(found.path, found.kind, mode, mtime, target=found.target, attributes=attributes))
    return Tree(tuple(entries), tuple(sorted(walk.omitted)))


def _file(found: _Found, content: Content, group: int) -> Entry:
    return Entry(
        path=found.path,
        kind="file",
        mode=_mode(found),
        mtime_ns=found.status.st_mtime_ns,
        size=found.status.st_size,
        sha256=content.sha256,
        group=group,
        attributes=content.attributes,
        chunks=content.chunks,
        sparse=content.sparse,
    )


def _mode(found: _Found) -> int:
    return found.status.st_mode & KEPT_MODE
