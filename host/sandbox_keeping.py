"""What a host does for sandboxes beside running them: workspaces that are done with go, and snapshots nobody uses.

Owns when that is, and which tenants' snapshots are looked at. A round is bounded in what it holds and works off the
loop; what fails is tried again in the next. Knows no run in progress: the store says what is needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from retinue.host import clock
from retinue.host.sandboxes import bases_of, open_snapshots, sweep_left, this_node
from retinue.host.sandboxing import sandboxing_of
from retinue.host.settings import Settings
from retinue.runs.errors import RetinueError
from retinue.runs.sandboxes import Sandboxes
from retinue.sandbox.bases import Bases
from retinue.sandbox.room import Room
from retinue.sandbox.snapshots.collecting import Collected, collect
from retinue.sandbox.snapshots.store import Snapshots
from retinue.store.store import Store

_LOG = logging.getLogger("retinue.host")
FIRST = 5.0
"""Seconds after which a process looks for the first time: it may not live for a minute, and none before it did."""
SWEEP = 60.0
"""Seconds between two looks at the workspaces of this node."""
COLLECT = 3_600.0
"""Seconds between two collections of snapshots on this node, whichever of its processes does it."""
UNKNOWN = 600.0
"""Seconds after which a workspace goes that nobody has and that no record ever told of: its run's owner died early."""
UNRECORDED = 60.0
"""Seconds within which a snapshot that was taken comes into its run's record: so long it stays, whatever is said."""
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Keeping:
    """How snapshots of a project's tenants are collected: runs that ended before `since` (Unix ns) keep none, and what
    was taken or restored after `taken_before` stays in any case. `dry`: only say what would go.
    """

    store: Store
    snapshots: Snapshots
    since: int
    taken_before: int
    dry: bool = False


def keeping_of(settings: Settings, store: Store, keep: float | None = None, dry: bool = False) -> Keeping:
    """With the time of grace (s) of the configuration, or another one."""
    seconds = sandboxing_of(settings).keep_seconds if keep is None else keep
    now = clock.now_ns()
    since, before = now - int(seconds * _SECOND), now - int(max(seconds, UNRECORDED) * _SECOND)
    return Keeping(store, open_snapshots(settings, store), since, before, dry)


async def collect_snapshots(keeping: Keeping, tenant: str | None = None) -> dict[str, Collected]:
    """Collect the snapshots of a tenant or of all, by name; of one whose key was destroyed all go.

    What is only used by runs that ended before is forgotten first. SandboxLost, TransientError, StoreError.
    """
    if not keeping.dry:
        await keeping.store.sandbox_records.forget_uses(keeping.since)
    tenants = await asyncio.to_thread(tenants_of, keeping) if tenant is None else [tenant]
    return {name: await _collect(keeping, name) for name in tenants}


def tenants_of(keeping: Keeping) -> list[str]:
    """The tenants of whom anything is kept, by name: each has a key, or had one. Blocking."""
    return sorted(filter(keeping.snapshots.objects.exists, keeping.store.vault.tenants()))


async def _collect(keeping: Keeping, tenant: str) -> Collected:
    store, snapshots = keeping.store, keeping.snapshots
    if await asyncio.to_thread(store.vault.erased, tenant):
        held = await asyncio.to_thread(snapshots.objects.usage, tenant)
        if held and not keeping.dry:
            await snapshots.erase(tenant)
        return Collected(bytes=held)
    used = await store.sandbox_records.in_use(tenant, keeping.since)
    return await collect(snapshots, tenant, used, keeping.taken_before, keeping.dry)


async def drop_lost_bases(settings: Settings, store: Store) -> int:
    """Remove the plain copies on this node of snapshots that are kept no more, as those of a tenant that was erased on
    another node; how many they were. StoreError when the place of snapshots does not answer."""
    return await asyncio.to_thread(_drop_lost, bases_of(settings), settings, store)


def _drop_lost(bases: Bases, settings: Settings, store: Store) -> int:
    here = {tenant: kept for tenant in store.vault.tenants() if (kept := bases.kept(tenant))}
    if not here:
        return 0
    snapshots = open_snapshots(settings, store)
    lost = {tenant: set(kept) - snapshots.among(kept, tenant) for tenant, kept in here.items()}
    return sum(bases.drop(tenant, each) for tenant, gone in lost.items() for each in gone)


@dataclass(slots=True)
class Sweeping:
    """Which workspaces of a node are done with: what the store says, and what it has not known for a while."""

    store: Store
    node: str
    patience: float = UNKNOWN
    _since: dict[str, float] = field(default_factory=dict)

    async def done(self, sandbox_ids: list[str]) -> list[str]:
        """Of these, those that are done with."""
        done, unknown = await self.store.sandbox_records.done_with(sandbox_ids, self.node)
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in unknown}
        return sorted(done | {name for name, since in self._since.items() if now - since >= self.patience})


class SandboxDuty:
    """The duty of a host. Nothing is done where there are no sandboxes."""

    def __init__(self, settings: Settings, store: Store, room: Sandboxes | None) -> None:
        self._settings = settings
        self._store = store
        self._room = room if isinstance(room, Room) else None
        self._sweeping = Sweeping(store, this_node())
        self._mark = settings.data_folder / "sandboxes" / "collected"

    async def tend_for_ever(self) -> None:
        """A round now and then, for ever."""
        pause = FIRST
        while self._room is not None:
            await asyncio.sleep(pause)
            await self.round()
            pause = SWEEP

    async def round(self) -> None:
        """Sweep; collect when nobody on this node has done so for a while. Logs what fails."""
        try:
            if self._room is not None:
                await self._room.sweep(self._sweeping.done)
                await drop_lost_bases(self._settings, self._store)
                await asyncio.to_thread(sweep_left, self._settings)
            if await asyncio.to_thread(_is_due, self._mark):
                await self._collect()
        except (RetinueError, OSError) as error:
            _LOG.warning("sandboxes could not be tidied up, which is tried again: %s", error)

    async def _collect(self) -> None:
        keeping = keeping_of(self._settings, self._store)
        for tenant in await asyncio.to_thread(tenants_of, keeping):
            try:
                found = await collect_snapshots(keeping, tenant)
            except RetinueError as error:
                _LOG.warning("snapshots of tenant %r could not be collected: %s", tenant, error)
                continue
            if found[tenant].bytes:
                gone = found[tenant]
                _LOG.info("snapshots of tenant %r: %d went, %d bytes", tenant, len(gone.snapshots), gone.bytes)


def _is_due(mark: Path) -> bool:
    """Whether it is time, and then from now on not for a while: of many processes one is told so."""
    if not mark.parent.is_dir():
        return False
    with suppress(FileNotFoundError):
        if clock.now_ns() / _SECOND - mark.stat().st_mtime < COLLECT:
            return False
        mark.unlink()
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
