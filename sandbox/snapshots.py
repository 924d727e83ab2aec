"""Snapshots of workspaces: taken, restored, compared and deleted, by an id that is the hash of what they hold.

Owns what a store of objects means: `objects/..` are chunks of files by the keyed name of their sha256, `trees/..` lists
of files by that of their id. Knows no sandbox and no run. All work that waits is done in threads; canceling it ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import TypeVar

from retinue.runs.errors import StoreError, TransientError
from retinue.runs.sandboxes import SandboxLost
from retinue.sandbox.objects import Batch, Objects
from retinue.sandbox.packing import Ciphers, Damaged, Packer
from retinue.sandbox.restoring import Restore, restore
from retinue.sandbox.rules import Quota, Rules
from retinue.sandbox.scanning import Scan, scan
from retinue.sandbox.stat_cache import StatCache
from retinue.sandbox.trees import CHUNK, BadTree, Changes, Entry, Tree, check_id, compare, decode, encode

LARGEST_TREE = 1024 * 1024 * 1024
"""Bytes of a list of files, before it is read."""
OBJECTS, TREES = "objects", "trees"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is kept. `bytes` are those of its files, `new_bytes` what the store grew by."""

    snapshot_id: str
    entries: int
    bytes: int
    new_bytes: int
    omitted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A workspace that was made from a snapshot; `omitted` is what the snapshot never held."""

    snapshot_id: str
    entries: int
    bytes: int
    omitted: tuple[str, ...]


def cache_of(folder: Path) -> Path:
    """Where the stat cache of a workspace stands: beside it."""
    return folder.with_name(f"{folder.name}.stats")


def key_of(packer: Packer, digest: str) -> str:
    """Where the chunk of this sha256 is kept."""
    name = packer.name(digest)
    return f"{OBJECTS}/{name[:2]}/{name[2:]}"


def tree_key_of(packer: Packer, snapshot_id: str) -> str:
    """Where the list of files of a snapshot is kept."""
    return f"{TREES}/{packer.name(snapshot_id)}"


class Snapshots:
    """The snapshots of all tenants in one store. Safe for many tasks of one event loop, and beside other processes.

    Raises SandboxRefused for what must not be kept or made, SandboxLost for a snapshot that is not there whole,
    TransientError when a workspace changed meanwhile or the disk failed, StoreError of keys and remote places.
    """

    def __init__(self, objects: Objects, ciphers: Ciphers) -> None:
        self._objects = objects
        self._ciphers = ciphers

    async def take(self, folder: Path, tenant: str, rules: Rules | None = None) -> Taken:
        """Keep a folder as it is; durable when this returns. Nothing is kept when it raises."""
        return await _apart(lambda stop: self._take(folder, tenant, rules or Rules(), stop))

    async def restore(
        self, snapshot_id: str, tenant: str, into: Path, uid: int | None = None, quota: Quota | None = None
    ) -> Restored:
        """Make the folder `into`, which must not exist, with all files of user `uid`; nothing stays when it raises."""
        check_id(snapshot_id)
        return await _apart(lambda stop: self._restore(snapshot_id, tenant, into, (uid, quota or Quota()), stop))

    async def tree(self, snapshot_id: str, tenant: str) -> Tree:
        """What a snapshot holds."""
        check_id(snapshot_id)
        return await _apart(lambda _: self._tree(snapshot_id, tenant))

    async def diff(self, old: str, new: str, tenant: str) -> Changes:
        """What the second of two snapshots has that the first has not, and the other way round."""
        return compare(await self.tree(old, tenant), await self.tree(new, tenant))

    async def exists(self, snapshot_id: str, tenant: str) -> bool:
        """Whether a snapshot is kept."""
        check_id(snapshot_id)
        return await _apart(lambda _: self._exists(snapshot_id, tenant))

    async def delete(self, snapshot_id: str, tenant: str) -> None:
        """Let go of a snapshot; nothing happens when there is none. What it alone holds stays until it is collected."""
        check_id(snapshot_id)
        await _apart(lambda _: self._delete(snapshot_id, tenant))

    async def erase(self, tenant: str) -> None:
        """Remove all snapshots of a tenant, whose key is destroyed besides."""
        await _apart(lambda _: self._objects.erase(tenant))

    def packer(self, tenant: str) -> Packer | None:
        """How the objects of a tenant are packed and named; None when its key is gone. Blocking."""
        cipher = self._ciphers.of(tenant, make=False)
        return None if cipher is None else Packer(cipher)

    def _new_packer(self, tenant: str) -> Packer:
        cipher = self._ciphers.of(tenant, make=True)
        if cipher is None:
            raise StoreError(f"there is no key for tenant {tenant!r} and none could be made: look at the store of keys")
        return Packer(cipher)

    def _exists(self, snapshot_id: str, tenant: str) -> bool:
        packer = self.packer(tenant)
        return packer is not None and bool(self._objects.has(tenant, [tree_key_of(packer, snapshot_id)]))

    def _delete(self, snapshot_id: str, tenant: str) -> None:
        packer = self.packer(tenant)
        if packer is not None:
            self._objects.delete(tenant, tree_key_of(packer, snapshot_id))

    def _take(self, folder: Path, tenant: str, rules: Rules, stop: Event) -> Taken:
        cache = StatCache(cache_of(folder))
        try:
            with self._objects.writing(tenant) as batch:
                sink = _Sink(self._objects, tenant, self._new_packer(tenant), batch, self._room(tenant, rules.quota))
                tree = scan(folder, Scan(rules, cache, sink, stop))
                new_bytes = sink.finish(tree)
        finally:
            cache.close()
        return Taken(tree.snapshot_id, len(tree.entries), tree.bytes, new_bytes, tree.omitted)

    def _room(self, tenant: str, quota: Quota) -> tuple[Quota, int]:
        return quota, 0 if quota.store_bytes is None else self._objects.usage(tenant)

    def _restore(
        self, snapshot_id: str, tenant: str, into: Path, whose: tuple[int | None, Quota], stop: Event
    ) -> Restored:
        packer = self._packer_of(snapshot_id, tenant)
        tree = self._tree(snapshot_id, tenant)
        source = _Source(self._objects, tenant, packer, snapshot_id)
        restore(tree, into, Restore(source.chunks, *whose, stop))
        return Restored(snapshot_id, len(tree.entries), tree.bytes, tree.omitted)

    def _tree(self, snapshot_id: str, tenant: str) -> Tree:
        packer = self._packer_of(snapshot_id, tenant)
        packed = self._objects.get(tenant, tree_key_of(packer, snapshot_id))
        if packed is None:
            raise _missing(snapshot_id, erased=not self._objects.exists(tenant))
        try:
            text = packer.unpack(packed, LARGEST_TREE)
            if text is None:
                raise _missing(snapshot_id, erased=True)
            tree = decode(text)
        except (BadTree, Damaged, StoreError) as error:
            raise _damaged(snapshot_id, "its list of files", str(error)) from None
        if tree.snapshot_id != snapshot_id:
            raise _damaged(snapshot_id, "its list of files", f"it is that of {tree.snapshot_id}")
        return tree

    def _packer_of(self, snapshot_id: str, tenant: str) -> Packer:
        packer = self.packer(tenant)
        if packer is None:
            raise _missing(snapshot_id, erased=True)
        return packer


class _Sink:
    """Takes the chunks of one scan into a batch."""

    def __init__(self, objects: Objects, tenant: str, packer: Packer, batch: Batch, room: tuple[Quota, int]) -> None:
        self._objects = objects
        self._tenant = tenant
        self._packer = packer
        self._batch = batch
        self._quota, self._used = room

    def lacking(self, digests: Collection[str]) -> set[str]:
        """See Sink."""
        keys = {key_of(self._packer, digest): digest for digest in digests}
        held = self._objects.has(self._tenant, keys.keys())
        return {digest for key, digest in keys.items() if key not in held}

    def keep(self, digest: str, chunk: bytes) -> None:
        """See Sink."""
        key = key_of(self._packer, digest)
        if not self._objects.has(self._tenant, (key,)):
            self._batch.put(key, self._packer.pack(chunk))
            self._quota.check("store_bytes", self._used + self._batch.written, "the store")

    def finish(self, tree: Tree) -> int:
        """Make it durable that there is this tree; the bytes that the store grew by."""
        key = tree_key_of(self._packer, tree.snapshot_id)
        if self._batch.written == 0 and self._objects.has(self._tenant, (key,)):
            return 0
        packed = self._packer.pack(encode(tree))
        self._quota.check("store_bytes", self._used + self._batch.written + len(packed), "the store")
        self._batch.commit(key, packed)
        return self._batch.written + len(packed)


class _Source:
    """Gives the chunks of a snapshot's files, each checked."""

    def __init__(self, objects: Objects, tenant: str, packer: Packer, snapshot_id: str) -> None:
        self._objects = objects
        self._tenant = tenant
        self._packer = packer
        self._snapshot_id = snapshot_id

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See restoring.Source."""
        whole = sha256()
        for number, digest in enumerate(entry.chunks):
            size = min(CHUNK, entry.size - number * CHUNK)
            chunk = self._chunk(entry, digest, size)
            if len(entry.chunks) > 1:
                whole.update(chunk)
            yield chunk
        found = entry.chunks[0] if len(entry.chunks) == 1 else whole.hexdigest()
        if found != entry.sha256:
            raise _damaged(self._snapshot_id, repr(entry.path), "its parts are not those of the file")

    def _chunk(self, entry: Entry, digest: str, size: int) -> bytes:
        packed = self._objects.get(self._tenant, key_of(self._packer, digest))
        if packed is None:
            raise _damaged(self._snapshot_id, repr(entry.path), "an object of it is missing")
        try:
            chunk = self._packer.unpack(packed, size)
        except (Damaged, StoreError) as error:
            raise _damaged(self._snapshot_id, repr(entry.path), str(error)) from None
        if chunk is None:
            raise _missing(self._snapshot_id, erased=True)
        if len(chunk) != size or sha256(chunk).hexdigest() != digest:
            raise _damaged(self._snapshot_id, repr(entry.path), "an object of it does not have its hash")
        return chunk


def _missing(snapshot_id: str, erased: bool) -> SandboxLost:
    why = "it was erased with its tenant" if erased else "it was deleted, or made in another place"
    return SandboxLost(f"snapshot {snapshot_id} is not in the store: {why}; nothing was restored")


def _damaged(snapshot_id: str, what: str, why: str) -> SandboxLost:
    return SandboxLost(
        f"snapshot {snapshot_id} cannot be restored: {what} is damaged in the store ({why}); nothing was kept of it; "
        "take the objects from a backup, or go on from another snapshot"
    )


async def _apart(work: Callable[[Event], T]) -> T:
    """Do blocking work in a thread. A cancellation waits until the work has noticed it and has cleaned up."""
    stop = Event()
    task = asyncio.ensure_future(asyncio.to_thread(_with_words, work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        task.exception() if not task.cancelled() else None
        raise


def _with_words(work: Callable[[Event], T], stop: Event) -> T:
    try:
        return work(stop)
    except OSError as error:
        raise TransientError(f"the disk failed with a snapshot: {error}; nothing was changed", code="disk") from error
