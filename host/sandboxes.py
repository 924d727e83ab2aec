"""Sandboxes of a process, put together: the room over the project's settings, the node's folder and the tenants' keys.

Owns what only a host knows of them: the node, the data folder, the environment, the store. Knows no Ray and no run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retinue.host import clock
from retinue.host.sandboxing import Sandboxing, manifests_of, sandboxing_of
from retinue.host.settings import Settings
from retinue.sandbox.backends.choosing import Backends
from retinue.sandbox.bases import Bases
from retinue.sandbox.boxes import Contents
from retinue.sandbox.contents import SnapshotContents
from retinue.sandbox.living import Living
from retinue.sandbox.manifests.loading import Loaded, environment_of, secrets_of
from retinue.sandbox.masking import Mask
from retinue.sandbox.room import Parts, Room
from retinue.sandbox.scratch import sweep_temporary
from retinue.sandbox.snapshots.nearby import Nearby
from retinue.sandbox.snapshots.objects import LocalObjects, Objects
from retinue.sandbox.snapshots.packing import Cipher
from retinue.sandbox.snapshots.remote import RemoteObjects
from retinue.sandbox.snapshots.rules import Quota, Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.tiers import Tiers, sweep_trials
from retinue.sandbox.users import Users
from retinue.store.liveness import boot_id
from retinue.store.objects import split_url
from retinue.store.places import open_objects
from retinue.store.sealing import Vault
from retinue.store.store import Store

NEARBY = 4 * 1024**3
"""Bytes of a remote place's objects that a node keeps copies of."""
BASES = 8 * 1024**3
"""Bytes of snapshots that a node keeps as plain folders, to make workspaces from them fast."""


@dataclass(frozen=True, slots=True)
class TenantCipher:
    """The key of one tenant, for its snapshots."""

    vault: Vault
    tenant_id: str

    def seal(self, plain: bytes) -> bytes:
        """See packing.Cipher."""
        return self.vault.seal(self.tenant_id, plain)

    def open(self, sealed: bytes) -> bytes | None:
        """See packing.Cipher."""
        return self.vault.open(self.tenant_id, sealed)

    def address(self, plain: bytes) -> bytes:
        """See packing.Cipher."""
        return self.vault.address(self.tenant_id, plain)


@dataclass(frozen=True, slots=True)
class TenantCiphers:
    """The keys of all tenants of a store, for their snapshots."""

    vault: Vault

    def of(self, tenant: str, make: bool) -> Cipher | None:
        """See packing.Ciphers."""
        self.vault.prepare(tenant, make)
        return TenantCipher(self.vault, tenant) if self.vault.knows(tenant) else None


def open_sandboxes(settings: Settings, store: Store) -> Room:
    """The room of sandboxes of a process. Opens nothing before a run needs it. ConfigError."""
    node = sandboxing_of(settings)
    manifests = manifests_of(settings)
    tiers = Tiers(open_snapshots(settings, store), bases_of(settings))
    backends = Backends(None if node.users is None else node.users[1])
    return Room(
        Parts(
            node=this_node(),
            manifests=manifests,
            living=living_of(settings),
            choose=lambda profile: backends.choose(node.backend, profile),
            user=_users(node),
            environment=lambda manifest, own, inside: environment_of(manifest, os.environ, own, inside),
            contents=lambda tenant, loaded: contents_of(node, tiers, tenant, loaded),
            mask=lambda manifest: Mask(secrets_of(manifest, os.environ)),
            moment=clock.now_ns,
            let_go=backends.close,
        )
    )


def living_of(settings: Settings) -> Living:
    """The workspaces of this node."""
    return Living(settings.data_folder / "sandboxes" / "work", boot_id())


def bases_of(settings: Settings) -> Bases:
    """The snapshots that this node has as plain folders."""
    return Bases(settings.data_folder / "sandboxes" / "cache", boot_id(), BASES)


def sweep_left(settings: Settings) -> int:
    """Remove the temporary folders of sandboxes that killed processes have left, of this user or of one that it gives
    to sandboxes; how many they were. Blocking."""
    first, last = sandboxing_of(settings).users or (0, -1)
    trials = sweep_trials(settings.data_folder / "sandboxes" / "cache")
    return trials + sweep_temporary(lambda uid: uid == os.geteuid() or first <= uid <= last)


def this_node() -> str:
    """What records call this machine."""
    return socket.gethostname()


def open_snapshots(settings: Settings, store: Store) -> Snapshots:
    """The snapshots of a project's workspaces. ConfigError for a place that cannot be opened."""
    return Snapshots(_objects(settings), TenantCiphers(store.vault))


def local_snapshots(settings: Settings) -> Path:
    """Where snapshots are kept that have no place of their own."""
    return settings.data_folder / "sandboxes" / "snapshots"


def _objects(settings: Settings) -> Objects:
    """Where snapshots are kept: in a folder, which machines may share, or in a bucket with copies on this node."""
    folder, place = settings.data_folder / "sandboxes", sandboxing_of(settings).snapshots
    if place is None:
        return LocalObjects(local_snapshots(settings))
    root, path = split_url(place)
    if root.startswith("file://"):
        return LocalObjects(Path("/") / path)
    return RemoteObjects(open_objects(root), path, Nearby(folder / "objects", NEARBY))


def contents_of(node: Sandboxing, tiers: Tiers, tenant: str, loaded: Loaded) -> Contents:
    """What the workspaces of a tenant and a manifest hold, within the limits of both."""
    limits = loaded.profile.limits
    quota = Quota(bytes=limits.disk, files=limits.files, file_bytes=limits.file_bytes, store_bytes=node.snapshot_bytes)
    secrets = tuple(value.encode() for value in secrets_of(loaded.manifest, os.environ).values())
    rules = Rules(omit=loaded.manifest.exclude, secrets=secrets, quota=quota)
    return SnapshotContents(tiers.snapshots, tenant, rules, tiers)


def _users(node: Sandboxing) -> Callable[[str, Path], int | None]:
    """The users of sandboxes where the host is root; the last of the range is that of self-tests."""
    if node.users is None:
        return lambda sandbox_id, folder: None
    first, last = node.users
    return Users(first, last - 1).take
