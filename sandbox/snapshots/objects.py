"""Where the objects of snapshots stand: the port to a store of immutable files, and the one in a local folder.

Owns the order in which a snapshot becomes durable. Knows neither what is in an object nor what it is called after.

The order, which a kill or a loss of power at any point leaves good: new objects are written below `tmp`, made durable
together, and only then renamed, so that what has an object's name is whole; the names are made durable, and at last
the list of files is, written and renamed in the same way. What is in `tmp` of a dead process is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from retinue.runs.errors import TransientError
from retinue.sandbox.folders import DIRECTORY, opened, remove_tree, sync_whole
from retinue.sandbox.locks import locked, try_lock

_LONGEST = 180
_DRAFTS = "tmp"
_PATIENCE, _PAUSE = 60.0, 0.02
"""Seconds that a lock is waited for, and between two looks at it."""
GUARD = "guard.lock"
"""Beside the tenants' folders, none of which has a dot in its name: shared by those who remove objects, held alone by
whoever needs all of them to stay."""


@dataclass(frozen=True, slots=True)
class Held:
    """An object in a store: its key, its size in bytes as stored, and when it was written (Unix ns, by the store)."""

    key: str
    size: int
    written_ns: int


class Batch(Protocol):
    """Objects that are written together. `put` may be called from several threads."""

    written: int
    """Bytes that were put so far."""

    def put(self, key: str, content: bytes) -> None:
        """Write one; nobody sees it before `commit`. A key that was put already is not put again."""
        ...

    def commit(self, key: str, content: bytes) -> None:
        """Make all that was put durable, and then this last one; when it returns all are there for good."""
        ...


class Objects(Protocol):
    """A store of objects by tenant. A key is `folder/.../name`, of letters, digits, `-`, `_` and `.`; content never
    changes under one. Blocking, and safe for several threads and processes. Raises OSError or StoreError.
    """

    def get(self, tenant: str, key: str) -> bytes | None:
        """The content; None when there is none."""
        ...

    def has(self, tenant: str, keys: Collection[str]) -> set[str]:
        """Which of these there are."""
        ...

    def list(self, tenant: str, folder: str) -> Iterator[Held]:
        """All below a folder, in any order."""
        ...

    def delete(self, tenant: str, key: str) -> None:
        """Remove one; nothing happens when there is none."""
        ...

    def remove(self, tenant: str, keys: Collection[str]) -> None:
        """Remove these; when it returns they stay away, whatever happens to the machine."""
        ...

    def refresh(self, tenant: str, key: str) -> bool:
        """Let one count as written now; False when there is none."""
        ...

    def usage(self, tenant: str) -> int:
        """Bytes of all objects of a tenant."""
        ...

    def writing(self, tenant: str) -> AbstractContextManager[Batch]:
        """A batch; what was not committed at the end is gone. While it lasts nothing is collected."""
        ...

    def collecting(self, tenant: str) -> AbstractContextManager[None]:
        """Waits until no batch is being written, and keeps new ones waiting: for whoever removes objects."""
        ...

    def erase(self, tenant: str) -> None:
        """Remove all of a tenant."""
        ...

    def exists(self, tenant: str) -> bool:
        """Whether anything was ever written for a tenant that was not erased since."""
        ...


class LocalObjects:
    """Objects below a folder of this machine, or of a file system that several mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, tuple[int, int]] = {}
        self._homes: dict[str, Path] = {}
        self._lock = threading.Lock()

    def get(self, tenant: str, key: str) -> bytes | None:
        """See Objects."""
        try:
            fd = os.open(f"{self._of(tenant)}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return _read(fd)
        finally:
            os.close(fd)

    def has(self, tenant: str, keys: Collection[str]) -> set[str]:
        """See Objects."""
        prefix = f"{self._of(tenant)}/"
        return {key for key in keys if os.path.exists(prefix + key)}

    def list(self, tenant: str, folder: str) -> Iterator[Held]:
        """See Objects."""
        home = self._of(tenant)
        for path, _, names in os.walk(home / folder):
            for name in names:
                file = Path(path, name)
                try:
                    status = file.stat()
                except FileNotFoundError:
                    continue
                yield Held(str(file.relative_to(home)), status.st_size, status.st_mtime_ns)

    def delete(self, tenant: str, key: str) -> None:
        """See Objects."""
        (self._of(tenant) / key).unlink(missing_ok=True)

    def remove(self, tenant: str, keys: Collection[str]) -> None:
        """See Objects."""
        home = self._of(tenant)
        if keys and home.is_dir():
            for key in keys:
                (home / key).unlink(missing_ok=True)
            with opened(home) as fd:
                sync_whole(fd)

    def refresh(self, tenant: str, key: str) -> bool:
        """See Objects."""
        try:
            os.utime(self._of(tenant) / key)
        except FileNotFoundError:
            return False
        return True

    def usage(self, tenant: str) -> int:
        """See Objects. Folders that did not change since they were counted last are not counted again; drafts, which
        come and go, are not counted.
        """
        home = str(self._of(tenant))
        return sum(self._size(path) for path in _folders(home, but=f"{home}/{_DRAFTS}"))

    @contextmanager
    def writing(self, tenant: str) -> Iterator[Batch]:
        """See Objects."""
        home = self._of(tenant)
        sweeping = home / "tmp.lock"
        with _held(home / "lock", fcntl.LOCK_SH):
            with _held(sweeping, fcntl.LOCK_EX):
                mine = _draft_folder(home / _DRAFTS)
                held = os.open(mine, DIRECTORY)
                fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield _LocalBatch(home, mine)
            finally:
                try:
                    with _held(sweeping, fcntl.LOCK_EX):
                        remove_tree(mine)
                finally:
                    os.close(held)

    @contextmanager
    def collecting(self, tenant: str) -> Iterator[None]:
        """See Objects. What waits for the guard has nothing that keeps writers waiting."""
        with _held(self._folder / GUARD, fcntl.LOCK_SH), _held(self._of(tenant) / "lock", fcntl.LOCK_EX):
            yield

    def erase(self, tenant: str) -> None:
        """See Objects."""
        if self.exists(tenant):
            with self.collecting(tenant):
                remove_tree(self._of(tenant))

    def exists(self, tenant: str) -> bool:
        """See Objects."""
        return self._of(tenant).is_dir()

    def _of(self, tenant: str) -> Path:
        known = self._homes.get(tenant)
        if known is None:
            known = self._homes[tenant] = self._folder / quoted(tenant)
        return known

    def _size(self, path: str) -> int:
        """The bytes of the files in a folder; what others remove meanwhile is not counted."""
        size = 0
        try:
            changed = os.stat(path).st_mtime_ns
            with self._lock:
                known = self._sizes.get(path)
            if known is not None and known[0] == changed:
                return known[1]
            with os.scandir(path) as found:
                for each in found:
                    with suppress(FileNotFoundError):
                        size += each.stat().st_size if each.is_file() else 0
        except FileNotFoundError:
            return 0
        with self._lock:
            self._sizes[path] = (changed, size)
        return size


def quoted(tenant: str) -> str:
    """A tenant as the name of a folder."""
    name = quote(tenant, safe="", errors="surrogatepass").replace(".", "%2E")
    return name if len(name) <= _LONGEST else "%~" + blake2b(name.encode(), digest_size=32).hexdigest()


class _LocalBatch:
    def __init__(self, home: Path, drafts: Path) -> None:
        self._home = home
        self._drafts = drafts
        self._put: dict[str, str] = {}
        self._lock = threading.Lock()
        self.written = 0

    def put(self, key: str, content: bytes) -> None:
        """See Batch."""
        with self._lock:
            if key in self._put:
                return
            draft = self._put[key] = f"{self._drafts}/{len(self._put)}"
            self.written += len(content)
        _write(draft, content)

    def commit(self, key: str, content: bytes) -> None:
        """See Batch."""
        last = f"{self._drafts}/last"
        _write(last, content)
        with opened(self._home) as fd:
            sync_whole(fd)
            for each, draft in self._put.items():
                self._name(draft, each)
            (self._home / key).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_whole(fd)
            self._name(last, key)
            sync_whole(fd)

    def _name(self, draft: str, key: str) -> None:
        path = f"{self._home}/{key}"
        try:
            os.rename(draft, path)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.rename(draft, path)


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    found = os.read(fd, size)
    while len(found) < size and (more := os.read(fd, size - len(found))):
        found += more
    return found


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _held(path: Path, how: int) -> AbstractContextManager[None]:
    """Hold a lock of the store. TransientError when others have held it for too long."""
    return locked(path, how, partial(await_turn, path, time.monotonic() + _PATIENCE))


def await_turn(path: Path, until: float) -> None:
    """Wait a moment for others to let go of the store; TransientError when it is later than `until` (monotonic s)."""
    if time.monotonic() > until:
        who = "a backup is being made or snapshots are being removed" if path.name == GUARD else "others use them"
        raise TransientError(
            f"the store of snapshots is in use: {path} stays locked, {who}; try again when that has ended",
            code="snapshots_busy",
        )
    time.sleep(_PAUSE)


def _draft_folder(drafts: Path) -> Path:
    """A new folder for drafts; those that killed processes left, which nobody holds, are removed."""
    drafts.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in drafts.iterdir():
        with opened(each) as fd:
            if try_lock(fd, fcntl.LOCK_EX):
                remove_tree(each)
    mine = drafts / os.urandom(8).hex()
    mine.mkdir(mode=0o700)
    return mine


def _folders(path: str, but: str) -> Iterator[str]:
    """A folder and those below it, but for one; nothing of one that is gone."""
    try:
        with os.scandir(path) as found:
            inner = [each.path for each in found if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    yield path
    for each in inner:
        if each != but:
            yield from _folders(each, but)
