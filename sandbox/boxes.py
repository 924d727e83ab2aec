"""A live sandbox in this process: one operation at a time, each between a note that it began and a note that it ended.

Owns the order in which backend, workspace and snapshots are used, and the generation. An operation that does not
return leaves the box unusable: whoever needs the workspace has it brought back. Knows no run and no journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.sandboxes import (
    UNWATCHED,
    Exec,
    ExecResult,
    FileContent,
    FileEntry,
    SandboxRefused,
    SandboxState,
    SandboxStatus,
    Watch,
)
from retinue.sandbox.backends import roots
from retinue.sandbox.backends.port import Backend, Place, Surroundings
from retinue.sandbox.egress import forwarding
from retinue.sandbox.egress.proxy import way_out
from retinue.sandbox.living import Workplace
from retinue.sandbox.masking import Mask, Telling
from retinue.sandbox.profiles import Profile
from retinue.sandbox.threads import disk_told, in_thread
from retinue.sandbox.workspaces import LARGEST_WRITE, Workspace

PATIENCE = 900.0
"""Seconds that an operation waits for the one before it."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a snapshot of a workspace holds, as its record has it."""

    snapshot_id: str
    entries: int
    bytes: int
    omitted: tuple[str, ...] = ()
    tier: str = ""


class Contents(Protocol):
    """Where the snapshots of one tenant are, for one manifest's workspaces."""

    async def take(self, place: Workplace) -> Holdings:
        """Keep the workspace as it is; durable when it returns."""
        ...

    async def require(self, snapshot_id: str) -> None:
        """SandboxRefused (`no_snapshot`) for what is no snapshot that is kept."""
        ...

    async def fill(self, place: Workplace, snapshot_id: str) -> Holdings:
        """Make the folder `tree` of a place, which is not there, from a snapshot. SandboxLost."""
        ...

    async def empty(self, place: Workplace) -> None:
        """Remove the folder `tree` of a place."""
        ...


@dataclass(frozen=True, slots=True)
class Kit:
    """What a box works with. `environment` gives the variables of an exec, secrets resolved, from its own and where
    programs see the workspace; PermanentError for one that is not set. `moment` is the time (Unix ns), `mask` takes
    secrets out of what comes out.
    """

    profile: Profile
    backend: Backend
    contents: Contents
    environment: Callable[[dict[str, str], str], dict[str, str]]
    moment: Callable[[], int]
    mask: Mask


def environment_in(place: Workplace, kit: Kit, order: Exec) -> dict[str, str]:
    """All variables of an exec in a workspace. PermanentError for a secret that is not set."""
    return kit.environment(order.env, kit.backend.inside(Place(place.tree, place.uid)))


async def run_in(place: Workplace, kit: Kit, order: Exec, watch: Watch, environment: Mapping[str, str]) -> ExecResult:
    """Run a program in a workspace under its profile, with this environment."""
    at = Place(place.tree, place.uid)
    async with way_out(kit.profile, watch.allow, place.uid) as proxy:
        if proxy is not None:
            environment = {**environment, **forwarding.VARIABLES}
            order = order.model_copy(update={"argv": forwarding.wrapped(order.argv, roots.PROXY)})
        telling = Telling(kit.mask, watch.output)
        done = await kit.backend.exec(at, kit.profile, order, Surroundings(environment, proxy, telling))
        telling.end()
        return kit.mask.result(done)


class LocalBox:
    """Implements `runs.sandboxes.Box` for a workspace on this node."""

    def __init__(self, place: Workplace, kit: Kit) -> None:
        self._place = place
        self._kit = kit
        self._turn = asyncio.Lock()
        self._broken = ""
        self._over = False

    @property
    def state(self) -> SandboxState:
        """As of the newest operation."""
        return self._place.state

    async def exec(self, order: Exec, watch: Watch = UNWATCHED) -> ExecResult:
        """See Box."""
        environment = environment_in(self._place, self._kit, order)
        async with self._changing(f"exec {order.argv[0]}"):
            return await run_in(self._place, self._kit, order, watch, environment)

    async def read(self, path: str, offset: int = 0, limit: int = 256 * 1024) -> FileContent:
        """See Box."""
        async with self._alone():
            return self._kit.mask.content(await asyncio.to_thread(self._workspace.read, path, offset, limit))

    async def write(self, path: str, data: bytes, executable: bool = False) -> FileEntry:
        """See Box."""
        async with self._changing(f"write {path}"):
            return await in_thread(lambda _: self._workspace.write(path, data, executable))

    async def edit(self, path: str, old: str, new: str, count: int = 1) -> FileEntry:
        """See Box."""
        async with self._changing(f"edit {path}"):
            return await in_thread(lambda _: self._workspace.edit(path, old, new, count))

    async def list(self, path: str = ".", depth: int = 1, limit: int = 1_000) -> tuple[FileEntry, ...]:
        """See Box."""
        async with self._alone():
            return await asyncio.to_thread(self._workspace.list, path, depth, limit)

    async def snapshot(self) -> SandboxState:
        """See Box."""
        async with self._alone():
            return self._keep(await self._kit.contents.take(self._place), self.state.generation)

    async def adopt(self, snapshot_id: str) -> SandboxState:
        """See Box."""
        async with self._alone():
            await self._kit.contents.require(snapshot_id)
            self._place.begin(f"adopt {snapshot_id}")
            self._broken = "adopt"
            await self._kit.contents.empty(self._place)
            kept = await self._kit.contents.fill(self._place, snapshot_id)
            state = self._keep(kept, self.state.generation + 1)
            self._broken = ""
            return state

    async def close(self) -> None:
        """See Box. Waits for an operation that is going on."""
        async with self._waited():
            await self._let_go(remove=True)

    async def release(self, remove: bool) -> None:
        """This process has done with it: let go of the workspace, or remove it."""
        async with self._waited():
            await self._let_go(remove)

    @property
    def _workspace(self) -> Workspace:
        tree, uid, kit = self._place.tree, self._place.uid, self._kit
        largest = min(LARGEST_WRITE, kit.profile.limits.file_bytes or LARGEST_WRITE)
        return Workspace(tree, uid, largest, seen_as=kit.backend.inside(Place(tree, uid)))

    async def _let_go(self, remove: bool) -> None:
        if self._over:
            return
        self._over = True
        if remove:
            await asyncio.to_thread(self._place.remove)
        else:
            self._place.let_go()

    def _keep(self, kept: Holdings, generation: int) -> SandboxState:
        """The state after a snapshot was taken of, or made, this generation."""
        changes: dict[str, Any] = {
            "head_snapshot_id": kept.snapshot_id,
            "head_generation": generation,
            "generation": generation,
            "entries": kept.entries,
            "bytes": kept.bytes,
            "omitted": kept.omitted,
            "changed_at": self._kit.moment(),
        }
        if kept.tier:
            changes["tier"] = kept.tier
        self._place.finish(self.state.model_copy(update=changes))
        return self.state

    @asynccontextmanager
    async def _changing(self, operation: str) -> AsyncIterator[None]:
        """An operation that makes the next generation, or changes nothing and is refused."""
        async with self._alone():
            self._place.begin(operation)
            self._broken = operation
            try:
                yield
            except SandboxRefused:
                self._place.finish(self.state)
                self._broken = ""
                raise
            changes = {"generation": self.state.generation + 1, "changed_at": self._kit.moment()}
            self._place.finish(self.state.model_copy(update=changes))
            self._broken = ""

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._waited():
            if self._over or self.state.status is not SandboxStatus.open:
                raise PermanentError(f"sandbox {self.state.sandbox_id} is closed: open another", code="closed")
            if self._broken:
                raise PermanentError(
                    f"sandbox {self.state.sandbox_id}: {self._broken} was cut off in its workspace, which has to be "
                    "brought back from its snapshot",
                    code="unclean",
                )
            yield

    @asynccontextmanager
    async def _waited(self) -> AsyncIterator[None]:
        """The box to oneself."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            raise TransientError(
                f"sandbox {self.state.sandbox_id} was busy for {PATIENCE:g} s: give its commands a shorter timeout",
                code="busy",
            ) from None
        try:
            with disk_told(f"the workspace of sandbox {self.state.sandbox_id}"):
                yield
        finally:
            self._turn.release()
