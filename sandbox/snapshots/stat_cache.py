"""What a scan remembers of files, so that the next one need not read what did not change.

Owns one file beside a workspace. A file counts as unchanged when device, inode, size, mtime and ctime are those it had
when it was read, and when it was older than that scan by more than the clock of its file system can be wrong (else a
change right after the reading could bear the same time). Nobody but the kernel sets a ctime. A cache that is damaged,
or of another version, is no cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import Any

from retinue.sandbox.snapshots.trees import Attributes

_FORMAT = 2
_TICK_NS = 50_000_000
"""More than any kernel's tick, by which file times lag behind."""
_COARSE_NS = 2_000_000_000
"""The same for file systems that keep whole seconds, or two."""
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Content:
    """What reading a regular file gave: see Entry for the words."""

    sha256: str
    chunks: tuple[str, ...]
    attributes: Attributes = ()
    sparse: bool = False


Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in ns."""


def stamp_of(status: os.stat_result) -> Stamp:
    """What a file is known by."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def cache_of(folder: Path) -> Path:
    """Where the cache of a workspace stands: beside it."""
    return folder.with_name(f"{folder.name}.stats")


class StatCache:
    """The cache of one workspace, in the file `path`. Make one for each scan, before it begins: the file system's
    time at that moment is what `save` goes by. Not for two threads or processes at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        for left in path.parent.glob(f"{escape(path.name)}.*.draft"):
            left.unlink(missing_ok=True)
        self._device, self._known = _load(path)
        self._draft = path.with_name(f"{path.name}.{os.urandom(6).hex()}.draft")
        self._began_ns = _touch(self._draft)

    def find(self, path: str, status: os.stat_result) -> Content | None:
        """What the file is known to hold, None when it has to be read."""
        known = self._known.get(path)
        if known is None or (self._device, *known[0]) != stamp_of(status):
            return None
        _, digest, chunks, attributes, sparse = known
        found = tuple((name, bytes.fromhex(value)) for name, value in attributes)
        return Content(digest, tuple(chunks) or ((digest,) if status.st_size else ()), found, sparse)

    def save(self, found: Mapping[str, tuple[Stamp, Content]]) -> None:
        """Keep what a scan that began after this object was made has found, in place of all that was kept."""
        rows = {path: _row(*each) for path, each in found.items() if self._settled(each[0])}
        device = next((stamp[0] for stamp, _ in found.values()), 0)
        self._draft.write_bytes(_sealed(device, json.dumps(rows, separators=(",", ":")).encode("ascii")))
        self._draft.replace(self._path)

    def close(self) -> None:
        """Remove what an unfinished scan left."""
        self._draft.unlink(missing_ok=True)

    def _settled(self, stamp: Stamp) -> bool:
        newest = max(stamp[3], stamp[4])
        return newest < self._began_ns - (_COARSE_NS if stamp[4] % _SECOND_NS == 0 else _TICK_NS)


def _row(stamp: Stamp, content: Content) -> list[Any]:
    chunks = content.chunks if len(content.chunks) > 1 else ()
    return [
        stamp[1:],
        content.sha256,
        chunks,
        [[name, value.hex()] for name, value in content.attributes],
        content.sparse,
    ]


def _touch(path: Path) -> int:
    """Make a file and return when that was, by the clock that stamps files."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def copy_cache(source: Path, target: Path, device: int) -> None:
    """Let a folder on another device, which shows the very files of another folder, be known as that one is."""
    _, rows = _body(source)
    target.write_bytes(_sealed(device, rows))


def _load(path: Path) -> tuple[int, dict[str, Any]]:
    head, rows = _body(path)
    kind, device = json.loads(head)
    files: dict[str, Any] = json.loads(rows) if kind == _FORMAT else {}
    return device, files


def _body(path: Path) -> tuple[bytes, bytes]:
    """The head and the rows of a cache; those of an empty one where there is none that is whole."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return b"[0,0]", b"{}"
    head, _, rows = body.partition(b"\n")
    return (head, rows) if digest == _digest(body) and rows else (b"[0,0]", b"{}")


def _sealed(device: int, rows: bytes) -> bytes:
    body = b"%s\n%s" % (json.dumps([_FORMAT, device]).encode("ascii"), rows)
    return _digest(body) + b"\n" + body


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16, person=b"retinue-stat").hexdigest().encode("ascii")
