"""What a person may name where a sandbox is worked with: a manifest, a snapshot, a pin, or a sandbox.

Owns how such a name is understood, and what is told of a sandbox besides its record. Runs nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from retinue.host import clock
from retinue.host.sandboxes import open_snapshots
from retinue.host.sandboxing import manifests_of
from retinue.host.settings import Settings
from retinue.runs.contracts import Frozen, Json
from retinue.runs.control import SandboxRecord, SnapshotPin
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.journal import Record
from retinue.runs.sandbox_past import TOPIC
from retinue.sandbox.snapshots.store import Snapshots
from retinue.store.store import Store

_SNAPSHOT = re.compile(r"s1-[0-9a-f]{64}")
_PIN = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_NEWEST = 50
"""Moves of a sandbox that are shown."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was named: the manifest to open under, and the snapshot, when it is not the manifest itself."""

    tenant: str
    manifest: str
    snapshot: str | None = None

    @property
    def kept(self) -> str:
        """The snapshot. InvalidInput for a manifest."""
        if self.snapshot is None:
            raise InvalidInput(
                f"{self.manifest!r} is a manifest, which no snapshot was taken of: `retinue sandbox snapshot "
                f"{self.manifest}` takes one"
            )
        return self.snapshot


class LostExec(Frozen):
    """A program that was in flight when its run's owner died: the step, what it was, when it began (Unix ns)."""

    key: str
    operation: str
    began_at: int
    at: int


class Move(Frozen):
    """A move of a sandbox: when (Unix ns), what, why, and the generation after it."""

    at: int
    event: str
    cause: str
    generation: int
    head_snapshot_id: str | None


class Shown(Frozen):
    """All that is known of a sandbox: its record, its newest moves, what was lost in it."""

    record: SandboxRecord
    kept: bool
    moves: tuple[Move, ...]
    lost_execs: tuple[LostExec, ...]


class Boxes:
    """What the store and the snapshots of a project know of sandboxes."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    @property
    def snapshots(self) -> Snapshots:
        """Those of the project."""
        return open_snapshots(self._settings, self._store)

    async def source(self, text: str, manifest: str | None = None, tenant: str | None = None) -> Source:
        """What a name stands for: a snapshot's id, a pin, a manifest, or a sandbox, which stands for its head.

        `manifest` is what is opened under instead of what is known. UnknownName for what is none of these, and for what
        is another tenant's; InvalidInput for a `manifest` that cannot be meant.
        """
        owner = tenant or self._settings.tenant
        if manifest is not None:
            check_manifest(manifest, self._settings)
        if _SNAPSHOT.fullmatch(text):
            return await self._snapshot(owner, text, manifest)
        pins = {pin.name: pin for pin in await self._store.sandbox_records.pins(owner)}
        if text in pins:
            return Source(owner, manifest or pins[text].manifest, pins[text].snapshot_id)
        if text in manifests_of(self._settings).names():
            if manifest not in (None, text):
                raise InvalidInput(f"--manifest {manifest!r}: {text!r} is a manifest itself: name one of both")
            return Source(owner, text)
        try:
            found = await self._store.sandbox_records.get(text)
        except UnknownName as error:
            raise UnknownName(
                f"{error}; nor is it a manifest, a pin (`--pins` lists them) or a snapshot (s1- and 64 hex digits)"
            ) from None
        if found.tenant_id != owner:
            raise UnknownName(
                f"sandbox {found.state.sandbox_id} is of tenant {found.tenant_id!r} and not of {owner!r}: say --tenant "
                f"{found.tenant_id}"
            )
        return _of(found, manifest)

    async def shown(self, sandbox_id: str) -> Shown:
        """All that is known of a sandbox. UnknownName."""
        record = await self._store.sandbox_records.get(sandbox_id)
        head = record.state.head_snapshot_id
        kept = head is not None and await self.snapshots.exists(head, record.tenant_id)
        moves: list[Move] = []
        lost: list[LostExec] = []
        async for frame in self._store.read(record.run_id):
            for entry in frame.entries:
                if isinstance(entry, Record) and entry.topic == TOPIC and entry.facts.get("place") == record.place:
                    _tell(entry, moves, lost)
        return Shown(record=record, kept=kept, moves=tuple(moves[-_NEWEST:]), lost_execs=tuple(lost))

    async def pin(self, name: str, source: Source) -> SnapshotPin | None:
        """Keep a snapshot under a name; the pin that it takes the place of, if another snapshot had that name.

        InvalidInput for what cannot be a name; SandboxLost when the snapshot is not there.
        """
        check_pin(name, self._settings)
        await self.snapshots.tree(source.kept, source.tenant)
        pin = SnapshotPin(
            tenant_id=source.tenant,
            name=name,
            snapshot_id=source.kept,
            manifest=source.manifest,
            at=clock.now_ns(),
            by=self._settings.principal,
        )
        before = {each.name: each for each in await self._store.sandbox_records.pins(source.tenant)}.get(name)
        await self._store.sandbox_records.pin(pin)
        return before if before is not None and before.snapshot_id != pin.snapshot_id else None

    async def _snapshot(self, tenant: str, snapshot_id: str, manifest: str | None) -> Source:
        if manifest is not None:
            return Source(tenant, manifest, snapshot_id)
        pinned = [pin for pin in await self._store.sandbox_records.pins(tenant) if pin.snapshot_id == snapshot_id]
        if pinned:
            return Source(tenant, pinned[0].manifest, snapshot_id)
        used = await self._store.sandbox_records.sandbox_with(tenant, snapshot_id)
        return Source(tenant, used.state.manifest if used is not None else "", snapshot_id)


def check_manifest(name: str, settings: Settings) -> None:
    """UnknownName for a `--manifest` that is none."""
    names = manifests_of(settings).names()
    if name not in names:
        raise UnknownName(f"--manifest {name!r}: there is no such manifest; there are: {', '.join(names) or 'none'}")


def replaced_text(pin: SnapshotPin) -> str:
    """What a name stood for before it was given to another snapshot."""
    return f"{pin.name} was {pin.snapshot_id}, pinned by {pin.by}"


def check_new(path: Path) -> None:
    """InvalidInput for a file or folder that cannot be made where it is named. Blocking."""
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInput(f"{path} cannot be made in {folder}: make that folder, or name another")


def check_pin(name: str, settings: Settings) -> None:
    """InvalidInput for what cannot be the name of a pin."""
    if not _PIN.fullmatch(name) or name in manifests_of(settings).names():
        raise InvalidInput(
            f"--pin {name!r}: a pin's name is lower-case letters, digits, `.`, `_` and `-`, a letter first, and no "
            "manifest's: name another"
        )


def _of(found: SandboxRecord, manifest: str | None) -> Source:
    state = found.state
    if state.head_snapshot_id is None:
        raise InvalidInput(
            f"sandbox {state.sandbox_id} ({state.name}, {state.status.value}) has no snapshot yet: its run takes one "
            "at a checkpoint, when it waits or ends, or when it asks for one"
        )
    return Source(found.tenant_id, manifest or state.manifest, state.head_snapshot_id)


def _tell(entry: Record, moves: list[Move], lost: list[LostExec]) -> None:
    facts: dict[str, Json] = entry.facts
    event, key = str(facts.get("event")), str(facts.get("key"))
    moves.append(
        Move(
            at=entry.at,
            event=event,
            cause=str(facts.get("cause", "")),
            generation=int(facts.get("generation", 0)),
            head_snapshot_id=facts.get("head_snapshot_id"),
        )
    )
    if event == "lost_exec":
        began = int(facts.get("began_at", 0))
        lost.append(LostExec(key=key, operation=str(facts.get("op", "")), began_at=began, at=entry.at))
