"""One snapshot as one file, to be carried to another store: written, and read back with every byte checked.

Owns the format: a tar archive (ustar, regular files only) compressed with zstd, so that `tar --zstd -x` shows what is
in it. Members in this order, and nothing else:

    snapshot           the head of the list of files, as `listing` writes it
    lists/SHA256       the blocks of the list in order
    objects/SHA256     the content of files in chunks of at most 4 MiB, plain, file by file in the order of the list;
                       a file of one chunk only where that chunk did not come before

An archive holds the content of a workspace in plain. What is imported is sealed with the key of the tenant it is for.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import IO

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

from retinue.runs.errors import InvalidInput
from retinue.sandbox.snapshots.listing import BadTree, Head, decode, decode_head, encode_blocks, encode_head
from retinue.sandbox.snapshots.restoring import check_size
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.shelves import LARGEST_BLOCK, LARGEST_HEAD, Writer, missing
from retinue.sandbox.snapshots.store import Snapshots, Taken
from retinue.sandbox.snapshots.trees import CHUNK, Entry, Tree, check_id, first_of_groups
from retinue.sandbox.snapshots.walking import Stopped

_HEAD, _LISTS, _OBJECTS = "snapshot", "lists", "objects"
_LEVEL = 3
_WINDOW = 128 * 1024 * 1024
_RECORD = 512
_EMPTY = sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class Exported:
    """A snapshot that was written to a file. `bytes` are those of its files, `size` those of the archive."""

    snapshot_id: str
    entries: int
    bytes: int
    size: int


async def export(snapshots: Snapshots, snapshot_id: str, tenant: str, file: Path) -> Exported:
    """Write a snapshot to a new file, readable for its owner alone; there is none when this raises. SandboxLost;
    InvalidInput when there is a file already.
    """
    check_id(snapshot_id)
    return await snapshots.apart(lambda stop: _export(snapshots, snapshot_id, tenant, file, stop))


async def import_(snapshots: Snapshots, file: Path, tenant: str, quota: Quota | None = None) -> Taken:
    """Keep the snapshot of an archive for a tenant. InvalidInput for a file that is not exactly such an archive, or
    whose content is not that of its id; SandboxRefused with code `quota`. Nothing is kept of such a one.
    """
    return await snapshots.apart(lambda stop: _import(snapshots, file, tenant, quota or Quota(), stop))


def _export(snapshots: Snapshots, snapshot_id: str, tenant: str, file: Path, stop: Event) -> Exported:
    shelf = snapshots.shelf(tenant)
    if shelf is None:
        raise missing(snapshot_id, erased=True)
    shelf.refresh(snapshot_id)
    tree = shelf.tree(snapshot_id)
    if os.path.lexists(file):
        raise InvalidInput(f"{file} exists: a snapshot is exported to a new file; remove it or take another name")
    draft = file.with_name(f".{file.name}.{os.urandom(6).hex()}.export")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as target:
            with ZstdCompressor(level=_LEVEL).stream_writer(target, closefd=False) as packed:
                _write_lists(tree, packed)
                for entry in _carried(tree):
                    for digest, chunk in zip(entry.chunks, shelf.content(snapshot_id, entry), strict=True):
                        if stop.is_set():
                            raise Stopped
                        _add(packed, f"{_OBJECTS}/{digest}", chunk)
                packed.write(bytes(2 * _RECORD))
            target.flush()
            os.fsync(target.fileno())
        os.link(draft, file)
    except FileExistsError:
        raise InvalidInput(f"{file} exists: a snapshot is exported to a new file; take another name") from None
    finally:
        draft.unlink(missing_ok=True)
    return Exported(snapshot_id, len(tree.entries), tree.bytes, file.stat().st_size)


def _write_lists(tree: Tree, packed: IO[bytes]) -> None:
    blocks = {sha256(block).hexdigest(): block for block in encode_blocks(tree)}
    head = Head(tree.snapshot_id, len(tree.entries), tree.bytes, tuple(blocks), tree.omitted)
    _add(packed, _HEAD, encode_head(head))
    for digest, block in blocks.items():
        _add(packed, f"{_LISTS}/{digest}", block)


def _carried(tree: Tree) -> Iterator[Entry]:
    """The files whose chunks an archive has, in order."""
    seen: set[str] = set()
    for entry in first_of_groups(tree.entries):
        if len(entry.chunks) > 1 or not seen.issuperset(entry.chunks):
            yield entry
        seen.update(entry.chunks)


def _add(packed: IO[bytes], name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    packed.write(member.tobuf(tarfile.USTAR_FORMAT))
    packed.write(content)
    packed.write(bytes(-len(content) % _RECORD))


def _import(snapshots: Snapshots, file: Path, tenant: str, quota: Quota, stop: Event) -> Taken:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(_open(file))
            archive = _Archive(stack.enter_context(ZstdDecompressor(max_window_size=_WINDOW).stream_reader(source)))
            head = decode_head(archive.next(_HEAD, LARGEST_HEAD))
            check_id(head.snapshot_id)
            tree = decode(head, (archive.checked(_LISTS, digest, LARGEST_BLOCK) for digest in head.blocks))
            if tree.snapshot_id != head.snapshot_id or tree.bytes != head.bytes:
                raise BadTree(f"its list of files is that of {tree.snapshot_id}")
            _check_hashes(tree)
            check_size(tree, quota)
            writer = stack.enter_context(snapshots.writing(tenant, quota))
            _keep_content(archive, tree, writer, stop)
            archive.end()
        except (ZstdError, BadTree, tarfile.TarError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{file} is no archive of a snapshot, or was damaged: {error}; nothing was kept"
            ) from None
        new_bytes = writer.finish(tree)
    return Taken(tree.snapshot_id, len(tree.entries), tree.bytes, new_bytes, tree.omitted)


def _open(file: Path) -> IO[bytes]:
    """A regular file to read from; a FIFO is not waited for."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"{file} is no regular file: an archive of a snapshot is one")
    return os.fdopen(fd, "rb")


def _check_hashes(tree: Tree) -> None:
    """What is one chunk, or empty, has the hash of that."""
    for entry in tree.entries:
        if entry.kind == "file" and len(entry.chunks) < 2 and (entry.chunks or (_EMPTY,))[0] != entry.sha256:
            raise BadTree(f"{entry.path!r} does not have the hash of its content")


def _keep_content(archive: _Archive, tree: Tree, writer: Writer, stop: Event) -> None:
    for entry in _carried(tree):
        whole = sha256()
        for number, digest in enumerate(entry.chunks):
            if stop.is_set():
                raise Stopped
            size = min(CHUNK, entry.size - number * CHUNK)
            chunk = archive.checked(_OBJECTS, digest, size)
            if len(chunk) != size:
                raise BadTree(f"a part of {entry.path!r} has {len(chunk)} bytes, not {size}")
            whole.update(chunk)
            writer.keep(digest, chunk)
        if whole.hexdigest() != entry.sha256:
            raise BadTree(f"the parts of {entry.path!r} are not those of the file")


class _Archive:
    """The members of an archive one after the other, each of which has to be the one that is expected."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain

    def next(self, name: str, most: int) -> bytes:
        """The content of the next member, which has this name and `most` bytes at most. BadTree, TarError."""
        member = tarfile.TarInfo.frombuf(self._read(_RECORD), "ascii", "strict")
        if member.name != name or member.type != tarfile.REGTYPE:
            raise BadTree(f"it has {member.name[:100]!r} where {name!r} must be")
        if not 0 <= member.size <= most:
            raise BadTree(f"{name!r} has {member.size} bytes, {most} are the most")
        content = self._read(member.size)
        self._read(-member.size % _RECORD)
        return content

    def checked(self, folder: str, digest: str, most: int) -> bytes:
        """The same for one that is named by its hash, which it has."""
        content = self.next(f"{folder}/{digest}", most)
        if sha256(content).hexdigest() != digest:
            raise BadTree(f"{folder}/{digest} does not have its hash")
        return content

    def end(self) -> None:
        """BadTree when there is more."""
        if any(self._read(2 * _RECORD)) or self._plain.read(1):
            raise BadTree("there is more in it than the snapshot needs")

    def _read(self, size: int) -> bytes:
        content = self._plain.read(size)
        while len(content) < size and (more := self._plain.read(size - len(content))):
            content += more
        if len(content) != size:
            raise BadTree("it ends too early")
        return content
