"""Trees as a store keeps them: a head, and blocks of entries that two trees with most files in common share.

Pure. Owns the stored form, and refuses one that a scan could not have made: what it gives can be written to a folder
and stays below it. Checks no hash: the id of the tree that comes out is for the caller to compare.

Which entries begin a block depends on their path alone, so a change of one file changes one block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from zlib import crc32

from retinue.sandbox.snapshots.trees import CHUNK, KEPT_MODE, KINDS, LONGEST_PATH, Entry, Tree, keeps_attribute

DEEPEST = 1024
_LONGEST_NAME, _LONGEST_TARGET, _LARGEST_ATTRIBUTE = 255, 4095, 64 * 1024
_FORMAT = 1
_USUAL_BLOCK, _LARGEST_BLOCK = 64, 512
"""Entries of a block."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadTree(ValueError):
    """What claims to be a tree is none, or one that could write outside of its folder. The message says where."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands of a tree apart from its entries: how many, bytes of its files, the sha256 of its blocks in order,
    and what was left out.
    """

    snapshot_id: str
    entries: int
    bytes: int
    blocks: tuple[str, ...]
    omitted: tuple[str, ...]


def encode_head(head: Head) -> bytes:
    """As a store keeps it."""
    parts = [head.snapshot_id, head.entries, head.bytes, head.blocks, head.omitted]
    return json.dumps([_FORMAT, CHUNK, *parts], separators=(",", ":")).encode("ascii")


def decode_head(text: bytes) -> Head:
    """The head of `encode_head`; BadTree."""
    try:
        version, chunk, snapshot_id, entries, size, blocks, omitted = json.loads(text)
        if (version, chunk) != (_FORMAT, CHUNK):
            raise BadTree("the list of files is of a format that this version does not know")
        head = Head(_text(snapshot_id), entries, size, tuple(map(_digest, blocks)), tuple(map(_text, omitted)))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadTree(f"the head of the list of files cannot be read: {error}") from None
    if type(entries) is not int or type(size) is not int or not 0 <= entries <= len(blocks) * _LARGEST_BLOCK:
        raise BadTree("the head of the list of files has numbers that cannot be")
    return head


def encode_blocks(tree: Tree) -> Iterator[bytes]:
    """The entries of a tree, with what is not in its id, in blocks."""
    for block in _cut(tree.entries):
        rows = [[entry.row(), entry.chunks if len(entry.chunks) > 1 else 0, int(entry.sparse)] for entry in block]
        yield json.dumps(rows, separators=(",", ":")).encode("ascii")


def decode(head: Head, blocks: Iterable[bytes]) -> Tree:
    """The tree of a head and its blocks; BadTree."""
    try:
        entries = tuple(_entry(*row) for block in blocks for row in json.loads(block))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise BadTree(f"the list of files cannot be read: {type(error).__name__}: {error}") from None
    if len(entries) != head.entries:
        raise BadTree(f"there are {len(entries)} entries, not {head.entries}")
    tree = Tree(entries, head.omitted)
    check(tree)
    return tree


def _cut(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    start = 0
    for at, entry in enumerate(entries):
        begins = crc32(entry.path.encode("utf-8", "surrogatepass")) % _USUAL_BLOCK == 0
        if at > start and (begins or at - start == _LARGEST_BLOCK):
            yield entries[start:at]
            start = at
    if start < len(entries):
        yield entries[start:]


def _entry(row: list[Any], parts: list[str] | int, sparse: int) -> Entry:
    kind = KINDS[row[0]]
    fixed = {"file": 7, "symlink": 5, "directory": 4}[kind]
    more = tuple((_text(name), bytes.fromhex(value)) for name, value in row[fixed]) if len(row) > fixed else ()
    if kind != "file":
        target = _text(row[4]) if kind == "symlink" else ""
        return Entry(_text(row[1]), kind, row[2], row[3], target=target, attributes=more)
    digest = _digest(row[5])
    chunks = tuple(map(_digest, parts)) if isinstance(parts, list) else (digest,) if row[4] else ()
    size, group = row[4], row[6]
    return Entry(_text(row[1]), kind, row[2], row[3], size, digest, group, "", more, chunks, bool(sparse))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _digest(value: object) -> str:
    if not _DIGEST.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is no hash")
    return _text(value)


def check(tree: Tree) -> None:
    """BadTree for all that a scan could not have found: from here on a path of the tree stays below its folder."""
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
        if part in ("", ".", "..") or "\0" in part or len(_bytes(part)) > _LONGEST_NAME:
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
    if entry.kind == "symlink" and (
        not entry.target or "\0" in entry.target or len(_bytes(entry.target)) > _LONGEST_TARGET
    ):
        raise BadTree(f"{entry.path!r} is a symlink with no usable target")
    if entry.kind == "file":
        _check_content(entry)
    _check_attributes(entry)


def _check_content(entry: Entry) -> None:
    if len(entry.chunks) != -(-entry.size // CHUNK):
        raise BadTree(f"{entry.path!r} has {len(entry.chunks)} chunks for {entry.size} bytes")


def _check_attributes(entry: Entry) -> None:
    names = [name for name, _ in entry.attributes]
    if names and entry.kind == "symlink":
        raise BadTree(f"{entry.path!r} is a symlink with attributes")
    for name, value in entry.attributes:
        if not keeps_attribute(name) or "\0" in name or len(_bytes(name)) > _LONGEST_NAME:
            raise BadTree(f"{entry.path!r} has an attribute that is not a user's")
        if len(value) > _LARGEST_ATTRIBUTE:
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
