"""A workspace from the host's side: files are read, written, edited and listed beneath its folder and nowhere else.

Owns that no path leads out, that only regular files are opened, and all bounds on size. Its functions block. Knows no
backend, no snapshot and no manifest. Programs may have run in the folder, and may still: nothing in it is trusted.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import nsmallest
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from retinue.runs.sandboxes import FileContent, FileEntry, SandboxLost, SandboxRefused
from retinue.sandbox.beneath import Opener, open_beneath
from retinue.sandbox.names import text_of
from retinue.sandbox.paths import VANISHED, encoded, plain, raw_of, refuse_special, shortened, split, text_part, told

MIB = 1024 * 1024
LARGEST_READ = 8 * MIB
"""Bytes of one read."""

LARGEST_EDIT = 16 * MIB
"""Bytes of a file that can be edited."""

LARGEST_WRITE = 64 * MIB
"""Bytes of a file that can be written, where nobody says otherwise."""

MOST_LISTED = 10_000
MOST_SEEN = 200_000
"""Names that a listing looks at."""

_MOST_LINKS = 40
_FARTHEST = 2**62
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class _Name(NamedTuple):
    """A name in an open folder; `status` is None where nothing has it."""

    folder: int
    name: bytes
    status: os.stat_result | None


class Workspace:
    """The files beneath a folder. All paths are relative to it; links are followed as long as they stay in it.

    `uid` is who new files belong to (and the group of the same number); None: who we are. `largest` bounds a written
    file, in bytes. `seen_as` is the absolute path by which programs in the sandbox know the folder: paths that begin
    with it are taken as relative.

    SandboxRefused, and nothing changed: `outside`, `not_found`, `not_a_file`, `is_a_directory`, `not_a_directory`,
    `too_large`, `not_unique`, `bad_path`, `bad_range`, `denied`. PermanentError for a disk that is full (`no_space`) or
    fails (`sandbox_io`).
    """

    def __init__(
        self,
        folder: Path,
        uid: int | None = None,
        largest: int = LARGEST_WRITE,
        opener: Opener = open_beneath,
        seen_as: str | None = None,
    ) -> None:
        self.folder = folder
        self._seen_as = seen_as
        self._uid = uid
        self._largest = largest
        self._open = opener

    def read(self, path: str, offset: int = 0, limit: int = 256 * 1024) -> FileContent:
        """A part of a regular file. Text ends at a whole character; base64 for what is no UTF-8 or holds NUL."""
        path = self._relative(path)
        if not 0 <= offset <= _FARTHEST or limit < 1:
            raise SandboxRefused(f"offset {offset}, limit {limit}: give 0 or more, and 1 or more", code="bad_range")
        if limit > LARGEST_READ:
            raise SandboxRefused(
                f"limit {limit:,}: at most {LARGEST_READ:,} bytes are read at once; read in parts", code="too_large"
            )
        with told(path), self._root() as root, self._file(root, raw_of(path)) as file:
            data = _read(file, offset, limit)
            size = max(os.fstat(file).st_size, offset + len(data) if data else 0)
        cut = offset + len(data) < size
        text = text_part(data, cut)
        end = offset + len(data if text is None else text.encode())
        return FileContent(
            path=_shown(path),
            size=size,
            text=text,
            data=b64encode(data).decode() if text is None else None,
            offset=offset,
            cut=end < size,
            next_offset=end if end < size else None,
        )

    def write(self, path: str, data: bytes, executable: bool = False) -> FileEntry:
        """A whole file, made with its directories (0755) or replaced at once. New: 0644; a replaced one keeps its
        mode. `executable` adds the right to run it."""
        path = self._relative(path)
        self._refuse_large(path, len(data))
        with told(path), self._root() as root, self._place(root, raw_of(path), parents=True) as place:
            mode = self._put(place, data, executable)
        return _entry_of(path, data, mode)

    def edit(self, path: str, old: str, new: str, count: int = 1) -> FileEntry:
        """Replace exactly `count` occurrences of a text; `not_unique` when there are more or fewer."""
        path = self._relative(path)
        if not old or count < 1:
            raise SandboxRefused(
                f"{shortened(path)}: give the text to replace, and a count of 1 or more (got {count})", code="bad_range"
            )
        with told(path), self._root() as root:
            raw = raw_of(path)
            with self._file(root, raw) as file:
                data = self._whole(path, file)
            wanted, given = encoded(old), encoded(new)
            found = data.count(wanted)
            if found != count:
                remedy = "read it again" if found == 0 else "give more of the text around it, or its count"
                raise SandboxRefused(
                    f"{shortened(path)} has the text {old[:80]!r} {found} times, not {count}: {remedy}",
                    code="not_unique",
                )
            self._refuse_large(path, len(data) + count * (len(given) - len(wanted)))
            changed = data.replace(wanted, given)
            with self._place(root, raw, parents=False) as place:
                mode = self._put(place, changed, False)
        return _entry_of(path, changed, mode)

    def list(self, path: str = ".", depth: int = 1, limit: int = 1_000) -> tuple[FileEntry, ...]:
        """The first `limit` names below a directory, sorted by path, `depth` levels down. No link is entered."""
        path = self._relative(path)
        if depth < 1 or not 1 <= limit <= MOST_LISTED:
            raise SandboxRefused(
                f"depth {depth}, limit {limit}: give 1 or more, and 1 to {MOST_LISTED:,}", code="bad_range"
            )
        with told(path), self._root() as root:
            raw = raw_of(path)
            with self._opened(root, raw, _DIRECTORY) as folder:
                names = nsmallest(limit, self._names(path, folder, depth), key=text_of)
            entries = (self._entry(root, plain(raw + b"/" + name)) for name in names)
            return tuple(entry for entry in entries if entry is not None)

    def _relative(self, path: str) -> str:
        if self._seen_as is None or not f"{path}/".startswith(f"{self._seen_as}/"):
            return path
        return path[len(self._seen_as) :].lstrip("/") or "."

    def _refuse_large(self, path: str, size: int) -> None:
        if size > self._largest:
            raise SandboxRefused(
                f"{shortened(path)} would have {size:,} bytes, and a file may have {self._largest:,}: write less",
                code="too_large",
            )

    # -- opening ---------------------------------------------------------------------------------------------

    @contextmanager
    def _root(self) -> Iterator[int]:
        try:
            root = os.open(self.folder, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxLost(f"the workspace {self.folder.name} cannot be opened: {error.strerror}") from None
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _opened(self, root: int, path: bytes, flags: int) -> Iterator[int]:
        descriptor = self._open(root, path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _file(self, root: int, path: bytes) -> Iterator[int]:
        """A regular file: what else has the name is never read, and never waited for."""
        with self._opened(root, path, _FILE) as file:
            refuse_special(os.fstat(file))
            yield file

    def _whole(self, path: str, file: int) -> bytes:
        data = _read(file, 0, LARGEST_EDIT + 1)
        if len(data) > LARGEST_EDIT:
            raise SandboxRefused(
                f"{shortened(path)} has {os.fstat(file).st_size:,} bytes, and at most {LARGEST_EDIT:,} are edited: "
                "use a program in the sandbox",
                code="too_large",
            )
        return data

    @contextmanager
    def _place(self, root: int, path: bytes, parents: bool) -> Iterator[_Name]:
        """Where a file of this path is to be, behind the links that lead there."""
        for _ in range(_MOST_LINKS):
            parent, name = split(path)
            if parents:
                self._make(root, parent)
            with self._opened(root, parent, _DIRECTORY) as folder:
                status = _status(folder, name)
                if status is None or not stat.S_ISLNK(status.st_mode):
                    if status is not None:
                        refuse_special(status)
                    yield _Name(folder, name, status)
                    return
                # From the folder of the link on, as the kernel would walk it; `..` in it may follow a link before.
                target = os.readlink(name, dir_fd=folder)
            if target.startswith(b"/"):
                raise OSError(errno.EXDEV, "leads out of the workspace")
            path = parent + b"/" + target
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _make(self, root: int, parent: bytes) -> None:
        """Make the directories of a path that are not there."""
        made = b"."
        for name in parent.split(b"/"):
            inner = made + b"/" + name
            try:
                os.close(self._open(root, inner, _DIRECTORY))
            except FileNotFoundError:
                with self._opened(root, made, _DIRECTORY) as folder:
                    self._make_one(folder, name)
            made = inner

    def _make_one(self, folder: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=folder)
        made = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            self._give(made, 0o755)
        finally:
            os.close(made)

    # -- writing ---------------------------------------------------------------------------------------------

    def _put(self, place: _Name, data: bytes, executable: bool) -> int:
        """Write beside, then rename: whoever looks sees the old file or the new one. Returns its mode."""
        mode = 0o644 if place.status is None else stat.S_IMODE(place.status.st_mode) & 0o777
        mode |= 0o111 if executable else 0
        beside = f".{token_hex(8)}.part".encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(beside, flags, 0o600, dir_fd=place.folder)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            self._give(file, mode)
            os.rename(beside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside, dir_fd=place.folder)
            raise
        finally:
            os.close(file)
        return mode

    def _give(self, descriptor: int, mode: int) -> None:
        if self._uid is not None:
            os.fchown(descriptor, self._uid, self._uid)
        os.fchmod(descriptor, mode)

    # -- listing ---------------------------------------------------------------------------------------------

    def _names(self, path: str, folder: int, depth: int) -> Iterator[bytes]:
        """Names below a folder, in no order, relative to it."""
        waiting = [(b".", 1)]
        seen = 0
        while waiting:
            inner, level = waiting.pop()
            with self._below(folder, inner) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MOST_SEEN:
                        raise SandboxRefused(
                            f"{shortened(path)} holds more than {MOST_SEEN:,} names: list a directory further down, "
                            "or fewer levels",
                            code="too_large",
                        )
                    name = os.fsencode(entry.name)
                    found = name if inner == b"." else inner + b"/" + name
                    if level < depth and entry.is_dir(follow_symlinks=False):
                        waiting.append((found, level + 1))
                    yield found

    @contextmanager
    def _below(self, folder: int, inner: bytes) -> Iterator[Iterator[os.DirEntry[str]]]:
        """The entries of a directory; none where it has gone or is not ours to read."""
        try:
            opened = self._open(folder, inner, _DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if inner == b"." or error.errno not in VANISHED:
                raise
            yield iter(())
            return
        try:
            with os.scandir(opened) as entries:
                yield entries
        finally:
            os.close(opened)

    def _entry(self, root: int, path: bytes) -> FileEntry | None:
        parent, name = split(path)
        try:
            with self._opened(root, parent, _DIRECTORY) as folder:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else None
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            return None
        return FileEntry.model_validate(
            {
                "path": text_of(path),
                "kind": _KINDS.get(stat.S_IFMT(status.st_mode), "other"),
                "size": status.st_size if stat.S_ISREG(status.st_mode) else 0,
                "mode": stat.S_IMODE(status.st_mode),
                "target": None if target is None else text_of(target),
            }
        )


def _entry_of(path: str, data: bytes, mode: int) -> FileEntry:
    return FileEntry(path=_shown(path), kind="file", size=len(data), mode=mode)


def _shown(path: str) -> str:
    return text_of(plain(raw_of(path)))


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _read(file: int, offset: int, most: int) -> bytes:
    parts = []
    while most and (part := os.pread(file, min(most, MIB), offset)):
        parts.append(part)
        offset += len(part)
        most -= len(part)
    return b"".join(parts)
