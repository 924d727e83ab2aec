"""Snapshots of workspaces: taken, restored, compared and deleted, by an id that is the hash of what they hold.

The face of the modules beside it: owns no format and no order of writing. Knows no sandbox and no run. All work that
waits is done in threads; canceling it ends it, and what it had begun is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from retinue.runs.errors import StoreError
from retinue.sandbox.snapshots.objects import Objects
from retinue.sandbox.snapshots.packing import Ciphers, Packer
from retinue.sandbox.snapshots.restoring import Restore, restore
from retinue.sandbox.snapshots.rules import Quota, Rules
from retinue.sandbox.snapshots.scanning import Scan, scan
from retinue.sandbox.snapshots.shelves import Shelf, Writer, missing
from retinue.sandbox.snapshots.stat_cache import StatCache, cache_of
from retinue.sandbox.snapshots.trees import Changes, Tree, check_id, compare
from retinue.sandbox.threads import disk_told

T = TypeVar("T")
_AT_ONCE = 8
"""Snapshots that a process takes and restores at a time; they are not in the way of its other work in threads."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is kept. `bytes` are those of its files, `new_bytes` what the store grew by."""

    snapshot_id: str
    entries: int
    bytes: int
    new_bytes: int
    omitted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """A snapshot in the store; `written_ns` is by the store's clock."""

    snapshot_id: str
    entries: int
    bytes: int
    written_ns: int
    omitted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A workspace that was made from a snapshot; `omitted` is what the snapshot never held."""

    snapshot_id: str
    entries: int
    bytes: int
    omitted: tuple[str, ...]


class Snapshots:
    """The snapshots of all tenants in one store. Safe for many tasks of one event loop, and beside other processes.

    Raises SandboxRefused for what must not be kept or made, SandboxLost for a snapshot that is not there whole,
    TransientError or PermanentError when a workspace changed meanwhile or the disk failed (code `disk`), StoreError of
    keys and remote places.
    """

    def __init__(self, objects: Objects, ciphers: Ciphers) -> None:
        self.objects = objects
        self._ciphers = ciphers
        self._threads = ThreadPoolExecutor(_AT_ONCE, "snapshots")

    async def take(self, folder: Path, tenant: str, rules: Rules | None = None) -> Taken:
        """Keep a folder as it is; durable when this returns. Nothing is kept when it raises."""
        return await self.apart(lambda stop: self._take(folder, tenant, rules or Rules(), stop))

    async def restore(
        self, snapshot_id: str, tenant: str, into: Path, uid: int | None = None, quota: Quota | None = None
    ) -> Restored:
        """Make the folder `into`, which must not exist, with all files of user `uid`; nothing stays when it raises."""
        check_id(snapshot_id)
        return await self.apart(lambda stop: self._restore(snapshot_id, tenant, into, (uid, quota or Quota()), stop))

    async def tree(self, snapshot_id: str, tenant: str) -> Tree:
        """What a snapshot holds."""
        check_id(snapshot_id)
        return await self.apart(lambda _: self._shelf_of(snapshot_id, tenant).tree(snapshot_id))

    async def diff(self, old: str, new: str, tenant: str) -> Changes:
        """What the second of two snapshots has that the first has not, and the other way round."""
        before, after = await self.tree(old, tenant), await self.tree(new, tenant)
        return await self.apart(lambda _: compare(before, after))

    async def listed(self, tenant: str) -> tuple[KeptSnapshot, ...]:
        """All snapshots of a tenant, oldest first."""
        return await self.apart(lambda _: self._listed(tenant))

    async def exists(self, snapshot_id: str, tenant: str) -> bool:
        """Whether a snapshot is kept."""
        check_id(snapshot_id)
        return await self.apart(lambda _: self._exists(snapshot_id, tenant))

    def among(self, snapshot_ids: Collection[str], tenant: str) -> set[str]:
        """Which of these are kept. Blocking."""
        shelf = self.shelf(tenant)
        return set() if shelf is None else shelf.among(snapshot_ids)

    async def delete(self, snapshot_id: str, tenant: str) -> None:
        """Let go of a snapshot; nothing happens when there is none. What it alone holds stays until it is collected."""
        check_id(snapshot_id)
        await self.apart(lambda _: self._delete(snapshot_id, tenant))

    async def erase(self, tenant: str) -> None:
        """Remove all snapshots of a tenant, whose key is destroyed besides."""
        await self.apart(lambda _: self.objects.erase(tenant))

    async def apart(self, work: Callable[[Event], T]) -> T:
        """Do blocking work in a thread. A cancellation waits until the work has noticed it and has cleaned up."""
        stop = Event()
        begun = self._threads.submit(_with_words, work, stop)
        task = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            if not begun.cancel():
                await asyncio.wait([task])
                task.exception()  # so that nobody calls it never retrieved
            raise

    def shelf(self, tenant: str) -> Shelf | None:
        """The objects of a tenant; None when its key is gone or never was. Blocking."""
        cipher = self._ciphers.of(tenant, make=False)
        return None if cipher is None else Shelf(self.objects, tenant, Packer(cipher))

    @contextmanager
    def writing(self, tenant: str, quota: Quota) -> Iterator[Writer]:
        """For a new snapshot of a tenant, within the bytes that it may keep. Blocking."""
        with self.objects.writing(tenant) as batch:
            used = 0 if quota.store_bytes is None else self.objects.usage(tenant)
            yield Writer(self._new_shelf(tenant), batch, quota, used)

    def _shelf_of(self, snapshot_id: str, tenant: str) -> Shelf:
        shelf = self.shelf(tenant)
        if shelf is None:
            raise missing(snapshot_id, erased=True)
        return shelf

    def _new_shelf(self, tenant: str) -> Shelf:
        cipher = self._ciphers.of(tenant, make=True)
        if cipher is None:
            raise StoreError(f"there is no key for tenant {tenant!r} and none could be made: look at the store of keys")
        return Shelf(self.objects, tenant, Packer(cipher))

    def _listed(self, tenant: str) -> tuple[KeptSnapshot, ...]:
        shelf = self.shelf(tenant)
        found = () if shelf is None else shelf.listed()
        kept = [
            KeptSnapshot(head.snapshot_id, head.entries, head.bytes, held.written_ns, head.omitted)
            for held, head in found
            if head is not None
        ]
        return tuple(sorted(kept, key=lambda each: (each.written_ns, each.snapshot_id)))

    def _exists(self, snapshot_id: str, tenant: str) -> bool:
        shelf = self.shelf(tenant)
        return shelf is not None and shelf.exists(snapshot_id)

    def _delete(self, snapshot_id: str, tenant: str) -> None:
        shelf = self.shelf(tenant)
        if shelf is not None:
            shelf.delete(snapshot_id)

    def _take(self, folder: Path, tenant: str, rules: Rules, stop: Event) -> Taken:
        cache = StatCache(cache_of(folder))
        try:
            with self.writing(tenant, rules.quota) as writer:
                tree = scan(folder, Scan(rules, cache, writer, stop))
                new_bytes = writer.finish(tree)
        finally:
            cache.close()
        return Taken(tree.snapshot_id, len(tree.entries), tree.bytes, new_bytes, tree.omitted)

    def _restore(
        self, snapshot_id: str, tenant: str, into: Path, whose: tuple[int | None, Quota], stop: Event
    ) -> Restored:
        shelf = self._shelf_of(snapshot_id, tenant)
        shelf.refresh(snapshot_id)
        tree = shelf.tree(snapshot_id)
        uid, quota = whose
        content = partial(shelf.content, snapshot_id)
        restore(tree, into, Restore(content, cache_of(into), uid, quota, stop))
        return Restored(snapshot_id, len(tree.entries), tree.bytes, tree.omitted)


def _with_words(work: Callable[[Event], T], stop: Event) -> T:
    with disk_told("a snapshot, of which nothing was changed"):
        return work(stop)
