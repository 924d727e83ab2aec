"""Trees of files that tests make from values, and what they compare of two of them: all that a snapshot promises."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

Look = dict[bytes, tuple[object, ...]]


@dataclass(frozen=True)
class Made:
    """A name of a tree to make. `parts` of a file are (offset, data): between them are holes, `size` is its end."""

    kind: str
    mode: int = 0o644
    mtime_ns: int = 1_700_000_000_123_456_789
    parts: tuple[tuple[int, bytes], ...] = ()
    size: int = 0
    target: bytes = b""
    attributes: dict[str, bytes] = field(default_factory=dict)


def make(root: Path, names: dict[bytes, Made]) -> None:
    """Make a tree below an existing folder; a name's folders must be among the names. `link` has the path of a file
    before it as its target.
    """
    top = os.fsencode(root)
    for path, made in sorted(names.items()):
        _make(top, top + b"/" + path, made)
    for path, made in sorted(names.items(), reverse=True):
        _dress(top + b"/" + path, made)


def _make(top: bytes, path: bytes, made: Made) -> None:
    if made.kind == "directory":
        os.mkdir(path)
    elif made.kind == "symlink":
        os.symlink(made.target, path)
    elif made.kind == "link":
        os.link(top + b"/" + made.target, path)
    elif made.kind == "fifo":
        os.mkfifo(path)
    else:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.ftruncate(fd, made.size)
        for offset, data in made.parts:
            os.pwrite(fd, data, offset)
        os.close(fd)


def _dress(path: bytes, made: Made) -> None:
    if made.kind in ("file", "directory"):
        for name, value in made.attributes.items():
            os.setxattr(path, name, value)
        os.chmod(path, made.mode)
    if made.kind in ("file", "directory", "symlink"):
        os.utime(path, ns=(made.mtime_ns, made.mtime_ns), follow_symlinks=False)


def look(root: Path) -> Look:
    """By path all that has to come back: kind, mode, time, size, content, target, attributes, which names are one."""
    found: Look = {}
    firsts: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            below = os.path.relpath(path, top)
            if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                found[below] = _look(path, below, firsts)
    return found


def _look(path: bytes, below: bytes, firsts: dict[tuple[int, int], bytes]) -> tuple[object, ...]:
    status = os.lstat(path)
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFLNK:
        return "symlink", status.st_mtime_ns, os.readlink(path)
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
    if kind == stat.S_IFDIR:
        return "directory", mode, status.st_mtime_ns, attributes
    with open(path, "rb") as file:
        content = sha256(file.read()).digest()
    first = firsts.setdefault((status.st_dev, status.st_ino), below)
    return "file", mode, status.st_mtime_ns, status.st_size, content, attributes, first


def allocated(root: Path) -> int:
    """Bytes that the files of a tree take on disk."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, files in os.walk(root) for name in files
    )


def names(folder: Path) -> list[str]:
    """All that is below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
