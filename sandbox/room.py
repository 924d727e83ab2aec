"""The room of sandboxes: from a manifest's name or a record to a live box, and back.

Owns which boxes live in this process, and in what order a workspace is made. Implements `runs.sandboxes.Sandboxes`.
Knows no run, no journal and no store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retinue.runs.errors import InvalidInput, RetinueError
from retinue.runs.sandboxes import (
    UNWATCHED,
    Box,
    Exec,
    ExecResult,
    ManifestInfo,
    SandboxLost,
    SandboxOrder,
    SandboxOwner,
    SandboxRefused,
    SandboxState,
    SandboxStatus,
)
from retinue.sandbox.backends.port import Backend, Report
from retinue.sandbox.boxes import Contents, Holdings, Kit, LocalBox, environment_in, run_in
from retinue.sandbox.living import Living, Workplace
from retinue.sandbox.manifests.loading import Loaded, Manifests
from retinue.sandbox.manifests.manifest import Manifest
from retinue.sandbox.manifests.materializing import materialize
from retinue.sandbox.masking import Mask
from retinue.sandbox.profiles import Profile
from retinue.sandbox.threads import disk_told

_LOG = logging.getLogger("retinue.sandbox")
P = TypeVar("P", bound=Workplace | None)

CLOSE = 20.0
"""Seconds that letting go of a run's boxes may take."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the room is made of.

    `choose` finds the backend that meets a profile here; SandboxRefused when none does. `user` gives the user of a
    sandbox's folder, None where the host is not root. `environment` is that of an exec: manifest, its own, where its
    workspace is inside. `contents` is what workspaces of a tenant and manifest hold. `let_go` ends what is shared.
    """

    node: str
    manifests: Manifests
    living: Living
    choose: Callable[[Profile], Awaitable[tuple[Backend, Report]]]
    user: Callable[[str, Path], int | None]
    environment: Callable[[Manifest, dict[str, str], str], dict[str, str]]
    mask: Callable[[Manifest], Mask]
    contents: Callable[[str, Loaded], Contents]
    moment: Callable[[], int]
    let_go: Callable[[], None]


class Room:
    """The sandboxes of this process. Belongs to one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._boxes: dict[str, dict[str, LocalBox]] = {}

    def manifest(self, name: str) -> ManifestInfo:
        """See Sandboxes."""
        return self._parts.manifests.loaded(name).info

    async def create(self, order: SandboxOrder, owner: SandboxOwner) -> Box:
        """See Sandboxes."""
        info = await self._decided(order.manifest)
        if order.snapshot_id is not None:
            loaded = self._parts.manifests.loaded(order.manifest)
            await self._parts.contents(owner.tenant_id, loaded).require(order.snapshot_id)
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
        place = await _taken(self._parts.living.find, state.sandbox_id)
        if place is None:
            return None
        here = place.state
        fits = here.generation == state.generation and state.epoch <= here.epoch <= owner.epoch
        if not (place.clean and fits):  # an older epoch's: what another node has done since has this number too
            place.let_go()
            return None
        try:
            kit, _ = await self._kit(state, owner)
            with disk_told(f"the workspace of sandbox {state.sandbox_id}"):
                place.finish(place.state.model_copy(update={"epoch": owner.epoch, "node": self._parts.node}))
        except BaseException:
            place.let_go()
            raise
        return self._live(LocalBox(place, kit), owner.run_id)

    async def restore(self, state: SandboxState, owner: SandboxOwner) -> Box:
        """See Sandboxes."""
        known = self._boxes.get(owner.run_id, {}).get(state.sandbox_id)
        if known is not None:
            await self._forget(known, owner.run_id, remove=True)
        info = await self._decided(state.manifest)
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
        await asyncio.gather(*(_let_go(box, ended) for box in boxes.values()))

    async def close(self) -> None:
        """See Sandboxes."""
        await asyncio.gather(*(self.release(run_id, ended=False) for run_id in tuple(self._boxes)))
        self._parts.let_go()

    async def sweep(self, done: Callable[[list[str]], Awaitable[list[str]]]) -> int:
        """Remove the workspaces of sandboxes that are `done` with here, as it says of their ids; how many it were. What
        killed processes have left mounted of others is unmounted."""
        here = await asyncio.to_thread(lambda: list(self._parts.living.all()))
        removed = 0
        for sandbox_id in await done(here) if here else []:
            removed += await asyncio.to_thread(self._parts.living.remove, sandbox_id)
        await asyncio.to_thread(self._parts.living.rest_left)
        return removed

    async def _decided(self, name: str) -> ManifestInfo:
        """A manifest as it is now with all that it takes in; SandboxRefused for one that cannot be used so."""
        with _refusing():
            return (await asyncio.to_thread(self._parts.manifests.refreshed, name)).info

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
        place = await _taken(parts.living.make, state.model_copy(update=found), parts.user)
        try:
            with disk_told(f"the workspace of sandbox {state.sandbox_id}"):
                if state.head_snapshot_id is None:
                    kept = await self._materialize(state, place, kit)
                else:
                    kept = await kit.contents.fill(place, state.head_snapshot_id)
                made = {"entries": kept.entries, "bytes": kept.bytes, "tier": kept.tier, "omitted": kept.omitted}
                place.finish(place.state.model_copy(update=made))
        except BaseException:
            with contextlib.suppress(OSError):  # it is nobody's then, and goes with those that are done with
                await asyncio.shield(asyncio.to_thread(place.remove))
            raise
        return self._live(LocalBox(place, kit), owner.run_id)

    async def _materialize(self, state: SandboxState, place: Workplace, kit: Kit) -> Holdings:
        """Fill a workspace from its manifest, in the version that its state names."""

        async def run(order: Exec) -> ExecResult:
            return await run_in(place, kit, order, UNWATCHED, environment_in(place, kit, order))

        manifests, version = self._parts.manifests, state.manifest_version
        with _refusing():
            made = await materialize(manifests, state.manifest, place.tree, run, place.uid, version)
        return Holdings("", made.entries, made.bytes)

    async def _kit(self, state: SandboxState, owner: SandboxOwner) -> tuple[Kit, Report]:
        """What the boxes of a manifest work with here; refused when its profile cannot be met."""
        parts = self._parts
        with _refusing():
            loaded = await asyncio.to_thread(parts.manifests.loaded, state.manifest)
        backend, report = await parts.choose(loaded.profile)
        kit = Kit(
            profile=loaded.profile,
            backend=backend,
            contents=parts.contents(owner.tenant_id, loaded),
            environment=partial(parts.environment, loaded.manifest),
            mask=parts.mask(loaded.manifest),
            moment=parts.moment,
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


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What a manifest cannot be used for is a refusal of the sandbox."""
    try:
        yield
    except InvalidInput as error:
        raise SandboxRefused(str(error), code="manifest") from None


async def _taken(take: Callable[..., P], *arguments: Any) -> P:
    """A workspace that a thread takes; let go of when nobody waits for it any more: it would be held for good."""
    task = asyncio.ensure_future(asyncio.to_thread(take, *arguments))
    try:
        with disk_told("a workspace of this node"):
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_unwanted)
        raise


def _unwanted(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is None and task.result() is not None:
        task.result().let_go()


async def _let_go(box: LocalBox, remove: bool) -> None:
    """Release a box, within the bound; one that cannot be keeps no other from it."""
    try:
        async with asyncio.timeout(CLOSE):
            await box.release(remove)
    except (TimeoutError, RetinueError, OSError) as error:
        _LOG.warning("sandbox %s is not let go of: %s", box.state.sandbox_id, error or "it was busy for too long")


_RANK = {"absent": 0, "limited": 1, "enforced": 2}


def _weaker(state: SandboxState, report: Report) -> list[str]:
    """The demands that this node holds less well than the one that made the sandbox."""
    here = {str(demand): _RANK[finding.assurance] for demand, finding in report.findings.items()}
    return [demand for demand, was in state.confinement.items() if here.get(demand, 0) < _RANK[was]]
