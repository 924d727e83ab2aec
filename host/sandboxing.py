"""What a project's settings say of sandboxes, as those who make them need it: manifests, profiles, place and limits.

Owns which folders are private to Retinue. Makes no sandbox: that is composed elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from retinue.host.settings import Settings
from retinue.runs.errors import ConfigError
from retinue.sandbox.backends.choosing import Backends
from retinue.sandbox.backends.port import Backend, Report
from retinue.sandbox.extending import profiles_of, size_of
from retinue.sandbox.manifests.loading import Manifests, load_manifests
from retinue.sandbox.profiles import Profile
from retinue.sandbox.users import parse_range
from retinue.store.objects import resolve


@dataclass(frozen=True, slots=True)
class Sandboxing:
    """How sandboxes are made on a node. `users` is the first and last user that they are given, None where the host is
    not root. `snapshots` is a place, references resolved; None: the data folder. Bytes and seconds.
    """

    backend: str
    users: tuple[int, int] | None
    snapshots: str | None
    snapshot_bytes: int
    keep_seconds: float


def sandboxing_of(settings: Settings) -> Sandboxing:
    """ConfigError for a range of users or a place that cannot be."""
    users = parse_range(settings.sandbox.uids)
    place = settings.sandbox.snapshots
    return Sandboxing(
        backend=settings.sandbox.backend,
        users=users if os.geteuid() == 0 else None,
        snapshots=None if place is None else resolve(place, "sandbox.snapshots"),
        snapshot_bytes=cast(int, size_of(settings.sandbox.snapshot_limit)),
        keep_seconds=settings.sandbox.keep,
    )


def manifests_of(settings: Settings) -> Manifests:
    """The manifests of a project, with its profiles. ConfigError for a profile that cannot be."""
    try:
        profiles = profiles_of(settings.sandbox.profiles)
    except ValueError as error:
        raise ConfigError(f"sandbox.profiles.{error}") from None
    return load_manifests(settings.sandbox_folder, profiles, settings.folder, private_folders(settings))


def private_folders(settings: Settings) -> tuple[Path, ...]:
    """What no manifest takes in and no sandbox is shown: the data folder, and places of blobs and snapshots."""
    places = (settings.blobs, settings.traces.archive, settings.sandbox.snapshots)
    local = [Path(urlsplit(place).path) for place in places if place is not None and place.startswith("file://")]
    return (settings.data_folder, *local)


async def enforcement(settings: Settings, profile: Profile) -> tuple[Backend, Report]:
    """The backend that a profile gets on this node, and what it showed by real attempts. SandboxRefused when there is
    none, naming what is missing and what mends it."""
    node = sandboxing_of(settings)
    backends = Backends(node.users[1] if node.users is not None else None)
    try:
        return await backends.choose(node.backend, profile)
    finally:
        backends.close()
