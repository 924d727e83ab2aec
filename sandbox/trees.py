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
from itertools import pairwise
from typing import Any, Literal

from retinue.runs.errors import InvalidInput

Kind = Literal["file", "directory", "symlink"]
Attributes = tuple[tuple[str, bytes], ...]
"""User attributes (`user.*`) by name, sorted."""

CHUNK = 4 * 1024 * 1024
"""Bytes of a file that one object holds at most."""
KEPT_MODE = 0o1777
"""Bits of a mode that a tree has: no setuid, no setgid."""
LONGEST_NAME, LONGEST_PATH, DEEPEST = 255, 4096, 1024
LARGEST_ATTRIBUTE = 64 * 1024
_ID = re.compile(r"s1-[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KINDS: dict[str, Kind] = {"f": "file", "d": "directory", "l": "symlink"}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}


class BadTree(ValueError):
    """What claims to be a tree is none, or one that could write outside of its folder. The message says where."""


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


def encode(tree: Tree) -> bytes:
    """A tree with what is not in its id, for a store."""
    parts = {index: entry.chunks for index, entry in enumerate(tree.entries) if len(entry.chunks) > 1}
    beside = {
        "format": 1,
        "chunk": CHUNK,
        "chunks": parts,
        "sparse": [index for index, entry in enumerate(tree.entries) if entry.sparse],
        "omitted": tree.omitted,
    }
    return json.dumps(beside, separators=(",", ":")).encode("ascii") + b"\n" + tree.canonical


def decode(text: bytes) -> Tree:
    """The tree of `encode`, fit to be written to a folder; BadTree otherwise. Its hash is for the caller to check."""
    head, _, rows = text.partition(b"\n")
    try:
        beside, found = json.loads(head), json.loads(rows)
        parts = {int(index): tuple(chunks) for index, chunks in beside["chunks"].items()}
        sparse = frozenset(beside["sparse"])
        known = beside["format"] == 1 and beside["chunk"] == CHUNK
        entries = tuple(_entry(row, parts.get(index), index in sparse) for index, row in enumerate(found))
        tree = Tree(entries, tuple(str(each) for each in beside["omitted"]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise BadTree(f"the list of files cannot be read: {type(error).__name__}: {error}") from None
    if not known:
        raise BadTree("the list of files is of a format that this version does not know")
    _check(tree)
    return tree


def _entry(row: list[Any], parts: tuple[str, ...] | None, sparse: bool) -> Entry:
    kind = _KINDS[row[0]]
    fixed = {"file": 7, "symlink": 5, "directory": 4}[kind]
    more = [(name, bytes.fromhex(value)) for name, value in row[fixed]] if len(row) > fixed else []
    if kind == "file":
        digest = _text(row[5])
        chunks = parts if parts is not None else (digest,) if row[4] else ()
        return Entry(
            _text(row[1]), kind, row[2], row[3], row[4], digest, row[6], "", tuple(more), chunks, sparse
        )  # fmt: skip
    target = _text(row[4]) if kind == "symlink" else ""
    return Entry(_text(row[1]), kind, row[2], row[3], target=target, attributes=tuple(more))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _check(tree: Tree) -> None:
    """Refuse all that a scan could not have found: from here on a path of the tree stays below its folder."""
    for before, entry in pairwise(tree.entries):
        if not before.path < entry.path:
            raise BadTree(f"{entry.path!r} stands twice or out of order")
    folders = {""}
    groups: dict[int, Entry] = {}
    for entry in tree.entries:
        _check_path(entry.path, folders)
        _check_entry(entry)
        if entry.kind == "directory":
            folders.add(entry.path)
        if entry.group and _one_file(groups.setdefault(entry.group, entry)) != _one_file(entry):
            raise BadTree(f"{entry.path!r} is said to be one file with {groups[entry.group].path!r} and differs")
    if list(groups) != list(range(1, len(groups) + 1)):
        raise BadTree("groups of hardlinks are not counted from 1 in order")


def _one_file(entry: Entry) -> tuple[Any, ...]:
    return entry.kind, entry.mode, entry.mtime_ns, entry.size, entry.sha256, entry.attributes, entry.chunks


def _check_path(path: str, folders: set[str]) -> None:
    parts = path.split("/")
    if len(parts) > DEEPEST or len(_bytes(path)) > LONGEST_PATH:
        raise BadTree(f"{path[:80]!r}... is too long or too deep")
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or len(_bytes(part)) > LONGEST_NAME:
            raise BadTree(f"{path!r} is no path below a folder")
    if path.rpartition("/")[0] not in folders:
        raise BadTree(f"{path!r} is below what is no directory of the tree")


def _check_entry(entry: Entry) -> None:
    numbers = (entry.mode, entry.mtime_ns, entry.size, entry.group)
    if any(type(number) is not int for number in numbers):
        raise BadTree(f"{entry.path!r} has something else where a number must be")
    if not 0 <= entry.mode <= 0o7777 or entry.mode & ~KEPT_MODE:
        raise BadTree(f"{entry.path!r} has mode {entry.mode:o}: setuid and setgid are not kept")
    if abs(entry.mtime_ns) >= 2**63 or not 0 <= entry.size < 2**63 or entry.group < 0:
        raise BadTree(f"{entry.path!r} has a time, size or group out of range")
    if entry.kind == "symlink" and (not entry.target or "\0" in entry.target or len(_bytes(entry.target)) > 4095):
        raise BadTree(f"{entry.path!r} is a symlink with no usable target")
    if entry.kind == "file":
        _check_content(entry)
    _check_attributes(entry)


def _check_content(entry: Entry) -> None:
    if not all(_DIGEST.fullmatch(_text(digest)) for digest in (entry.sha256, *entry.chunks)):
        raise BadTree(f"{entry.path!r} has a hash that is none")
    if len(entry.chunks) != -(-entry.size // CHUNK):
        raise BadTree(f"{entry.path!r} has {len(entry.chunks)} chunks for {entry.size} bytes")


def _check_attributes(entry: Entry) -> None:
    names = [name for name, _ in entry.attributes]
    if names and entry.kind == "symlink":
        raise BadTree(f"{entry.path!r} is a symlink with attributes")
    for name, value in entry.attributes:
        if not name.startswith("user.") or "\0" in name or len(_bytes(name)) > LONGEST_NAME:
            raise BadTree(f"{entry.path!r} has an attribute that is not a user's")
        if len(value) > LARGEST_ATTRIBUTE:
            raise BadTree(f"{entry.path!r} has an attribute of {len(value)} bytes")
    if names != sorted(set(names)):
        raise BadTree(f"{entry.path!r} has attributes twice or out of order")


def _bytes(text: str) -> bytes:
    """The one text of some bytes has surrogates only where they are no UTF-8: else two texts would be one name."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadTree(f"{text!r} is no name that a file could have") from None
    if raw.decode("utf-8", "surrogateescape") != text:
        raise BadTree(f"{text!r} is not how its bytes are written")
    return raw
