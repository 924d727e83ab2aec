"""Trees of files as values: their entries, the canonical text whose hash is a snapshot's id, and what may be in one.

Pure: knows no file system and no store. A tree says nothing of its root folder (that belongs to a node), and nothing of
users, hosts or the time it was read. How content is cut into chunks stands beside the entries and changes no id.

Canonical text: JSON without spaces, ASCII, rows sorted by path; a row is [kind, path, mode, mtime_ns] and then, for a
file, size, sha256 and hardlink group, for a symlink its target, and for what has user attributes [[name, hex], ...].
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from retinue.runs.errors import InvalidInput

Kind = Literal["file", "directory", "symlink"]
Attributes = tuple[tuple[str, bytes], ...]
"""User attributes by name, sorted."""

CHUNK = 4 * 1024 * 1024
"""Bytes of a file that one object holds at most."""
KEPT_MODE = 0o1777
"""Bits of a mode that a tree has: no setuid, no setgid."""
LONGEST_PATH = 4096
"""Bytes of a path, as most system calls take it."""
_ID = re.compile(r"s1-[0-9a-f]{64}")
KINDS: dict[str, Kind] = {"f": "file", "d": "directory", "l": "symlink"}
_LETTERS = {kind: letter for letter, kind in KINDS.items()}


def keeps_attribute(name: str) -> bool:
    """Whether a tree has an attribute of this name: a user's, but none that tells an overlay file system what it
    should show, as a tree may be mounted below one.
    """
    return name.startswith("user.") and not name.startswith("user.overlay.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a tree. `path` has slashes and bytes that are no UTF-8 as surrogates (os.fsdecode). `sha256` is that
    of the whole file in hex; `group` is above 0 for files that are one (hardlinks). `chunks` are the sha256 of its
    parts of CHUNK bytes, `sparse` whether it had holes: neither is in the id.
    """

    path: str
    kind: Kind
    mode: int
    mtime_ns: int
    size: int = 0
    sha256: str = ""
    group: int = 0
    target: str = ""
    attributes: Attributes = ()
    chunks: tuple[str, ...] = field(default=(), compare=False)
    sparse: bool = field(default=False, compare=False)

    def row(self) -> list[Any]:
        """As in the canonical text."""
        row: list[Any] = [_LETTERS[self.kind], self.path, self.mode, self.mtime_ns]
        if self.kind == "file":
            row += [self.size, self.sha256, self.group]
        elif self.kind == "symlink":
            row.append(self.target)
        if self.attributes:
            row.append([[name, value.hex()] for name, value in self.attributes])
        return row


@dataclass(frozen=True)
class Tree:
    """Entries sorted by path, with all directories of each. `omitted` is what the folder held besides and why, as
    `path (why)`; it is not in the id.
    """

    entries: tuple[Entry, ...]
    omitted: tuple[str, ...] = ()

    @cached_property
    def canonical(self) -> bytes:
        """The text whose hash is the id."""
        return json.dumps([entry.row() for entry in self.entries], separators=(",", ":")).encode("ascii")

    @cached_property
    def snapshot_id(self) -> str:
        """The same for the same tree, wherever it stands."""
        return "s1-" + sha256(self.canonical).hexdigest()

    @cached_property
    def bytes(self) -> int:
        """Of all files, with holes, hardlinks once."""
        return sum(entry.size for entry in first_of_groups(self.entries))

    def at(self, path: str) -> Entry | None:
        """The entry of this path."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries}


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths by what a second tree has of them, each sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def compare(old: Tree, new: Tree) -> Changes:
    """What became of a tree. A directory whose time alone differs is not called changed."""
    before = {entry.path: entry for entry in old.entries}
    after = {entry.path: entry for entry in new.entries}
    return Changes(
        added=tuple(path for path in after if path not in before),
        removed=tuple(path for path in before if path not in after),
        changed=tuple(path for path in after if path in before and _differs(before[path], after[path])),
    )


def _differs(old: Entry, new: Entry) -> bool:
    if old == new:
        return False
    if old.kind == new.kind == "directory":
        return (old.mode, old.attributes) != (new.mode, new.attributes)
    numbers = (old.group, new.group)
    content = (old.kind, old.mode, old.mtime_ns, old.size, old.sha256, old.target, old.attributes)
    return content != (new.kind, new.mode, new.mtime_ns, new.size, new.sha256, new.target, new.attributes) or (
        0 in numbers and numbers != (0, 0)
    )


def first_of_groups(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Files, and of those that are one the first only."""
    seen = set()
    for entry in entries:
        if entry.kind == "file" and entry.group not in seen:
            yield entry
            if entry.group:
                seen.add(entry.group)


def check_id(snapshot_id: str) -> str:
    """The id; InvalidInput when it is none."""
    if not _ID.fullmatch(snapshot_id):
        raise InvalidInput(f"snapshot: {snapshot_id[:80]!r} is no snapshot id: one is s1- and 64 hex digits")
    return snapshot_id
