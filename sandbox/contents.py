"""What the workspaces of one tenant and manifest hold: kept as snapshots, filled from them, emptied.

Owns which rules hold for what is kept, and whose files are made. Knows no operation that is going on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.boxes import Holdings
from retinue.sandbox.emptying import empty_place
from retinue.sandbox.living import Workplace
from retinue.sandbox.names import text_of
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.shelves import missing
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.threads import in_thread
from retinue.sandbox.tiers import Tiers

_NAMED, _LONGEST = 100, 200
"""So many names of what a snapshot leaves out are in the record of its sandbox, with so many characters: a record is
written with every move."""


@dataclass(frozen=True, slots=True)
class SnapshotContents:
    """Implements `boxes.Contents` over the snapshots of a tenant, and the ways in which this node makes workspaces."""

    snapshots: Snapshots
    tenant: str
    rules: Rules
    tiers: Tiers

    async def take(self, place: Workplace) -> Holdings:
        """See Contents."""
        taken = await self.snapshots.take(place.tree, self.tenant, self.rules)
        return Holdings(taken.snapshot_id, taken.entries, taken.bytes, _shown(taken.omitted))

    async def require(self, snapshot_id: str) -> None:
        """See Contents."""
        try:
            found = await self.snapshots.exists(snapshot_id, self.tenant)
        except InvalidInput as error:
            raise SandboxRefused(str(error), code="no_snapshot") from None
        if not found:
            raise SandboxRefused(str(missing(snapshot_id, erased=False)), code="no_snapshot")

    async def fill(self, place: Workplace, snapshot_id: str) -> Holdings:
        """See Contents."""
        kept = await self.tiers.fill(place, self.tenant, snapshot_id, self.rules.quota)
        return replace(kept, omitted=_shown(kept.omitted))

    async def empty(self, place: Workplace) -> None:
        """See Contents."""
        await in_thread(lambda _: empty_place(place.folder))


def _shown(omitted: tuple[str, ...]) -> tuple[str, ...]:
    """Names as a record can hold them: of any file, in any encoding, the first of them, the middle of long ones cut."""
    names = [text_of(os.fsencode(path)) for path in omitted[:_NAMED]]
    cut = [name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}" for name in names]
    return (*cut, "and more") if len(omitted) > _NAMED else tuple(cut)
