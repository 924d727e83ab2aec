"""Bases: snapshots as plain folders of this node, from which workspaces are made fast.

Owns the folder `cache` of a node. The store of snapshots is the truth: a base is written from it with every object
checked, by one while others wait, belongs to one boot of the machine, is never written again, and may be dropped at any
time when no workspace stands on it. No user of a sandbox may enter the folder.

    cache/<tenant>/<snapshot id>/tree        the files
    cache/<tenant>/<snapshot id>/tree.stats  their stat cache
    cache/<tenant>/<snapshot id>/base.json   what is known of it; it is whole when this is there
    cache/<tenant>/<snapshot id>/users/      a note for each workspace that stands on it
    cache/<tenant>/<snapshot id>.lock        shared by those who use it, held alone to make or drop it
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from glob import escape
from hashlib import blake2b
from pathlib import Path
from threading import Event

from pydantic import ValidationError

from retinue.runs.contracts import Frozen
from retinue.runs.errors import TransientError
from retinue.sandbox.emptying import TREE
from retinue.sandbox.folders import remove_tree
from retinue.sandbox.locks import locked, open_lock, try_lock
from retinue.sandbox.mounts import CHANGES
from retinue.sandbox.snapshots.cloning import destroy_subvolume, is_subvolume
from retinue.sandbox.snapshots.objects import quoted
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.trees import Tree
from retinue.sandbox.snapshots.walking import Stopped

_RECORD, _USERS = "base.json", "users"
_PATIENCE, _PAUSE = 900.0, 0.01
"""Seconds that one waits for a base that another makes, and between two looks."""


class Measure(Frozen):
    """What is known of a base: numbers of its tree, its largest file and deepest path, whether it has hardlinks, what
    the snapshot never held, and the boot it belongs to. Bytes.
    """

    boot: str
    entries: int
    bytes: int
    largest: int
    depth: int
    linked: bool
    omitted: tuple[str, ...]

    def check(self, quota: Quota) -> None:
        """SandboxRefused with code `quota` when it is larger than it may be."""
        for limit, value in (
            ("files", self.entries),
            ("bytes", self.bytes),
            ("depth", self.depth),
            ("file_bytes", self.largest),
        ):
            quota.check(limit, value, of="the snapshot")


def measured(tree: Tree, boot: str) -> Measure:
    """The measure of a tree."""
    return Measure(
        boot=boot,
        entries=len(tree.entries),
        bytes=tree.bytes,
        largest=max((entry.size for entry in tree.entries), default=0),
        depth=max((entry.path.count("/") + 1 for entry in tree.entries), default=0),
        linked=any(entry.group for entry in tree.entries),
        omitted=tree.omitted,
    )


class Base:
    """A base that nobody drops while this is held."""

    def __init__(self, folder: Path, measure: Measure) -> None:
        self._folder = folder
        self.tree = folder / TREE
        self.measure = measure

    def stands_below(self, place: Path) -> None:
        """Note that the workspace in this folder stands on the base: it lasts as long as that does."""
        note = self._folder / _USERS / blake2b(os.fsencode(place), digest_size=16).hexdigest()
        note.write_bytes(_namespace() + b"\n" + os.fsencode(place))


class Bases:
    """The bases of a node, `most` bytes of files together. Blocking; safe for threads and processes."""

    def __init__(self, folder: Path, boot: str, most: int) -> None:
        self.folder = folder
        self._boot = boot
        self.most = most

    @contextmanager
    def held(self, tenant: str, snapshot_id: str, make: Callable[[Path], Tree], stop: Event) -> Iterator[Base]:
        """The base of a snapshot, made by `make` where it is not there. What that raises; OSError; Stopped."""
        folder = self._of(tenant, snapshot_id)
        make_closed(self.folder)
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        lock, turn = _lock_of(folder), partial(_turn, folder, time.monotonic() + _PATIENCE, stop)
        while True:
            with locked(lock, fcntl.LOCK_SH, turn):
                measure = self._read(folder)
                if measure is not None:
                    os.utime(folder / _RECORD)
                    yield Base(folder, measure)
                    return
            with locked(lock, fcntl.LOCK_EX, turn):
                if self._read(folder) is None:
                    self._make(folder, make)
            self.trim(folder)

    def has(self, tenant: str, snapshot_id: str) -> bool:
        """Whether there is a base that can be used at once."""
        return self._read(self._of(tenant, snapshot_id)) is not None

    def drop(self, tenant: str, snapshot_id: str) -> bool:
        """Remove a base; False when it is used, or is not there."""
        folder = self._of(tenant, snapshot_id)
        return folder.exists() and self._drop(folder)

    def kept(self, tenant: str) -> list[str]:
        """The snapshots of a tenant that there is anything of here."""
        found = self.folder.glob(f"{escape(quoted(tenant))}/s1-*")
        return sorted(folder.name for folder in found if folder.suffix != ".lock")

    def erase(self, tenant: str) -> int:
        """Remove the bases of a tenant that are not used; how many they were."""
        return sum(self.drop(tenant, snapshot_id) for snapshot_id in self.kept(tenant))

    def trim(self, but: Path | None = None) -> int:
        """Remove what is too much, the longest unused first; how many bases went."""
        known = sorted(self._all(), key=lambda each: each[0])
        total, dropped = sum(size for _, size, _ in known), 0
        for _, size, folder in known:
            if (total > self.most or not size) and folder != but and self._drop(folder):
                total, dropped = total - size, dropped + 1
        return dropped

    def _of(self, tenant: str, snapshot_id: str) -> Path:
        return self.folder / quoted(tenant) / snapshot_id

    def _all(self) -> Iterator[tuple[int, int, Path]]:
        """When each was used last (Unix ns), its size, its folder; zeros for what is of no use."""
        for folder in self.folder.glob("*/s1-*"):
            if folder.suffix != ".lock":
                measure = self._read(folder)
                used = 0 if measure is None else (folder / _RECORD).stat().st_mtime_ns
                yield used, 0 if measure is None else max(measure.bytes, 1), folder

    def _read(self, folder: Path) -> Measure | None:
        try:
            measure = Measure.model_validate_json((folder / _RECORD).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return measure if measure.boot == self._boot else None

    def _make(self, folder: Path, make: Callable[[Path], Tree]) -> None:
        _remove(folder)
        folder.mkdir(mode=0o700)
        (folder / _USERS).mkdir(mode=0o700)
        try:
            tree = make(folder / TREE)
        except BaseException:
            _remove(folder)
            raise
        draft = folder / f"{_RECORD}.new"
        draft.write_bytes(measured(tree, self._boot).model_dump_json().encode())
        draft.replace(folder / _RECORD)

    def _drop(self, folder: Path) -> bool:
        lock = open_lock(_lock_of(folder))
        try:
            if not try_lock(lock, fcntl.LOCK_EX) or not folder.exists() or _is_used(folder):
                return False
            _remove(folder)
            _lock_of(folder).unlink(missing_ok=True)
        finally:
            os.close(lock)
        return True


def make_closed(folder: Path) -> None:
    """The folder of all bases, which no user of a sandbox may enter."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def _remove(folder: Path) -> None:
    (folder / _RECORD).unlink(missing_ok=True)
    if is_subvolume(folder / TREE):
        destroy_subvolume(folder / TREE)
    remove_tree(folder)


def _is_used(folder: Path) -> bool:
    """Whether a workspace stands on a base. What is mounted in another namespace than ours cannot be seen: it counts
    as long as its folder is there."""
    notes = folder / _USERS
    for note in notes.iterdir() if notes.is_dir() else ():
        namespace, _, place = note.read_bytes().partition(b"\n")
        path = Path(os.fsdecode(place))
        if (path / CHANGES).is_dir() or (namespace != _namespace() and path.exists()):
            return True
    return False


def _namespace() -> bytes:
    path = Path("/proc/self/ns/mnt")
    return os.fsencode(os.readlink(path)) if path.is_symlink() else b""


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _turn(folder: Path, until: float, stop: Event) -> None:
    """Wait a moment for others to let go of a base."""
    if stop.wait(_PAUSE):
        raise Stopped
    if time.monotonic() > until:
        raise TransientError(f"the base {folder.name} was locked for {_PATIENCE:.0f} s; try again", code="busy")
