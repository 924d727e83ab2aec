"""What a store of objects means: the files of snapshots in chunks, and their lists, of one tenant.

Owns the names: `objects/..` are chunks of files and blocks of lists by the keyed name of their sha256, `trees/..` heads
of lists by that of their snapshot's id. Knows no folder. Blocking. What comes out was checked against its hash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256

from retinue.runs.sandboxes import SandboxLost
from retinue.sandbox.snapshots.listing import BadTree, Head, decode, decode_head, encode_blocks, encode_head
from retinue.sandbox.snapshots.objects import Batch, Held, Objects
from retinue.sandbox.snapshots.packing import Damaged, Erased, Packer
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.trees import CHUNK, Entry, Tree

OBJECTS, TREES = "objects", "trees"
LARGEST_HEAD, LARGEST_BLOCK = 256 * 1024 * 1024, 128 * 1024 * 1024
"""Bytes, plain: more is not unpacked."""


class Shelf:
    """The snapshots of one tenant in a store. Raises SandboxLost for one that is not there whole, OSError and
    StoreError of the store. Safe for several threads.
    """

    def __init__(self, objects: Objects, tenant: str, packer: Packer) -> None:
        self._objects = objects
        self._tenant = tenant
        self._packer = packer

    def key(self, digest: str) -> str:
        """Where the chunk or block of this sha256 is kept."""
        name = self._packer.name(digest)
        return f"{OBJECTS}/{name[:2]}/{name[2:]}"

    def head_key(self, snapshot_id: str) -> str:
        """Where the head of a snapshot's list is kept; the snapshot is there when this is."""
        return f"{TREES}/{self._packer.name(snapshot_id)}"

    def exists(self, snapshot_id: str) -> bool:
        """Whether a snapshot is kept."""
        return bool(self._objects.has(self._tenant, [self.head_key(snapshot_id)]))

    def among(self, snapshot_ids: Collection[str]) -> set[str]:
        """Which of these snapshots are kept."""
        keys = {self.head_key(snapshot_id): snapshot_id for snapshot_id in snapshot_ids}
        return {keys[key] for key in self._objects.has(self._tenant, keys)}

    def delete(self, snapshot_id: str) -> None:
        """Let go of a snapshot; its objects stay until they are collected."""
        self._objects.delete(self._tenant, self.head_key(snapshot_id))

    def refresh(self, snapshot_id: str) -> bool:
        """Somebody begins to use a snapshot: its time of grace begins anew. False when it is not kept."""
        return self._objects.refresh(self._tenant, self.head_key(snapshot_id))

    def listed(self) -> Iterator[tuple[Held, Head | None]]:
        """All snapshots; None for what an earlier key of the tenant had sealed, which was destroyed: it was erased.

        SandboxLost when one of them is damaged: whoever collects must not take it for none.
        """
        for held in self._objects.list(self._tenant, TREES):
            try:
                head: Head | None = decode_head(self._unpacked(held.key, LARGEST_HEAD))
            except FileNotFoundError:
                continue  # deleted since it was listed
            except Erased:
                head = None
            except (Damaged, BadTree) as error:
                raise _damaged(f"(kept as {held.key})", "the head of its list of files", error) from None
            yield held, head

    def head(self, snapshot_id: str) -> Head:
        """What is known of a snapshot without its list of files."""
        try:
            text = self._unpacked(self.head_key(snapshot_id), LARGEST_HEAD)
            head = decode_head(text)
        except FileNotFoundError:
            raise missing(snapshot_id, erased=False) from None
        except Erased:
            raise missing(snapshot_id, erased=True) from None
        except (BadTree, Damaged) as error:
            raise _damaged(snapshot_id, "the head of its list of files", error) from None
        return head

    def tree(self, snapshot_id: str) -> Tree:
        """The list of files of a snapshot, which has its id."""
        head = self.head(snapshot_id)
        try:
            tree = decode(head, [self._checked(digest, LARGEST_BLOCK) for digest in head.blocks])
        except Erased:
            raise missing(snapshot_id, erased=True) from None
        except (BadTree, Damaged, FileNotFoundError) as error:
            raise _damaged(snapshot_id, "its list of files", error) from None
        if tree.snapshot_id != snapshot_id:
            raise _damaged(snapshot_id, "its list of files", Damaged(f"it is that of {tree.snapshot_id}"))
        return tree

    def needs(self, snapshot_id: str) -> set[str]:
        """The keys of all objects without which a snapshot is not whole."""
        head, tree = self.head(snapshot_id), self.tree(snapshot_id)
        digests = {*head.blocks, *(chunk for entry in tree.entries for chunk in entry.chunks)}
        return {self.head_key(snapshot_id), *map(self.key, digests)}

    def content(self, snapshot_id: str, entry: Entry) -> Iterator[bytes]:
        """The chunks of a file of a snapshot."""
        whole = sha256()
        try:
            for number, digest in enumerate(entry.chunks):
                size = min(CHUNK, entry.size - number * CHUNK)
                chunk = self._checked(digest, size)
                if len(chunk) != size:
                    raise Damaged(f"a part of it has {len(chunk)} bytes, not {size}")
                if len(entry.chunks) > 1:
                    whole.update(chunk)
                yield chunk
            if (entry.chunks[0] if len(entry.chunks) == 1 else whole.hexdigest()) != entry.sha256:
                raise Damaged("its parts are not those of the file")
        except Erased:
            raise missing(snapshot_id, erased=True) from None
        except (Damaged, FileNotFoundError) as error:
            raise _damaged(snapshot_id, repr(entry.path), error) from None

    def lacking(self, digests: Collection[str]) -> set[str]:
        """Which of these chunks are not kept."""
        keys = {self.key(digest): digest for digest in digests}
        held = self._objects.has(self._tenant, keys.keys())
        return {digest for key, digest in keys.items() if key not in held}

    def pack(self, plain: bytes) -> bytes:
        """As an object is kept."""
        return self._packer.pack(plain)

    def _checked(self, digest: str, most: int) -> bytes:
        plain = self._unpacked(self.key(digest), most)
        if sha256(plain).hexdigest() != digest:
            raise Damaged("an object of it does not have its hash")
        return plain

    def _unpacked(self, key: str, most: int) -> bytes:
        packed = self._objects.get(self._tenant, key)
        if packed is None:
            raise FileNotFoundError("an object of it is missing")
        return self._packer.unpack(packed, most)


class Writer:
    """Puts what a scan reads into a batch: the sink of one snapshot. `used` bytes of the tenant are kept already."""

    def __init__(self, shelf: Shelf, batch: Batch, quota: Quota, used: int) -> None:
        self._shelf = shelf
        self._batch = batch
        self._quota = quota
        self._used = used

    def lacking(self, digests: Collection[str]) -> set[str]:
        """See Sink."""
        return self._shelf.lacking(digests)

    def keep(self, digest: str, chunk: bytes) -> None:
        """See Sink. SandboxRefused with code `quota` when the store of the tenant would be too large."""
        if self._shelf.lacking((digest,)):
            self._batch.put(self._shelf.key(digest), self._shelf.pack(chunk))
            self._check_room(0)

    def finish(self, tree: Tree) -> int:
        """Make it durable that there is this tree; the bytes that the store grew by."""
        if self._batch.written == 0 and self._shelf.refresh(tree.snapshot_id):
            return 0
        blocks = []
        for block in encode_blocks(tree):
            blocks.append(sha256(block).hexdigest())
            self.keep(blocks[-1], block)
        head = Head(tree.snapshot_id, len(tree.entries), tree.bytes, tuple(blocks), tree.omitted)
        packed = self._shelf.pack(encode_head(head))
        self._check_room(len(packed))
        self._batch.commit(self._shelf.head_key(tree.snapshot_id), packed)
        return self._batch.written + len(packed)

    def _check_room(self, more: int) -> None:
        self._quota.check("store_bytes", self._used + self._batch.written + more, of="the store")


def missing(snapshot_id: str, erased: bool) -> SandboxLost:
    """The error of a snapshot that is not kept."""
    why = (
        "it was erased with its tenant"
        if erased
        else "it was deleted or erased, or is kept on another node (`sandbox.snapshots` is a place that all reach)"
    )
    return SandboxLost(f"snapshot {snapshot_id} is not in the store: {why}; nothing was restored")


def _damaged(snapshot_id: str, what: str, why: Exception) -> SandboxLost:
    return SandboxLost(
        f"snapshot {snapshot_id} cannot be restored: {what} is damaged in the store ({why}); nothing was kept of it; "
        "take the store from a backup, or go on from another snapshot"
    )
