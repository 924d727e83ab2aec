"""Copies of a store of snapshots in a folder: made while others use it, and brought back with every byte checked.

Owns the form of a copy. Knows no key and opens no object: what is sealed is copied as it is. Blocking; few bytes are in
memory at once, whatever the size.

    snapshots/<tenant>/trees/..      heads of lists: copied first, so that all that they name is there afterwards
    snapshots/<tenant>/objects/..    chunks and blocks
    snapshots.sha256                 a line for each file, as sha256sum writes and checks it

Who needs all snapshots that something names guards the store before that is read, and until the copy is made.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from retinue.runs.errors import InvalidInput, StoreError
from retinue.sandbox.folders import opened, remove_tree, sync_whole
from retinue.sandbox.locks import locked
from retinue.sandbox.snapshots.objects import GUARD, await_turn
from retinue.sandbox.snapshots.shelves import OBJECTS, TREES

FOLDER, SUMS = "snapshots", "snapshots.sha256"
_LINE = re.compile(rf"([0-9a-f]{{64}})  {FOLDER}/([\w%~-]+/(?:{TREES}|{OBJECTS}/\w+)/\w+)\n", re.ASCII)
_PIECE = 1024 * 1024
_PATIENCE = 180.0
"""Seconds that a collection which goes on is waited for."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: snapshots, files (their heads and objects), the bytes of these, and how many of the files it
    shares with an earlier copy."""

    snapshots: int = 0
    files: int = 0
    bytes: int = 0
    linked: int = 0


def guarded(folder: Path) -> AbstractContextManager[None]:
    """Nothing goes from the store in this folder while this lasts; others may write. TransientError when somebody has
    collected, or guarded it, for too long."""
    return locked(folder / GUARD, fcntl.LOCK_EX, partial(await_turn, folder / GUARD, time.monotonic() + _PATIENCE))


def copy_out(folder: Path, into: Path, earlier: Path | None = None) -> Copied:
    """Copy the store in `folder`, which is guarded, into the folder `into`. What an `earlier` copy has on the same file
    system is linked: content never changes under a name. OSError of what is written; StoreError of what cannot be read.
    """
    snapshots = files = size = linked = 0
    known = _Known(earlier)
    (into / FOLDER).mkdir(mode=0o700)
    with (into / SUMS).open("x", encoding="ascii") as sums:
        for part in (TREES, OBJECTS):
            for source in _files(folder, part):
                place = str(source.relative_to(folder))
                shared = known.link(place, source, into / FOLDER / place)
                digest, length = shared or _copy(source, into / FOLDER / place)
                sums.write(f"{digest}  {FOLDER}/{place}\n")
                snapshots, files, size = snapshots + (part == TREES), files + 1, size + length
                linked += shared is not None
    with opened(into) as fd:
        sync_whole(fd)
    return Copied(snapshots, files, size, linked)


def bring_back(backup: Path, folder: Path, expected: int) -> Copied:
    """Make the store in `folder` of the copy in `backup`, of so many files; it has its name when all was checked.

    InvalidInput when there are snapshots already; StoreError names the file that is damaged or missing.
    """
    refuse_snapshots(folder)
    draft = folder.with_name(f"{folder.name}.unfinished")
    remove_tree(draft)
    draft.mkdir(parents=True, mode=0o700)
    try:
        found = _checked(backup, draft)
        if found.files != expected:
            raise StoreError(f"{backup / SUMS} names {found.files} files of {expected}: {_REMEDY}")
        with opened(draft) as fd:
            sync_whole(fd)
        remove_tree(folder)
        draft.rename(folder)
        with opened(folder.parent) as fd:
            os.fsync(fd)
    finally:
        remove_tree(draft)
    return found


_REMEDY = "the backup is damaged; take another one, or leave its snapshots out (--without-snapshots)"


def refuse_snapshots(folder: Path) -> None:
    """InvalidInput where there is a store with snapshots of anybody."""
    if folder.is_dir() and any(each.is_dir() for each in folder.iterdir()):
        raise InvalidInput(
            f"{folder} has snapshots of another store: move it away, or restore into another data folder"
        )


def _checked(backup: Path, draft: Path) -> Copied:
    snapshots = files = size = 0
    for digest, place in _lines(backup / SUMS):
        actual, length = _copy(backup / FOLDER / place, draft / place)
        if actual != digest:
            raise StoreError(f"{backup / FOLDER / place} is not what was copied there: {_REMEDY}")
        snapshots, files, size = snapshots + (f"/{TREES}/" in place), files + 1, size + length
    return Copied(snapshots, files, size)


def _lines(sums: Path) -> Iterator[tuple[str, str]]:
    try:
        with sums.open(encoding="ascii") as lines:
            for number, line in enumerate(lines, 1):
                found = _LINE.fullmatch(line)
                if found is None:
                    raise StoreError(f"line {number} of {sums} names no file of a snapshot: {_REMEDY}")
                yield found[1], found[2]
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise StoreError(f"{sums} cannot be read: {error}; {_REMEDY}") from None


class _Known:
    """The files of an earlier copy, which are read along with those of the store: both are in the same order."""

    def __init__(self, backup: Path | None) -> None:
        self._backup = backup
        self._lines = iter(()) if backup is None or not (backup / SUMS).exists() else _lines(backup / SUMS)
        self._next: tuple[str, str] | None = next(self._lines, None)

    def link(self, place: str, source: Path, target: Path) -> tuple[str, int] | None:
        """Let the copy of a file be the earlier one; its sha256 and length, None where that cannot be."""
        while self._next is not None and _order(self._next[1]) < _order(place):
            self._next = next(self._lines, None)
        if self._backup is None or self._next is None or self._next[1] != place:
            return None
        try:
            earlier, length = self._backup / FOLDER / place, source.stat().st_size
            if earlier.stat().st_size != length:
                return None
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.link(earlier, target)
        except OSError:
            return None
        return self._next[0], length


def _order(place: str) -> tuple[bool, list[str]]:
    return f"/{OBJECTS}/" in place, place.split("/")


def _files(folder: Path, part: str) -> Iterator[Path]:
    """The files of a part of the store, of all tenants."""
    for home in sorted(folder.iterdir()):
        for where, folders, names in os.walk(home / part):
            folders.sort()
            yield from (Path(where, name) for name in sorted(names))


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file; the sha256 and length of what was read."""
    try:
        content = source.open("rb", buffering=0)
    except OSError as error:
        raise StoreError(f"{source} cannot be read: {error.strerror}; see to its disk, or {_WITHOUT}") from None
    with content, _made(target) as copy:
        digest, size = sha256(), 0
        while piece := _read(content, source):
            digest.update(piece)
            copy.write(piece)
            size += len(piece)
    return digest.hexdigest(), size


_WITHOUT = "go on without snapshots (--without-snapshots)"


def _read(content: BinaryIO, source: Path) -> bytes:
    try:
        return content.read(_PIECE)
    except OSError as error:
        raise StoreError(f"{source} cannot be read: {error.strerror}; see to its disk, or {_WITHOUT}") from None


def _made(target: Path) -> BinaryIO:
    """A new file, its folders made; its owner's alone."""
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(target, how, 0o600)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, mode=0o700)
        fd = os.open(target, how, 0o600)
    return os.fdopen(fd, "wb")
