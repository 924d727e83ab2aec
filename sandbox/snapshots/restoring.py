"""Writes a tree into a fresh folder, or leaves nothing behind.

Owns the order: the limits, then all of it under a temporary name, each part checked against its hash, and at the end
one rename, so that a folder of the right name is whole. Writes through descriptors of directories that it made, and
only what did not exist. Knows no store: content comes from a source. Blocking; uses a few threads.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from threading import Event

from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import Trail, make_private, opened, remove_tree
from retinue.sandbox.snapshots.cloning import copy_file
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.scanning import remember
from retinue.sandbox.snapshots.trees import Entry, Tree
from retinue.sandbox.snapshots.walking import Stopped

_THREADS = min(4, os.cpu_count() or 1)
_SLICE_FILES, _SLICE_BYTES = 64, 8 * 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)

Source = Callable[[Entry], Iterator[bytes]]
"""Gives the content of a file in chunks, each checked; raises when there is none."""


@dataclass(frozen=True, slots=True)
class Restore:
    """How to restore: from where, the file of the stat cache (None: none), for which user (None: our own), within
    which limits, and what ends it early. With a `base`, a folder that holds this very tree and that nobody changes,
    content is copied from there. `make` makes the folder.
    """

    source: Source
    cache: Path | None = None
    uid: int | None = None
    quota: Quota = field(default_factory=Quota)
    stop: Event = field(default_factory=Event)
    base: Path | None = None
    make: Callable[[Path], None] = make_private


def check_size(tree: Tree, quota: Quota) -> None:
    """SandboxRefused with code `quota` when a tree is larger than it may be; nothing is read or written."""
    quota.check("files", len(tree.entries), of="the snapshot")
    quota.check("bytes", tree.bytes, of="the snapshot")
    for entry in tree.entries:
        quota.check("depth", entry.path.count("/") + 1, entry.path, "the snapshot")
        quota.check("file_bytes", entry.size, entry.path, "the snapshot")


def restore(tree: Tree, into: Path, how: Restore) -> None:
    """Make the folder `into`, which must not exist; its parent must. SandboxRefused with code `quota` or `exists`;
    what the source raises; OSError of the disk; Stopped. In each case nothing stays.
    """
    check_size(tree, how.quota)
    if os.path.lexists(into):
        raise SandboxRefused(f"{into} exists: a snapshot is restored into a new folder", code="exists")
    _remove_abandoned(into)
    draft = into.with_name(f".{into.name}.{os.urandom(6).hex()}.restoring")
    how.make(draft)
    try:
        with opened(draft) as root:
            fcntl.flock(root, fcntl.LOCK_EX)
            _write_all(tree, root, how)
            if how.cache is not None:
                remember(draft, tree, how.cache)
            _dress_folders(tree, root, how.uid)
            os.fchmod(root, 0o700)
            if how.uid is not None:
                os.fchown(root, how.uid, how.uid)
            draft.rename(into)
    except BaseException:
        remove_tree(draft)
        raise


def _remove_abandoned(into: Path) -> None:
    """Remove what a killed process left of the same folder."""
    for each in into.parent.glob(f".{escape(into.name)}.*.restoring"):
        with opened(each) as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove_tree(each)


def _write_all(tree: Tree, root: int, how: Restore) -> None:
    with Trail(root) as trail:
        for entry in tree.entries:
            if entry.kind == "directory":
                parent, name = trail.beside(entry.path)
                os.mkdir(name, 0o700, dir_fd=parent)
    firsts, others = _one_of_each(tree)
    _write_files(firsts, root, how)
    with Trail(root) as trail, Trail(root) as second:
        for entry, first in others:
            source, old = second.beside(first.path)
            parent, name = trail.beside(entry.path)
            os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    with Trail(root) as trail:
        for entry in tree.entries:
            if entry.kind == "symlink":
                _link(trail, entry, how.uid)


def _dress_folders(tree: Tree, root: int, uid: int | None) -> None:
    """Last, and from the deepest up: what is made in a folder changes its time, and its mode may forbid to enter it."""
    with Trail(root) as trail:
        for entry in reversed(tree.entries):
            if entry.kind == "directory":
                _dress(trail.at(entry.path), entry, uid)


def _one_of_each(tree: Tree) -> tuple[list[Entry], list[tuple[Entry, Entry]]]:
    """Files to write, and hardlinks to make, each with the file that it is."""
    firsts: list[Entry] = []
    others: list[tuple[Entry, Entry]] = []
    known: dict[int, Entry] = {}
    for entry in tree.entries:
        if entry.kind == "file":
            if entry.group in known:
                others.append((entry, known[entry.group]))
                continue
            firsts.append(entry)
            if entry.group:
                known[entry.group] = entry
    return firsts, others


def _write_files(files: list[Entry], root: int, how: Restore) -> None:
    slices = list(_slices(files))
    with ThreadPoolExecutor(_THREADS, "restore") as pool:
        try:
            for done in [pool.submit(_write_slice, root, each, how) for each in slices]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _slices(files: Sequence[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in files:
        part.append(entry)
        size += entry.size
        if len(part) >= _SLICE_FILES or size >= _SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write_slice(root: int, files: Sequence[Entry], how: Restore) -> None:
    with Trail(root) as trail, Trail(how.base or root) as base:
        for entry in files:
            if how.stop.is_set():
                raise Stopped
            parent, name = trail.beside(entry.path)
            fd = os.open(name, _NEW, 0o600, dir_fd=parent)
            try:
                if how.base is None:
                    _fill(fd, entry, how)
                else:
                    copy_file(base, entry, fd)
                _dress(fd, entry, how.uid)
            finally:
                os.close(fd)


def _fill(fd: int, entry: Entry, how: Restore) -> None:
    at = 0
    for chunk in how.source(entry):
        if how.stop.is_set():
            raise Stopped
        for start, end in _solid(chunk) if entry.sparse else ((0, len(chunk)),):
            view = memoryview(chunk)[start:end]
            while view:
                written = os.pwrite(fd, view, at + start)
                view, start = view[written:], start + written
        at += len(chunk)
    if entry.sparse:
        os.ftruncate(fd, entry.size)


def _solid(chunk: bytes) -> Iterator[tuple[int, int]]:
    """The parts of a chunk that are not whole blocks of zeros."""
    start = -1
    for at in range(0, len(chunk), _BLOCK):
        block = chunk[at : at + _BLOCK]
        empty = block == _ZEROS[: len(block)]
        if empty and start >= 0:
            yield start, at
            start = -1
        elif not empty and start < 0:
            start = at
    if start >= 0:
        yield start, len(chunk)


def _link(trail: Trail, entry: Entry, uid: int | None) -> None:
    parent, name = trail.beside(entry.path)
    os.symlink(entry.target, name, dir_fd=parent)
    if uid is not None:
        os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _dress(fd: int, entry: Entry, uid: int | None) -> None:
    """Attributes, owner, mode and time of what is whole."""
    if entry.attributes:
        _set_attributes(fd, entry)
    if uid is not None:
        os.fchown(fd, uid, uid)
    os.fchmod(fd, entry.mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def _set_attributes(fd: int, entry: Entry) -> None:
    if sys.platform != "linux":
        raise PermanentError(f"{entry.path!r} has user attributes, which are only kept on Linux", code="attributes")
    try:
        for name, value in entry.attributes:
            os.setxattr(fd, name, value)
    except OSError as error:
        raise PermanentError(
            f"{entry.path!r} has user attributes and the file system of the workspace takes none ({error.strerror}): "
            "put the data folder on ext4, xfs, btrfs or a newer tmpfs",
            code="attributes",
        ) from None
