"""Copies of a remote store's objects on this node, so that what was used is not fetched again.

Owns one folder and its bound in bytes: what was used longest ago goes. Any copy may go at any time; a damaged one is no
copy. Knows no place and no snapshot. What is in it is sealed as it is in the store.
"""

from __future__ import annotations

import contextlib
import os
import threading
from hashlib import blake2b
from pathlib import Path

from retinue.sandbox.folders import remove_tree
from retinue.sandbox.snapshots.objects import quoted

_DIGEST = 16
_LEAVE = 0.8
"""To this part of the bound copies are removed once they are over it."""


class Nearby:
    """Copies in a folder, `most` bytes together, more or less: several processes share it. Blocking; raises nothing of
    a disk that is full. Safe for threads.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._size: int | None = None
        self._lock = threading.Lock()

    def get(self, tenant: str, key: str) -> bytes | None:
        """A copy; None when there is none that is whole."""
        path = self._of(tenant, key)
        try:
            found = path.read_bytes()
            if blake2b(found[_DIGEST:], digest_size=_DIGEST).digest() == found[:_DIGEST]:
                os.utime(path)
                return found[_DIGEST:]
            path.unlink(missing_ok=True)
        except OSError:
            return None
        return None

    def put(self, tenant: str, key: str, content: bytes) -> None:
        """Keep a copy, if there is room."""
        path = self._of(tenant, key)
        draft = path.with_name(f"{path.name}.{os.urandom(6).hex()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(blake2b(content, digest_size=_DIGEST).digest() + content)
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            return
        self._grown(len(content))

    def drop(self, tenant: str, key: str) -> None:
        """There shall be no copy of this one."""
        self._of(tenant, key).unlink(missing_ok=True)

    def erase(self, tenant: str) -> None:
        """Remove all copies of a tenant."""
        remove_tree(self._folder / quoted(tenant))

    def _of(self, tenant: str, key: str) -> Path:
        return self._folder / quoted(tenant) / key

    def _grown(self, by: int) -> None:
        with self._lock:
            if self._size is None:
                self._size = sum(size for _, size, _ in self._all())
            else:
                self._size += by
            if self._size > self._most:
                self._size = self._trim()

    def _trim(self) -> int:
        """Remove the copies that were used longest ago; the bytes of those that stay."""
        found = sorted(self._all())
        size = sum(each for _, each, _ in found)
        for _, each, path in found:
            if size <= self._most * _LEAVE:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                size -= each
        return size

    def _all(self) -> list[tuple[int, int, str]]:
        """When each was used last (Unix ns), its size, its path."""
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(f"{folder}/{name}")
                    found.append((status.st_mtime_ns, status.st_size, f"{folder}/{name}"))
        return found
