"""The room of sandboxes: from a manifest's name or a record to a live box, and back.

Owns which boxes live in this process. Implements `runs.sandboxes.Sandboxes`. Knows no run, no journal and no store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinue.runs.errors import RetinueError
from retinue.runs.sandboxes import (
    Box,
    ManifestInfo,
    SandboxLost,
    SandboxOrder,
    SandboxOwner,
    SandboxRefused,
    SandboxState,
    SandboxStatus,
)
from retinue.sandbox.backends import Backend, Report
from retinue.sandbox.boxes import Contents, Egress, Kept, Kit, LocalBox
from retinue.sandbox.living import Living, Workplace
from retinue.sandbox.manifests import Manifest, Manifests
from retinue.sandbox.profiles import Profile

CLOSE = 20.0
"""Seconds that letting go of all boxes may take."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the room is made of.

    `user` gives the user of a sandbox's folder, None where the host is not root. `choose` finds the backend that meets
    a profile here; SandboxRefused when none does. `make` fills a folder from a manifest; `environment` resolves what a
    manifest says of it, with an exec's own; `contents` is what workspaces of a tenant and a manifest hold.
    """

    node: str
    manifests: Callable[[], Manifests]
    living: Living
    user: Callable[[str, Path], int | None]
    contents: Callable[[str, Manifest], Contents]
    choose: Callable[[Profile], Awaitable[tuple[Backend, Report]]]
    make: Callable[[Manifest, Workplace, Kit], Awaitable[Kept]]
    environment: Callable[[Manifest, dict[str, str]], dict[str, str]]
    egress: Egress
    moment: Callable[[], int]
    programs: tuple[Path, ...] = ()


class Room:
    """The sandboxes of this process. Belongs to one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._boxes: dict[str, dict[str, LocalBox]] = {}

    def manifest(self, name: str) -> ManifestInfo:
        """See Sandboxes."""
        return self._parts.manifests().info(name)

    async def create(self, order: SandboxOrder, owner: SandboxOwner) -> Box:
        """See Sandboxes."""
        info = self.manifest(order.manifest)
        now = self._parts.moment()
        state = SandboxState(
            sandbox_id=order.sandbox_id,
            name=order.name,
            manifest=info.name,
            manifest_version=info.version,
            profile=info.profile,
            profile_digest=info.profile_digest,
            base_snapshot_id=order.snapshot_id,
            head_snapshot_id=order.snapshot_id,
            forked_from=order.forked_from,
            epoch=owner.epoch,
            opened_at=now,
        )
        return await self._make(state, owner)

    async def attach(self, state: SandboxState, owner: SandboxOwner) -> Box | None:
        """See Sandboxes."""
        known = self._boxes.get(owner.run_id, {}).get(state.sandbox_id)
        if known is not None:
            await self._forget(known, owner.run_id, remove=False)
        place = await asyncio.to_thread(self._parts.living.find, state.sandbox_id)
        if place is None:
            return None
        if not place.clean or place.state.generation != state.generation or place.state.epoch > owner.epoch:
            place.let_go()
            return None
        try:
            kit, _ = await self._kit(state, owner)
        except BaseException:
            place.let_go()
            raise
        place.finish(place.state.model_copy(update={"epoch": owner.epoch, "node": self._parts.node}))
        return self._live(LocalBox(place, kit), owner.run_id)

    async def restore(self, state: SandboxState, owner: SandboxOwner) -> Box:
        """See Sandboxes."""
        known = self._boxes.get(owner.run_id, {}).get(state.sandbox_id)
        if known is not None:
            await self._forget(known, owner.run_id, remove=True)
        info = self.manifest(state.manifest)
        if state.head_snapshot_id is None and info.version != state.manifest_version:
            raise SandboxLost(
                f"sandbox {state.sandbox_id} has no snapshot, and manifest {state.manifest!r} is {info.version} now; "
                f"its workspace was made from {state.manifest_version}: bring that version back, or begin anew"
            )
        if info.profile_digest != state.profile_digest:
            raise SandboxLost(
                f"sandbox {state.sandbox_id} was made under profile {state.profile!r} {state.profile_digest}, which is "
                f"{info.profile_digest} now: bring it back, or begin anew"
            )
        return await self._make(state, owner)

    async def release(self, run_id: str, ended: bool) -> None:
        """See Sandboxes. Raises nothing."""
        boxes = self._boxes.pop(run_id, {})
        with contextlib.suppress(TimeoutError, RetinueError):
            async with asyncio.timeout(CLOSE):
                for box in boxes.values():
                    await box.release(remove=ended)

    async def close(self) -> None:
        """See Sandboxes."""
        await asyncio.gather(*(self.release(run_id, ended=False) for run_id in tuple(self._boxes)))

    async def sweep(self, done: Callable[[list[str]], Awaitable[list[str]]]) -> int:
        """Remove the workspaces of sandboxes that are `done` with here, as it says of their ids; how many it were."""
        here = await asyncio.to_thread(lambda: list(self._parts.living.all()))
        removed = 0
        for sandbox_id in await done(here) if here else []:
            removed += await asyncio.to_thread(self._parts.living.remove, sandbox_id)
        return removed

    async def _make(self, state: SandboxState, owner: SandboxOwner) -> Box:
        """A box with a new workspace: what the head snapshot holds, or the manifest."""
        parts = self._parts
        kit, report = await self._kit(state, owner)
        found: dict[str, Any] = {
            "backend": kit.backend.name,
            "confinement": {demand: finding.assurance for demand, finding in report.findings.items()},
            "node": parts.node,
            "epoch": owner.epoch,
            "generation": state.head_generation,
            "status": SandboxStatus.open,
            "changed_at": parts.moment(),
        }
        place = await asyncio.to_thread(parts.living.make, state.model_copy(update=found), parts.user)
        try:
            if state.head_snapshot_id is None:
                kept = await parts.make(parts.manifests().get(state.manifest), place, kit)
            else:
                kept = await kit.contents.fill(place, state.head_snapshot_id)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(place.remove))
            raise
        contents = {"entries": kept.entries, "bytes": kept.bytes, "tier": kept.tier, "omitted": kept.omitted}
        place.finish(place.state.model_copy(update=contents))
        return self._live(LocalBox(place, kit), owner.run_id)

    async def _kit(self, state: SandboxState, owner: SandboxOwner) -> tuple[Kit, Report]:
        """What the boxes of a manifest work with here; refused when its profile cannot be met."""
        parts = self._parts
        manifests = parts.manifests()
        manifest, profile = manifests.get(state.manifest), manifests.profile(state.manifest)
        backend, report = await parts.choose(profile)
        kit = Kit(
            profile=profile,
            backend=backend,
            contents=parts.contents(owner.tenant_id, manifest),
            egress=parts.egress,
            environment=lambda own: parts.environment(manifest, own),
            moment=parts.moment,
            programs=parts.programs,
        )
        if state.confinement and (weaker := _weaker(state, report)):
            raise SandboxRefused(
                f"sandbox {state.sandbox_id} was confined better where it was made ({', '.join(weaker)}): "
                "bring it back on such a node",
                code="weaker",
            )
        return kit, report

    def _live(self, box: LocalBox, run_id: str) -> Box:
        self._boxes.setdefault(run_id, {})[box.state.sandbox_id] = box
        return box

    async def _forget(self, box: LocalBox, run_id: str, remove: bool) -> None:
        self._boxes[run_id].pop(box.state.sandbox_id, None)
        await box.release(remove)


_RANK = {"absent": 0, "limited": 1, "enforced": 2}


def _weaker(state: SandboxState, report: Report) -> list[str]:
    """The demands that this node holds less well than the one that made the sandbox."""
    here = {demand: finding.assurance for demand, finding in report.findings.items()}
    return [
        demand
        for demand, was in state.confinement.items()
        if _RANK[{str(name): value for name, value in here.items()}.get(demand, "absent")] < _RANK[was]
    ]
