"""What manifests take in from a project: its files and folders, read without leaving it, and their digests.

Owns that nothing outside the project and nothing of its data folder is taken. Blocking. Knows no workspace.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from retinue.runs.errors import ConfigError
from retinue.sandbox.beneath import open_beneath
from retinue.sandbox.names import text_of
from retinue.sandbox.snapshots.rules import Rules

MOST_ENTRIES = 200_000
"""Names in one folder that is taken in."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_PART = 1024 * 1024
_MOST_KNOWN = 4 * MOST_ENTRIES


@dataclass(frozen=True, slots=True)
class Item:
    """A name below a folder that is taken in; `path` is relative to it, `target` that of a link, `state` what changes
    when a file does."""

    path: bytes
    kind: Literal["file", "directory", "symlink"]
    executable: bool = False
    target: bytes = b""
    state: tuple[int, ...] = ()


class Sources:
    """The files of one project. `private` are folders that nothing is taken from, such as the data folder.

    ConfigError names the path, what is wrong with it and the remedy.
    """

    def __init__(self, project: Path, private: Sequence[Path] = ()) -> None:
        self.project = project
        self._private = tuple(Path(os.path.realpath(folder)) for folder in private)
        self._known: dict[tuple[int, ...], str] = {}

    def digest(self, kind: str, path: str, exclude: tuple[str, ...] = ()) -> str:
        """SHA-256 (hex) of a file's bytes and whether it can be run, or of all that a folder holds.

        A file that has not changed since is not read again.
        """
        if kind == "directory":
            return self._digest_folder(path, exclude)
        with self.opened(path) as file:
            return self._digest(_state(os.fstat(file)), file)

    def sha256(self, path: str) -> str:
        """SHA-256 (hex) of a file's bytes, as other programs give it."""
        digest = sha256()
        with self.opened(path) as file:
            for part in parts_of(file):
                digest.update(part)
        return digest.hexdigest()

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """The descriptor of a regular file of the project."""
        with self._told(path), self._root() as root:
            self._refuse_private(path)
            with _regular(root, os.fsencode(path)) as file:
                yield file

    @contextmanager
    def folder(self, path: str, exclude: tuple[str, ...] = ()) -> Iterator[Folder]:
        """A folder of the project, open; without what a pattern leaves out, and what is private below it."""
        with self._told(path), self._root() as root:
            found = self._refuse_private(path)
            top = open_beneath(root, os.fsencode(path), _DIRECTORY)
            try:
                hidden = [os.fsencode(one.relative_to(found)) for one in self._private if one.is_relative_to(found)]
                yield Folder(path, top, Rules(omit=exclude), frozenset(hidden))
            finally:
                os.close(top)

    def mount(self, path: str) -> str:
        """The absolute path of a folder that programs may see. Not the root, a system folder, or one that holds what
        is private."""
        folder = Path(os.path.realpath(self.project / Path(path).expanduser()))
        if len(folder.parts) < 3 or Path(os.path.expanduser("~")).is_relative_to(folder):
            raise ConfigError(f"{folder} is too much to be shown to a sandbox: name a folder below it")
        if folder.parts[1] in ("proc", "sys", "dev", "etc", "run"):
            raise ConfigError(f"{folder} belongs to the system and is not shown: name another folder")
        for private in self._private:
            if private.is_relative_to(folder) or folder.is_relative_to(private):
                raise ConfigError(f"{private} is private to Retinue: name a folder apart from it")
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: make it, or correct the path")
        return str(folder)

    @contextmanager
    def _root(self) -> Iterator[int]:
        root = os.open(self.project, _DIRECTORY | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = "it leads out of the project" if error.errno == errno.EXDEV else error.strerror
            raise ConfigError(f"{path!r} cannot be taken from {self.project}: {said}; correct the path") from None

    def _refuse_private(self, path: str) -> Path:
        """Where a path really leads, which is to nothing private."""
        found = Path(os.path.realpath(self.project / path))
        for private in self._private:
            if found.is_relative_to(private):
                raise ConfigError(f"{path!r} lies in {private}, which is private to Retinue: copy it to another place")
        return found

    def _digest_folder(self, path: str, exclude: tuple[str, ...]) -> str:
        lines = []
        with self.folder(path, exclude) as folder:
            for item in folder.items():
                content = item.target.hex()
                if item.kind == "file":
                    content = self._known.get(item.state) or self._digest_item(folder, item)
                lines.append([item.path.hex(), item.kind, content])
        return sha256(json.dumps(lines).encode()).hexdigest()

    def _digest_item(self, folder: Folder, item: Item) -> str:
        with folder.opened(item) as file:
            return self._digest(_state(os.fstat(file)), file)

    def _digest(self, state: tuple[int, ...], file: int) -> str:
        if state not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            digest = sha256(b"x" if os.fstat(file).st_mode & 0o100 else b"-")
            for part in parts_of(file):
                digest.update(part)
            self._known[state] = digest.hexdigest()
        return self._known[state]


class Folder:
    """A folder of a project that is taken in, while it is open."""

    def __init__(self, path: str, top: int, rules: Rules, private: frozenset[bytes]) -> None:
        self._path = path
        self._top = top
        self._rules = rules
        self._private = private

    def items(self) -> list[Item]:
        """What it holds, sorted by path, directories before what is in them."""
        return sorted(self._walk(), key=lambda item: item.path)

    @contextmanager
    def opened(self, item: Item) -> Iterator[int]:
        """The descriptor of a file that `items` has told of."""
        with _regular(self._top, item.path) as file:
            yield file

    def _walk(self) -> Iterator[Item]:
        waiting, seen = [b"."], 0
        while waiting:
            inner = waiting.pop()
            opened = open_beneath(self._top, inner, _DIRECTORY | os.O_NOFOLLOW)
            try:
                for name in map(os.fsencode, os.listdir(opened)):
                    seen += 1
                    if seen > MOST_ENTRIES:
                        raise ConfigError(
                            f"{self._path!r} holds more than {MOST_ENTRIES:,} names: name smaller folders"
                        )
                    path = name if inner == b"." else inner + b"/" + name
                    if path in self._private:
                        continue
                    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
                    if self._rules.omits(os.fsdecode(path), stat.S_ISDIR(status.st_mode)):
                        continue
                    item = self._item(opened, path, status)
                    if item.kind == "directory":
                        waiting.append(path)
                    yield item
            finally:
                os.close(opened)

    def _item(self, opened: int, path: bytes, status: os.stat_result) -> Item:
        if stat.S_ISDIR(status.st_mode):
            return Item(path, "directory")
        if stat.S_ISREG(status.st_mode):
            return Item(path, "file", bool(status.st_mode & 0o100), state=_state(status))
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path.rpartition(b"/")[2], dir_fd=opened)
            if leads_out(path, target):
                raise ConfigError(
                    f"{self._path!r} has a link {text_of(path)!r} to {text_of(target)!r}, which leads out of it: "
                    "exclude it, or put a file there"
                )
            return Item(path, "symlink", target=target)
        raise ConfigError(f"{self._path!r} has {text_of(path)!r}, which is no file, directory or link: exclude it")


@contextmanager
def _regular(folder: int, path: bytes) -> Iterator[int]:
    file = open_beneath(folder, path, _FILE)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield file
    finally:
        os.close(file)


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does, whoever sets its time back."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def parts_of(file: int) -> Iterator[bytes]:
    """The bytes of an open file, from its beginning."""
    offset = 0
    while part := os.pread(file, _PART, offset):
        offset += len(part)
        yield part


def leads_out(path: bytes, target: bytes) -> bool:
    """Whether a link of this path leads above the folder that the path is relative to, as far as names tell."""
    if target.startswith(b"/") or not target or b"\0" in target:
        return True
    depth = path.count(b"/")
    for name in target.split(b"/"):
        depth += {b"..": -1, b".": 0, b"": 0}.get(name, 1)
        if depth < 0:
            return True
    return False
