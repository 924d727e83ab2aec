"""What the workspaces of one tenant and manifest hold: kept as snapshots, filled from them, emptied.

Owns which rules hold for what is kept, and whose files are made. Knows no operation that is going on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from retinue.sandbox.boxes import Kept
from retinue.sandbox.emptying import empty_place
from retinue.sandbox.living import Workplace
from retinue.sandbox.rules import Rules
from retinue.sandbox.snapshots import Snapshots
from retinue.sandbox.tiers import Tiers


@dataclass(frozen=True, slots=True)
class SnapshotContents:
    """Implements `boxes.Contents` over the snapshots of a tenant, and the ways in which this node makes workspaces."""

    snapshots: Snapshots
    tenant: str
    rules: Rules
    tiers: Tiers

    async def take(self, place: Workplace) -> Kept:
        """See Contents."""
        taken = await self.snapshots.take(place.tree, self.tenant, self.rules)
        return Kept(taken.snapshot_id, taken.entries, taken.bytes, taken.omitted)

    async def fill(self, place: Workplace, snapshot_id: str) -> Kept:
        """See Contents."""
        return await self.tiers.fill(place, self.tenant, snapshot_id, self.rules.quota)

    async def empty(self, place: Workplace) -> None:
        """See Contents."""
        await asyncio.to_thread(empty_place, place.folder)
