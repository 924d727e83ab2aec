"""Filling a fresh folder: directories, files and links are made once, beneath it, within limits.

Owns that nothing is made twice or through a link, and that all of it has one owner and one time. Blocking. Knows
neither manifests nor archives. Nothing runs in the folder while it is filled.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import TracebackType

from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import Trail
from retinue.sandbox.manifests.sources import parts_of
from retinue.sandbox.names import text_of
from retinue.sandbox.profiles import Limits
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.walking import Stopped

MOMENT = 1_000_000_000 * 1_000_000_000
"""Unix ns: the time of everything that is made from a manifest, so that two workspaces of it are the same."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CLASHES = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Builder:
    """Makes things in `root`, by paths relative to it without `..`. Use it as a context, in one thread.

    SandboxRefused: `quota`, `conflict` (something has that name, or a file or link is on the way to it), `bad_path`;
    PermanentError: `no_space`, `sandbox_io`. `entries` and `bytes` count what was made; `work` is a folder beside for
    what is on its way.
    """

    def __init__(self, root: Path, limits: Limits, stop: Event, work: Path) -> None:
        self.work = work
        self.quota = Quota(bytes=limits.disk, files=limits.files, file_bytes=limits.file_bytes)
        self.entries = 0
        self.bytes = 0
        self._stop = stop
        self._trail = Trail(root)

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._trail.__exit__(kind, error, at)

    def directory(self, path: str) -> None:
        """Make a directory, with those above it; one that is there is enough."""
        with self._told(path):
            self._at(path)

    def file(self, path: str, parts: Iterable[bytes], executable: bool = False, replace: bool = False) -> None:
        """Make a file with its directories; `replace` takes the place of a regular file."""
        with self._told(path):
            folder, name = self._beside(path)
            if replace and self._is_file(folder, name):
                self._forget(folder, name)
            self._count(path)
            file = os.open(name, _NEW, 0o600, dir_fd=folder)
            try:
                self._fill(path, file, parts)
                os.fchmod(file, 0o755 if executable else 0o644)
            finally:
                os.close(file)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link with its directories. Where it leads is for the caller to have looked at."""
        with self._told(path):
            folder, name = self._beside(path)
            self._count(path)
            os.symlink(target, name, dir_fd=folder)

    def copy(self, path: str, other: str) -> None:
        """Make a file with the content of `other`, which was made before."""
        with self._told(other):
            folder, name = self._trail.beside(other)
            file = os.open(name, _OLD, dir_fd=folder)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise SandboxRefused(f"{path!r} is to be the same as {other!r}, which is no file", code="conflict")
            self.file(path, parts_of(file), bool(status.st_mode & 0o100))
        finally:
            os.close(file)

    def check(self) -> None:
        """Stopped when nobody waits any more."""
        if self._stop.is_set():
            raise Stopped

    def _at(self, path: str) -> int:
        """The descriptor of a directory, made with those above it."""
        if path in ("", "."):
            return self._trail.at("")
        try:
            return self._trail.at(path)
        except FileNotFoundError:
            above, _, name = path.rpartition("/")
            folder = self._at(above)
            self._count(path)
            os.mkdir(name, 0o755, dir_fd=folder)
            made = self._trail.at(path)
            os.fchmod(made, 0o755)
            return made

    def _beside(self, path: str) -> tuple[int, str]:
        above, _, name = path.rpartition("/")
        return self._at(above), name

    def _count(self, path: str) -> None:
        self.check()
        self.entries += 1
        self.quota.check("files", self.entries)
        self.quota.check("depth", path.count("/") + 1, repr(path[:200]))

    def _fill(self, path: str, file: int, parts: Iterable[bytes]) -> None:
        size = 0
        for part in parts:
            self.check()
            size += len(part)
            self.bytes += len(part)
            self.quota.check("file_bytes", size, repr(path[:200]))
            self.quota.check("bytes", self.bytes)
            left = memoryview(part)
            while left:
                left = left[os.write(file, left) :]

    def _is_file(self, folder: int, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _forget(self, folder: int, name: str) -> None:
        self.bytes -= os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        self.entries -= 1
        os.unlink(name, dir_fd=folder)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            shown = repr(text_of(os.fsencode(path))[:200])
            if error.errno in _CLASHES:
                said = "something else has this name, or is on the way to it"
                raise SandboxRefused(f"{shown} cannot be made: {said}", code="conflict") from None
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT):
                raise SandboxRefused(f"{shown} cannot be made: {error.strerror}", code="bad_path") from None
            code = "no_space" if error.errno in _FULL else "sandbox_io"
            raise PermanentError(f"{shown} cannot be made: {error.strerror}", code=code) from None


def settle(root: Path, uid: int | None) -> tuple[int, int]:
    """Give all of a folder to a user and to one moment; (entries, bytes of files) below it. Nothing may run in it."""
    entries = size = 0
    for _, folders, files, folder in os.fwalk(root, topdown=False, follow_symlinks=False):
        for name in (*files, *folders):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            entries += 1
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            if uid is not None:
                os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=(MOMENT, MOMENT), dir_fd=folder, follow_symlinks=False)
    if uid is not None:
        os.chown(root, uid, uid, follow_symlinks=False)
    os.utime(root, ns=(MOMENT, MOMENT), follow_symlinks=False)
    return entries, size
