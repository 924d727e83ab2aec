"""What `retinue doctor` says of the manifests of sandboxes: whether each can be used, and who has reviewed it.

Makes no workspace. Knows no other check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from retinue.host.sandboxing import manifests_of
from retinue.host.settings import Settings
from retinue.ingress.checks import Check
from retinue.runs.errors import ConfigError, RetinueError
from retinue.sandbox.manifests.loading import Loaded, Manifests
from retinue.sandbox.manifests.pins import FILE, read_lock


def check_manifests(settings: Settings) -> Iterator[Check]:
    """A row for each manifest that there is or that is pinned."""
    try:
        manifests, lock = manifests_of(settings), read_lock(settings.folder)
    except ConfigError as error:
        yield Check(name="manifests", ok=False, said=str(error))
        return
    names = manifests.names()
    yield from (_standing(manifests, name) for name in names)
    for name in sorted(lock.manifests.keys() - set(names)):
        said = f"warning: pinned in {FILE} and there no longer: `retinue sandbox pin {name}` takes it out"
        yield Check(name=f"manifest {name}", ok=True, said=said)


def _standing(manifests: Manifests, name: str) -> Check:
    try:
        loaded = manifests.loaded(name)
    except RetinueError as error:
        return Check(name=f"manifest {name}", ok=False, said=str(error))
    missing = [secret for secret in loaded.manifest.secrets if not os.environ.get(secret)]
    if missing:
        said = f"needs {', '.join(missing)}, which the environment does not have: set them for the runtime too"
        return Check(name=f"manifest {name}", ok=False, said=said)
    return Check(name=f"manifest {name}", ok=True, said=_told(loaded))


def _told(loaded: Loaded) -> str:
    info = loaded.info
    review = f"pinned by {info.reviewed_by}" if info.reviewed_by else "reviewed by nobody"
    hold = f"profile {info.profile}" if info.confined else f"profile {info.profile}, NOT CONFINED"
    return f"{info.version}, {hold}, {review}"
