"""Files in a place that several machines reach: an S3 bucket or a shared folder, behind one small port.

Owns how places are named, read and written whole. Credentials and endpoint come from the process's environment and
stand in no URL. Knows neither blobs nor rows.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from retinue.runs.errors import ConfigError, InvalidInput

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)
_FILE = re.compile(r"file://(/.*)", re.DOTALL)
AHEAD = 4 * 1024 * 1024
"""Bytes that are fetched at a time of a file that is read from its beginning to its end."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path below the place, its size in bytes, a tag that changes with its content, and when it was
    written by the clock of the place (Unix ns; 0 where that is not told).
    """

    path: str
    size: int
    tag: str
    written_ns: int = 0


class Objects(Protocol):
    """A place for files. Blocking; every call has a bound. Paths are relative, with slashes.

    Raises StoreUnreachable when the place does not answer or does not let us in, which may pass; StoreFull.
    """

    place: str
    """Its name, for people."""

    def put(self, path: str, content: bytes) -> None:
        """Write a file, durable and whole when this returns; it replaces one of that name."""
        ...

    def upload(self, path: str, file: Path) -> None:
        """The same for the content of a local file, of any size."""
        ...

    def get(self, path: str) -> bytes | None:
        """A whole file; None when there is none."""
        ...

    def head(self, path: str) -> Found | None:
        """What there is under a path, if anything."""
        ...

    def list(self, folder: str) -> Iterator[Found]:
        """Every file below a folder, in any order."""
        ...

    def open(self, found: Found, ahead: int = AHEAD) -> BinaryIO:
        """A file to read from, anywhere in it, at least `ahead` bytes at a time over a network. InvalidInput from a
        read when it changed."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when there is none."""
        ...


def is_url(text: str) -> bool:
    """Whether a text names a place rather than a local path."""
    return "://" in text


def split_url(url: str) -> tuple[str, str]:
    """The place and the path in it: (`s3://bucket`, `in/a.jsonl`), or (`file:///`, `shared/in/a.jsonl`).

    InvalidInput when it is neither.
    """
    if found := _S3.fullmatch(url):
        return f"s3://{found[1]}", found[2] or ""
    if found := _FILE.fullmatch(url):
        return "file:///", found[1].lstrip("/")
    raise InvalidInput(
        f"{url!r} names no place for files: write s3://bucket/path or file:///folder/path "
        "(credentials and endpoint come from AWS_... of the environment)"
    )


def resolve(text: str, key: str) -> str:
    """The text with `${NAME}` replaced from this process's environment. ConfigError names what is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"{key}: the environment variable {found[1]} is not set in this process; set it")
        return os.environ[found[1]]

    return _REFERENCE.sub(value, text)


class RangedFile(io.RawIOBase):
    """A file read by ranges, for the readers of formats. `read` gives the bytes of (start, length)."""

    def __init__(self, objects: Ranges, found: Found) -> None:
        super().__init__()
        self._objects = objects
        self._found = found
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.RawIOBase."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._found.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """See io.RawIOBase."""
        length = min(len(buffer), self._found.size - self._at)
        if length <= 0:
            return 0
        data = self._objects.range(self._found, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Ranges(Protocol):
    """What a ranged file reads from."""

    def range(self, found: Found, start: int, length: int) -> bytes:
        """So many bytes of a file from `start` on."""
        ...


def ranged(objects: Ranges, found: Found, ahead: int) -> BinaryIO:
    """A buffered file over ranges: each request is for `ahead` bytes at least."""
    return io.BufferedReader(RangedFile(objects, found), ahead)
