"""Files below a folder that several machines mount: written beside, synced, renamed.

Knows neither blobs nor rows.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, BinaryIO

from retinue.runs.errors import StoreError, StoreUnreachable
from retinue.store import disks
from retinue.store.objects import AHEAD, Found
from retinue.store.sealing import sync_folder

_ENDS = 65_536


def digest_of_ends(file: BinaryIO, size: int) -> str:
    """A hash of the first and last 64 KiB of an open file."""
    head = file.read(_ENDS)
    file.seek(max(size - _ENDS, 0))
    return blake2b(head + file.read(_ENDS), digest_size=8).hexdigest()


class FolderObjects:
    """Files below a folder that all machines mount. Implements `Objects`; writes are synced and renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def put(self, path: str, content: bytes) -> None:
        """See Objects."""
        self._write(path, io.BytesIO(content))

    def upload(self, path: str, file: Path) -> None:
        """See Objects."""
        with file.open("rb") as source:
            self._write(path, source)

    def get(self, path: str) -> bytes | None:
        """See Objects."""
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(path, error) from None

    def head(self, path: str) -> Found | None:
        """See Objects."""
        target = self._folder / path
        try:
            if not target.is_file():
                return None
            size = target.stat().st_size
            with target.open("rb") as file:
                return Found(path, size, digest_of_ends(file, size))
        except OSError as error:
            raise self._failed(path, error) from None

    def list(self, folder: str) -> Iterator[Found]:
        """See Objects."""
        for where, _, names in os.walk(self._folder / folder):
            for name in sorted(names):
                path = str((Path(where) / name).relative_to(self._folder))
                if not name.startswith(".") and (found := self.head(path)):
                    yield found

    def open(self, found: Found, ahead: int = AHEAD) -> BinaryIO:
        """See Objects. Nothing is fetched ahead: the system does."""
        try:
            return (self._folder / found.path).open("rb")
        except OSError as error:
            raise self._failed(found.path, error) from None

    def delete(self, path: str) -> None:
        """See Objects."""
        try:
            (self._folder / path).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(path, error) from None

    def _write(self, path: str, source: IO[bytes]) -> None:
        target = self._folder / path
        draft = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._failed(path, error) from None

    def _failed(self, path: str, error: OSError) -> StoreError:
        if disks.is_full(error):
            return disks.full(f"free space ({self._folder / path})")
        cause = error.strerror or str(error)
        return StoreUnreachable(f"{self._folder / path}: {cause}; check that the folder is mounted and its permissions")
