"""Reads a folder into a tree: each name through the descriptor of its directory, each changed file once.

Owns the reading. Opens nothing but regular files. Knows no store: whoever wants the content gives a sink. Blocking;
uses a few threads.

What runs in the workspace should have ended. Where something changes it all the same, a file that changes while it is
read and a folder that changes before the end make the scan fail: code `changed_while_read`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Protocol

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import Trail, open_file
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.stat_cache import Content, StatCache, stamp_of
from retinue.sandbox.snapshots.trees import CHUNK, Entry, Tree
from retinue.sandbox.snapshots.walking import Found, Stopped, Walk, attributes_of, changed, said

_THREADS = min(4, os.cpu_count() or 1)
_SLICE_FILES, _SLICE_BYTES = 64, 8 * 1024 * 1024
"""What one thread takes at a time."""
_ZEROS = bytes(CHUNK)


class Sink(Protocol):
    """Where the content of files goes, in chunks by their sha256. Called from several threads."""

    def lacking(self, digests: Collection[str]) -> Collection[str]:
        """Which of these are not kept yet; asked once, for what would not be read otherwise."""
        ...

    def keep(self, digest: str, chunk: bytes) -> None:
        """A chunk as it was read."""
        ...


@dataclass(frozen=True, slots=True)
class Scan:
    """How to scan: what to leave out and refuse, what is remembered, where content goes, what ends it early."""

    rules: Rules = field(default_factory=Rules)
    cache: StatCache | None = None
    sink: Sink | None = None
    stop: Event = field(default_factory=Event)


def scan(folder: Path, how: Scan | None = None) -> Tree:
    """The tree of a folder. TransientError with code `changed_while_read`; SandboxRefused with code `quota`,
    `secret_in_snapshot` or `unreadable`; OSError of the disk; Stopped.
    """
    how = how or Scan()
    _check_encoding()
    with Trail(folder) as trail:
        walk = Walk(trail, how.rules, how.stop)
        walk.run()
        files = [found for found in walk.found if found.kind == "file"]
        kept = _read_changed(trail.at(""), files, how)
        walk.check_unchanged()
    if how.cache is not None:
        how.cache.save({found.path: (stamp_of(found.status), kept[found.inode]) for found in files})
    return _tree(walk, kept)


def remember(folder: Path, tree: Tree, cache_file: Path) -> None:
    """Note that a folder, which nobody has touched since it was made of a tree, holds this tree: the next scan with
    this cache need not read it.
    """
    found = {}
    cache = StatCache(cache_file)
    try:
        with Trail(folder) as trail:
            for entry in tree.entries:
                if entry.kind == "file":
                    parent, name = trail.beside(entry.path)
                    content = Content(entry.sha256, entry.chunks, entry.attributes, entry.sparse)
                    found[entry.path] = stamp_of(os.stat(name, dir_fd=parent, follow_symlinks=False)), content
        cache.save(found)
    finally:
        cache.close()


def _check_encoding() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        raise SandboxRefused(
            f"names of files are read as {sys.getfilesystemencoding()} here, snapshots need UTF-8: set PYTHONUTF8=1",
            code="unreadable",
        )


def _read_changed(root: int, files: list[Found], how: Scan) -> dict[tuple[int, int], Content]:
    """The content of every file by its inode: remembered, or read now."""
    kept: dict[tuple[int, int], Content] = {}
    for found in files:
        known = how.cache.find(found.path, found.status) if how.cache is not None else None
        if known is not None:
            kept[found.inode] = known
    if how.sink is not None and kept:
        lacking = set(how.sink.lacking({chunk for content in kept.values() for chunk in content.chunks}))
        if lacking:
            kept = {inode: content for inode, content in kept.items() if lacking.isdisjoint(content.chunks)}
    unread = {found.inode: found for found in reversed(files) if found.inode not in kept}
    slices = list(_slices(list(reversed(unread.values()))))
    if len(slices) < 2:
        for each in slices:
            kept.update(_read_slice(root, each, how))
        return kept
    with ThreadPoolExecutor(_THREADS, "snapshot") as pool:
        try:
            for done in [pool.submit(_read_slice, root, each, how) for each in slices]:
                kept.update(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return kept


def _slices(files: Sequence[Found]) -> Iterator[list[Found]]:
    part: list[Found] = []
    size = 0
    for found in files:
        part.append(found)
        size += found.status.st_size
        if len(part) >= _SLICE_FILES or size >= _SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _read_slice(root: int, files: Sequence[Found], how: Scan) -> dict[tuple[int, int], Content]:
    with Trail(root) as trail:
        return {found.inode: _read(trail, found, how) for found in files}


def _read(trail: Trail, found: Found, how: Scan) -> Content:
    try:
        folder, name = trail.beside(found.path)
        fd = open_file(name, folder)
    except OSError as error:
        raise said(error, found.path) from None
    try:
        if stamp_of(os.fstat(fd)) != stamp_of(found.status):
            raise changed(found.path)
        content = _content(fd, found, how)
        if stamp_of(os.fstat(fd)) != stamp_of(found.status):
            raise changed(found.path)
    finally:
        os.close(fd)
    return content


def _content(fd: int, found: Found, how: Scan) -> Content:
    size = found.status.st_size
    attributes = attributes_of(fd)
    how.rules.check_attributes(attributes, found.path)
    sparse = found.status.st_blocks * 512 < size and os.lseek(fd, 0, os.SEEK_HOLE) < size
    whole, chunks, tail = sha256(), [], b""
    for offset in range(0, size, CHUNK):
        if how.stop.is_set():
            raise Stopped
        length = min(CHUNK, size - offset)
        chunk = _ZEROS[:length] if sparse and _is_hole(fd, offset, length) else os.pread(fd, length, offset)
        if len(chunk) != length:
            raise changed(found.path)
        if how.rules.secrets:
            how.rules.check_content(chunk, found.path)
            how.rules.check_content(tail + chunk[: how.rules.overlap], found.path)
            tail = chunk[-how.rules.overlap :] if how.rules.overlap else b""
        digest = sha256(chunk).hexdigest()
        if size > CHUNK:
            whole.update(chunk)
        if how.sink is not None:
            how.sink.keep(digest, chunk)
        chunks.append(digest)
    return Content(chunks[0] if len(chunks) == 1 else whole.hexdigest(), tuple(chunks), attributes, sparse)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return True


def _tree(walk: Walk, kept: dict[tuple[int, int], Content]) -> Tree:
    together = Counter(found.inode for found in walk.found if found.kind == "file" and found.status.st_nlink > 1)
    groups: dict[tuple[int, int], int] = {}
    entries = []
    for found in walk.found:
        if found.kind == "file":
            inode = found.inode
            group = groups.setdefault(inode, len(groups) + 1) if together[inode] > 1 else 0
            entries.append(_file(found, kept[inode], group))
        else:
            attributes = walk.attributes.get(found.path, ())
            mode, mtime = found.mode, found.status.st_mtime_ns
            entries.append(Entry(found.path, found.kind, mode, mtime, target=found.target, attributes=attributes))
    return Tree(tuple(entries), tuple(sorted(walk.omitted)))


def _file(found: Found, content: Content, group: int) -> Entry:
    return Entry(
        path=found.path,
        kind="file",
        mode=found.mode,
        mtime_ns=found.status.st_mtime_ns,
        size=found.status.st_size,
        sha256=content.sha256,
        group=group,
        attributes=content.attributes,
        chunks=content.chunks,
        sparse=content.sparse,
    )
