"""Snapshots in a place that all nodes reach: objects as files of a bucket, with copies of what was used on the node.

Owns how batches and collections keep out of each other's way where there are no locks: each puts a file that says so
and renews it; a file that was not renewed for a while belongs to a process that is gone. Both put theirs before they
look for others, so that of two that begin together at least one sees the other. Time is that of the place.

    <tenant>/objects/.. trees/..   as in a folder
    <tenant>/writing/<name>        somebody writes a batch
    <tenant>/collecting/<name>     somebody collects
    <tenant>/collected             another tag after each collection: what was known to be there may not be
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from retinue.runs.errors import StoreError, TransientError
from retinue.sandbox.snapshots.nearby import Nearby
from retinue.sandbox.snapshots.objects import Batch, Held, quoted

LEASE, RENEW = 120.0, 30.0
"""Seconds that a process may be silent before it counts as gone, and after which it says that it is there."""
_PATIENCE, _PAUSE = 60.0, 0.5
_AT_ONCE, _WAITING = 16, 64
"""Requests at a time, and objects that wait to be sent."""
_FEW = 32
"""So many objects are asked for one by one; more are found by listing."""
_SECOND = 1_000_000_000


class Known(Protocol):
    """A file of a place; `written_ns` is by the clock of the place (Unix ns)."""

    @property
    def path(self) -> str:
        """Below the place."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def tag(self) -> str:
        """Changes with the content."""
        ...

    @property
    def written_ns(self) -> int:
        """When it was written."""
        ...


class Bucket(Protocol):
    """A place for files, as snapshots need it. Blocking; safe for threads; each call has a bound. Raises StoreError."""

    def put(self, path: str, content: bytes) -> None:
        """Write a file, durable and whole when this returns."""
        ...

    def get(self, path: str) -> bytes | None:
        """A whole file; None when there is none."""
        ...

    def head(self, path: str) -> Known | None:
        """What there is under a path."""
        ...

    def list(self, folder: str) -> Iterator[Known]:
        """Every file below a folder."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when there is none."""
        ...


class RemoteObjects:
    """Implements `objects.Objects` over a bucket, below `prefix`. `nearby` keeps copies on this node. Safe for threads
    and, by the files above, for processes on all nodes.
    """

    def __init__(self, bucket: Bucket, prefix: str, nearby: Nearby) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._nearby = nearby
        self._pool = ThreadPoolExecutor(_AT_ONCE, "remote-snapshots")
        self._known: dict[str, set[str]] = {}
        self._tags: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, tenant: str, key: str) -> bytes | None:
        """See Objects. The list of a snapshot is asked for each time: it says whether there is the snapshot."""
        found = self._nearby.get(tenant, key) if _is_object(key) else None
        if found is None:
            found = self._bucket.get(self.path(tenant, key))
            if found is not None and _is_object(key):
                self._nearby.put(tenant, key, found)
        return found

    def has(self, tenant: str, keys: Collection[str]) -> set[str]:
        """See Objects. What objects this process knows to be there is believed until somebody collects."""
        with self._lock:
            held = self._known.get(tenant, set())
            known = {key for key in keys if key in held}
        asked = [key for key in keys if key not in known]
        if len(asked) > _FEW:
            found = {held.key for top in {key.partition("/")[0] for key in asked} for held in self.list(tenant, top)}
        else:
            heads = self._pool.map(self._bucket.head, [self.path(tenant, key) for key in asked])
            found = {key for key, head in zip(asked, heads, strict=True) if head is not None}
        self.know(tenant, found)
        return {key for key in keys if key in known or key in found}

    def list(self, tenant: str, folder: str) -> Iterator[Held]:
        """See Objects."""
        start = len(self.path(tenant, ""))
        for found in self._bucket.list(self.path(tenant, folder)):
            yield Held(found.path[start:], found.size, found.written_ns)

    def delete(self, tenant: str, key: str) -> None:
        """See Objects."""
        self.remove(tenant, [key])

    def remove(self, tenant: str, keys: Collection[str]) -> None:
        """See Objects."""
        if keys:
            self._bucket.put(self.path(tenant, "collected"), os.urandom(16).hex().encode())
            with self._lock:
                self._known.pop(tenant, None)
            for key in keys:
                self._nearby.drop(tenant, key)
            tuple(self._pool.map(self._bucket.delete, [self.path(tenant, key) for key in keys]))

    def refresh(self, tenant: str, key: str) -> bool:
        """See Objects. It is written again where it is: there is no other way to make it young."""
        content = self._bucket.get(self.path(tenant, key))
        if content is not None:
            self._bucket.put(self.path(tenant, key), content)
        return content is not None

    def usage(self, tenant: str) -> int:
        """See Objects."""
        return sum(found.size for found in self._bucket.list(self.path(tenant, "")))

    @contextmanager
    def writing(self, tenant: str) -> Iterator[Batch]:
        """See Objects."""
        with self._present(tenant, "writing") as sign:
            sign.await_none("collecting")
            self._forget_if_collected(tenant)
            batch = _RemoteBatch(self, tenant, sign)
            try:
                yield batch
            finally:
                batch.end()

    @contextmanager
    def collecting(self, tenant: str) -> Iterator[None]:
        """See Objects. Of two that begin together both may give up; each tries again at its next turn."""
        with self._present(tenant, "collecting") as sign:
            if sign.others("collecting"):
                raise _busy(tenant)
            sign.await_none("writing")
            yield

    def erase(self, tenant: str) -> None:
        """See Objects."""
        if self.exists(tenant):
            with self.collecting(tenant):
                found = [each.path for each in self._bucket.list(self.path(tenant, ""))]
                tuple(self._pool.map(self._bucket.delete, found))
        self._nearby.erase(tenant)

    def exists(self, tenant: str) -> bool:
        """See Objects."""
        return next(iter(self._bucket.list(self.path(tenant, ""))), None) is not None

    def send(self, tenant: str, key: str, content: bytes) -> Future[None]:
        """Begin to write an object."""
        return self._pool.submit(self._send, tenant, key, content)

    def know(self, tenant: str, keys: Collection[str]) -> None:
        """These objects are there."""
        with self._lock:
            self._known.setdefault(tenant, set()).update(key for key in keys if _is_object(key))

    def path(self, tenant: str, key: str) -> str:
        """Where a key of a tenant is in the bucket."""
        return "/".join(part for part in (self._prefix, quoted(tenant)) if part) + f"/{key}"

    def _send(self, tenant: str, key: str, content: bytes) -> None:
        self._bucket.put(self.path(tenant, key), content)
        self._nearby.put(tenant, key, content)
        self.know(tenant, (key,))

    def _forget_if_collected(self, tenant: str) -> None:
        found = self._bucket.head(self.path(tenant, "collected"))
        tag = "" if found is None else found.tag
        with self._lock:
            if self._tags.get(tenant) != tag:
                self._tags[tenant] = tag
                self._known.pop(tenant, None)

    @contextmanager
    def _present(self, tenant: str, what: str) -> Iterator[_Sign]:
        sign = _Sign(self._bucket, self.path(tenant, ""), f"{what}/{os.urandom(8).hex()}")
        try:
            sign.renew()
            renewing = threading.Thread(target=sign.keep, name="remote-snapshots-sign", daemon=True)
            renewing.start()
            try:
                yield sign
            finally:
                sign.ended.set()
                renewing.join()
        finally:
            self._bucket.delete(sign.path)


class _Sign:
    """The file that says that this process writes or collects, below `top`, and a look at those of others."""

    def __init__(self, bucket: Bucket, top: str, name: str) -> None:
        self._bucket = bucket
        self._top = top
        self.path = top + name
        self.ended = threading.Event()
        self._renewed = time.monotonic()

    @property
    def counts(self) -> bool:
        """Whether others must have believed all the time that this process is there."""
        return time.monotonic() - self._renewed < LEASE - RENEW

    def renew(self) -> None:
        """Say that this process is there."""
        began = time.monotonic()
        self._bucket.put(self.path, b"")
        self._renewed = began

    def keep(self) -> None:
        """Say it again and again until it has ended, or until it no longer counts."""
        while not self.ended.wait(RENEW) and self.counts:
            with contextlib.suppress(StoreError):
                self.renew()

    def others(self, what: str) -> list[str]:
        """The paths of signs of processes that are there; those of others are removed."""
        self.renew()
        own = self._bucket.head(self.path)
        now = 0 if own is None else own.written_ns
        found = [each for each in self._bucket.list(self._top + what) if each.path != self.path]
        for each in found:
            if each.written_ns < now - LEASE * _SECOND:
                self._bucket.delete(each.path)
        return [each.path for each in found if each.written_ns >= now - LEASE * _SECOND]

    def await_none(self, what: str) -> None:
        """Wait until nobody does this. TransientError when others have done it for too long."""
        until = time.monotonic() + _PATIENCE
        while self.others(what):
            if time.monotonic() > until:
                raise _busy(self._top)
            time.sleep(_PAUSE)


class _RemoteBatch:
    """Objects are sent as they come; nobody looks for them before the list that names them is there."""

    def __init__(self, objects: RemoteObjects, tenant: str, sign: _Sign) -> None:
        self._objects = objects
        self._tenant = tenant
        self._sign = sign
        self._sent: dict[str, Future[None]] = {}
        self._room = threading.BoundedSemaphore(_WAITING)
        self._lock = threading.Lock()
        self.written = 0

    def put(self, key: str, content: bytes) -> None:
        """See Batch. What sending meets is raised by `commit`."""
        self._room.acquire()
        with self._lock:
            if key in self._sent:
                self._room.release()
                return
            self.written += len(content)
            sent = self._sent[key] = self._objects.send(self._tenant, key, content)
        sent.add_done_callback(lambda _: self._room.release())

    def commit(self, key: str, content: bytes) -> None:
        """See Batch."""
        for sent in self._sent.values():
            sent.result()
        self._check()
        self._objects.send(self._tenant, key, content).result()
        try:
            self._check()
        except TransientError:
            self._objects.delete(self._tenant, key)
            raise

    def end(self) -> None:
        """Nothing is on its way any more."""
        for sent in self._sent.values():
            sent.cancel()
        wait(self._sent.values())

    def _check(self) -> None:
        if not self._sign.counts:
            raise TransientError(
                f"a snapshot of tenant {self._tenant!r} was not kept: the place for snapshots was out of reach for "
                f"more than {LEASE - RENEW:.0f} s meanwhile; try again",
                code="snapshots_busy",
            )


def _is_object(key: str) -> bool:
    return key.startswith("objects/")


def _busy(where: str) -> TransientError:
    return TransientError(
        f"the store of snapshots is in use: others wrote or collected in {where} for {_PATIENCE:.0f} s; try again",
        code="snapshots_busy",
    )
