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
from retinue.sandbox.paths import plain
from retinue.sandbox.rules import Rules

MOST_ENTRIES = 200_000
"""Names in one folder that is taken in."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_PART = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """A name below a folder that is taken in; `path` is relative to it, `target` that of a link."""

    path: bytes
    kind: Literal["file", "directory", "symlink"]
    executable: bool = False
    size: int = 0
    target: bytes = b""


class Sources:
    """The files of one project. `private` are folders that nothing is taken from, such as the data folder.

    ConfigError names the path, what is wrong with it and the remedy.
    """

    def __init__(self, project: Path, private: Sequence[Path] = ()) -> None:
        self.project = project
        self._private = tuple(Path(os.path.realpath(folder)) for folder in private)
        self._known: dict[tuple[int, ...], str] = {}

    def digest(self, kind: str, path: str, exclude: tuple[str, ...] = ()) -> str:
        """SHA-256 (hex) of a file, or of all that a folder holds."""
        return self.digest_file(path) if kind == "file" else self._digest_folder(path, exclude)

    def digest_file(self, path: str) -> str:
        """SHA-256 (hex) of a file's bytes and of whether it can be run."""
        with self.opened(path) as file:
            return self._digest(file)

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
            file = open_beneath(root, os.fsencode(path), _FILE)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, "it is no regular file")
                self._refuse_private(path)
                yield file
            finally:
                os.close(file)

    @contextmanager
    def opened_in(self, folder: str, item: Item) -> Iterator[int]:
        """The descriptor of a file that `items` has told of."""
        with self.opened(os.fsdecode(plain(os.fsencode(folder) + b"/" + item.path))) as file:
            yield file

    def items(self, folder: str, exclude: tuple[str, ...] = ()) -> list[Item]:
        """What a folder holds, sorted, directories before what is in them; without what a pattern leaves out."""
        with self._told(folder), self._root() as root:
            top = open_beneath(root, os.fsencode(folder), _DIRECTORY)
            try:
                self._refuse_private(folder)
                return sorted(self._walk(folder, top, Rules(omit=exclude)), key=lambda item: item.path)
            finally:
                os.close(top)

    def mount(self, path: str) -> str:
        """The absolute path of a folder that programs may see. Not the root, a system folder, or one that holds what
        is private."""
        folder = Path(os.path.realpath(self.project / Path(path).expanduser()))
        if len(folder.parts) < 3 or Path.home().is_relative_to(folder):
            raise ConfigError(f"mounts: {path}: {folder} is too much to be shown to a sandbox: name a folder below it")
        if folder.parts[1] in ("proc", "sys", "dev", "etc", "run"):
            raise ConfigError(f"mounts: {path}: {folder} belongs to the system and is not shown: name another folder")
        for private in self._private:
            if private.is_relative_to(folder) or folder.is_relative_to(private):
                raise ConfigError(f"mounts: {path}: {private} is private to Retinue: name a folder apart from it")
        if not folder.is_dir():
            raise ConfigError(f"mounts: {path}: there is no folder {folder}: make it, or correct the path")
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

    def _refuse_private(self, path: str) -> None:
        found = Path(os.path.realpath(self.project / path))
        for private in self._private:
            if found.is_relative_to(private):
                raise ConfigError(f"{path!r} lies in {private}, which is private to Retinue: copy it to another place")

    def _walk(self, folder: str, top: int, rules: Rules) -> Iterator[Item]:
        waiting, seen = [b"."], 0
        while waiting:
            inner = waiting.pop()
            opened = open_beneath(top, inner, _DIRECTORY | os.O_NOFOLLOW)
            try:
                for name in sorted(map(os.fsencode, os.listdir(opened))):
                    seen += 1
                    if seen > MOST_ENTRIES:
                        raise ConfigError(f"{folder!r} holds more than {MOST_ENTRIES:,} names: name smaller folders")
                    item = self._item(folder, opened, plain(inner + b"/" + name))
                    if rules.omits(os.fsdecode(item.path), item.kind == "directory") or self._is_private(folder, item):
                        continue
                    if item.kind == "directory":
                        waiting.append(item.path)
                    yield item
            finally:
                os.close(opened)

    def _is_private(self, folder: str, item: Item) -> bool:
        """The data folder below a folder that is taken in is left out without being asked."""
        found = Path(os.path.realpath(self.project / folder / os.fsdecode(item.path)))
        return item.kind == "directory" and any(found.is_relative_to(private) for private in self._private)

    def _item(self, folder: str, opened: int, path: bytes) -> Item:
        name = path.rpartition(b"/")[2]
        status = os.stat(name, dir_fd=opened, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return Item(path, "directory")
        if stat.S_ISREG(status.st_mode):
            return Item(path, "file", bool(status.st_mode & 0o100), status.st_size)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=opened)
            if leads_out(path, target):
                raise ConfigError(
                    f"{folder!r} has a link {text_of(path)!r} to {text_of(target)!r}, which leads out of it: exclude "
                    "it, or put a file there"
                )
            return Item(path, "symlink", target=target)
        raise ConfigError(f"{folder!r} has {text_of(path)!r}, which is no file, directory or link: exclude it")

    def _digest_folder(self, folder: str, exclude: tuple[str, ...]) -> str:
        lines = []
        for item in self.items(folder, exclude):
            content = item.target.hex()
            if item.kind == "file":
                with self.opened_in(folder, item) as file:
                    content = self._digest(file)
            lines.append([item.path.hex(), item.kind, content])
        return sha256(json.dumps(lines).encode()).hexdigest()

    def _digest(self, file: int) -> str:
        """Of content and mode; a file that was not changed since is not read again."""
        status = os.fstat(file)
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)
        if key not in self._known:
            digest = sha256(b"x" if status.st_mode & 0o100 else b"-")
            for part in parts_of(file):
                digest.update(part)
            self._known[key] = digest.hexdigest()
        return self._known[key]


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
