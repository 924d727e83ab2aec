"""A run's sandboxes in its owner's hands: which are live here, and how one is brought to where the journal has it.

One call at a time works in a sandbox, and the next begins when the outcome of the one before is in the journal's
buffer: so a record of a workspace never speaks of what no outcome tells yet. Every move is on record with the whole
state. Nothing is touched before a call needs it. Knows no backend, and not how a call is made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from retinue.runs.contracts import Json, RunRequest
from retinue.runs.errors import EffectError, InvalidInput, PermanentError, TransientError
from retinue.runs.identity import is_sandbox_of, sandbox_id
from retinue.runs.journal import Record
from retinue.runs.ports import Services
from retinue.runs.sandbox_past import RUN_ENDED, TOPIC, Operation, SandboxPast
from retinue.runs.sandboxes import (
    Box,
    ManifestInfo,
    Opening,
    Sandboxes,
    SandboxLost,
    SandboxOrder,
    SandboxOwner,
    SandboxRow,
    SandboxState,
    SandboxStatus,
)

BRING = 1_800.0
"""Seconds that making, bringing back or keeping a workspace may take."""
_LAST = 120.0
"""Seconds that the snapshot at the end of a run may take."""
_DROP = 30.0
"""Seconds that removing a workspace which is of no use may take."""

T = TypeVar("T")
Remake = Callable[[Operation, Box], Awaitable[None]]
"""Makes a call of old again, in a sandbox. Raises EffectError when it must not be or fails."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What the sandboxes need of the execution they belong to; `keep` sends a row with the next append."""

    request: RunRequest
    epoch: int
    services: Services
    past: SandboxPast
    note: Callable[[Record], None]
    keep: Callable[[SandboxRow], None]


class LiveSandboxes:
    """The sandboxes of one execution. Costs nothing until a call needs one; `used` says whether the run has any, or
    had. `ended`: it has none any more."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._past = ways.past
        self._boxes: dict[str, Box] = {}
        self._infos: dict[str, ManifestInfo] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._held: dict[str, asyncio.Lock] = {}
        self._after: dict[str, tuple[str, SandboxState, str, str]] = {}
        request = ways.request
        self._owner = SandboxOwner(request.tenant_id, request.run_id, request.root_run_id, request.trace_id, ways.epoch)
        self.used = bool(self._past.states)
        self.ended = False

    @property
    def to_keep(self) -> bool:
        """Whether an open sandbox holds more than its head."""
        return any(_wants_head(state) for state in self._past.states.values())

    # -- whose turn it is --------------------------------------------------------------------------------------

    async def enter(self, place: str, key: str) -> None:
        """Wait until the calls in a sandbox that came before are on record; each of them is bounded."""
        turn = self._turns.setdefault(place, asyncio.Lock())
        await turn.acquire()
        self._held[key] = turn

    def leave(self, *keys: str) -> None:
        """What these steps came to is on record, or they wait."""
        for key in keys:
            after, turn = self._after.pop(key, None), self._held.pop(key, None)
            if after is not None:
                place, state, event, cause = after
                self._note(place, state, event, cause, key)
            if turn is not None:
                turn.release()

    # -- what calls do -----------------------------------------------------------------------------------------

    def named(self, name: str) -> str | None:
        """The open sandbox of a name, by the id that steps know it by."""
        return self._past.named(name)

    def state(self, place: str) -> SandboxState:
        """How a sandbox stands. PermanentError `no_sandbox` or `closed`."""
        state = self._past.states.get(place)
        if state is None:
            known = ", ".join(f"{one.name} ({place})" for place, one in self._past.open().items()) or "none is open"
            raise PermanentError(
                f"this run has no sandbox {place!r}: {known}; ctx.sandbox opens one", code="no_sandbox"
            )
        if state.status is SandboxStatus.closed:
            raise PermanentError(f"sandbox {state.name} ({place}) is closed: open another", code="closed")
        return state

    def manifest(self, name: str) -> ManifestInfo:
        """What a manifest's name stands for here. PermanentError `manifest`, `no_sandboxes` when this host has none."""
        known = self._infos.get(name)
        if known is not None:
            return known
        try:
            return self._port().manifest(name)
        except InvalidInput as error:
            raise PermanentError(str(error), code="manifest") from None

    async def learn(self, name: str) -> None:
        """Look a manifest up aside from the event loop, once: its version is a digest of all that it takes in."""
        if name not in self._infos and self._ways.services.sandboxes is not None:
            with suppress(InvalidInput):  # told when it is asked for
                self._infos[name] = await asyncio.to_thread(self._ways.services.sandboxes.manifest, name)

    async def open(self, opening: Opening, key: str) -> str:
        """A new sandbox for a step, or the open one of that name; the id that steps know it by."""
        self.used = True
        known = None if opening.name is None else self._past.named(opening.name)
        if known is not None:
            self._must_fit(self._past.states[known], opening)
            return known
        place = sandbox_id(self._ways.request.run_id, key)
        name = opening.name or f"{opening.manifest}-{place[-6:]}"
        order = SandboxOrder(place, name, opening.manifest, opening.snapshot, opening.forked_from)
        box = await _bounded(self._port().create(order, self._owner), f"sandbox {name} to be made")
        self._boxes[place] = box
        self._note(place, box.state, "opened", f"opened from {opening.snapshot or opening.manifest}", key)
        return place

    async def bring(self, place: str, remake: Remake, key: str | None) -> Box:
        """The sandbox in the generation that the journal has: as it is here, or made again from its head.

        Raises SandboxLost when it cannot be, SandboxRefused when its profile cannot be met here.
        """
        box = self._boxes.get(place)
        if box is not None:
            return box
        state = self._mine(place, self.state(place))
        own = is_sandbox_of(self._ways.request.run_id, self._past.states[place].sandbox_id)
        if own:
            box = await self._or_lose(place, state, key, self._port().attach(state, self._owner))
        if box is None:
            return await self._restore(place, state, remake, key)
        self._boxes[place] = box
        if (box.state.epoch, box.state.node) != (state.epoch, state.node):
            self._note(place, box.state, "attached", "its run has another owner", key)
        return box

    async def changed(self, place: str, operation: Operation) -> str | None:
        """A call has made a generation, and tells so in its outcome; with the snapshot of it that is returned, where
        the call must not be made again, or doing all since the head again would cost more.
        """
        before = self._past.states[place]
        self._past.done(place, operation)
        self._put(place, self._boxes[place].state)
        if operation.replayable and not self._past.is_heavy(place):
            return None
        try:
            await _bounded(self._boxes[place].snapshot(), "a snapshot to be taken")
        except EffectError as error:
            self._not_kept(place, f"no snapshot after {operation.name}: {error}", operation.key)
            return None
        except BaseException:  # no outcome will tell of what was done
            self._past.undone(place, operation)
            self._put(place, before)
            self.spoiled(place)
            raise
        return self.kept(place, "snapshot", f"after {operation.name}", operation.key)

    def kept(self, place: str, event: str, cause: str, key: str) -> str | None:
        """A call has given it another head, and tells so in its outcome: the record of the move follows that."""
        state = self._boxes[place].state
        self._put(place, state)
        self._after[key] = (place, state, event, cause)
        return state.head_snapshot_id

    def spoiled(self, place: str) -> None:
        """A call was cut off in it: what the workspace holds is not known any more."""
        self._boxes.pop(place, None)

    async def close(self, place: str, key: str) -> None:
        """It is not needed any more: its workspace goes, its snapshots stay as their leases say."""
        box, state = self._boxes.pop(place, None), self.state(place)
        if box is not None:
            await _bounded(box.close(), f"sandbox {state.name} to be closed")
        self._closed(place, "closed", key)

    def lost_exec(self, place: str, key: str, name: str, began: int) -> None:
        """An exec was in flight when its owner died."""
        state = self._past.states[place]
        more: dict[str, Json] = {"op": name, "began_at": began}
        self._record(place, state.model_copy(update={"cause": f"{name} was cut off"}), "lost_exec", key, more)

    # -- what the execution does -------------------------------------------------------------------------------

    async def keep_all(self, cause: str, remake: Remake) -> None:
        """Make what every open sandbox holds its head; one that cannot be kept or is lost says so and stays as it is.

        One that no call has needed since its owner came is brought first: what was done in it since its head is
        forgotten at a checkpoint.
        """

        async def keep(place: str) -> None:
            with suppress(EffectError):
                await self.bring(place, remake, None)
                await self._keep(place, cause)

        wanted = [place for place, state in self._past.open().items() if _wants_head(state)]
        await asyncio.gather(*map(keep, wanted))

    async def end(self, keep: bool) -> None:
        """The run ends: keep what is live here, for a person or a retry, and close all, in the same append."""
        self.ended = True
        held = self._past.open()
        wanted = [place for place in held if keep and place in self._boxes and _wants_head(held[place])]
        await asyncio.gather(*(self._keep(place, RUN_ENDED, _LAST) for place in wanted))
        for place in held:
            self._closed(place, RUN_ENDED, None)

    # -- inside ------------------------------------------------------------------------------------------------

    def _port(self) -> Sandboxes:
        port = self._ways.services.sandboxes
        if port is None:
            raise PermanentError(
                "this host has no sandboxes: put manifests into the folder that `sandbox.folder` names",
                code="no_sandboxes",
            )
        return port

    def _mine(self, place: str, state: SandboxState) -> SandboxState:
        """The state to bring back: in a fork of a run, the fork's own workspace with what the original's held."""
        run_id = self._ways.request.run_id
        if is_sandbox_of(run_id, state.sandbox_id):
            return state
        changes = {"sandbox_id": sandbox_id(run_id, place), "forked_from": state.sandbox_id, "node": "", "epoch": 0}
        return state.model_copy(update=changes)

    def _must_fit(self, state: SandboxState, opening: Opening) -> None:
        if state.manifest != opening.manifest:
            raise PermanentError(
                f"this run's sandbox {state.name} is of manifest {state.manifest!r}, not {opening.manifest!r}: "
                "close it, or give the other one another name",
                code="invalid_arguments",
            )

    async def _restore(self, place: str, state: SandboxState, remake: Remake, key: str | None) -> Box:
        again = self._past.since_head(place)
        if again is None:
            self._lose(place, state, self._why_not(place), key)
        state = state.model_copy(update={"can_resume": True, "can_snapshot": True})  # it may have been lost before
        box = await self._or_lose(place, state, key, self._port().restore(state, self._owner))
        try:
            for operation in again:
                await remake(operation, box)
                if box.state.generation != operation.generation:
                    made = f"generation {box.state.generation} instead of {operation.generation}"
                    raise PermanentError(f"{operation.name} ({operation.key}) made {made}", code="sandbox_lost")
        except PermanentError as error:
            await self._drop(box)
            self._lose(place, state, f"what was done since its head cannot be done again: {error}", key, error)
        except BaseException:
            await self._drop(box)
            raise
        self._boxes[place] = box
        moved = bool(state.node) and box.state.node != state.node
        told = f"head {state.head_snapshot_id or 'is the manifest'}, {len(again)} calls made again"
        self._note(place, box.state, "moved" if moved else "restored", told, key)
        return box

    async def _or_lose(self, place: str, state: SandboxState, key: str | None, waited: Awaitable[T]) -> T:
        """A workspace that is looked for or made again, within the bound; SandboxLost is put on record."""
        try:
            return await _bounded(waited, f"sandbox {state.name} to be brought back")
        except SandboxLost as error:
            self._lose(place, state, str(error), key, error)

    async def _drop(self, box: Box) -> None:
        with suppress(EffectError, TimeoutError):
            async with asyncio.timeout(_DROP):
                await box.close()

    def _why_not(self, place: str) -> str:
        state, known = self._past.states[place], self._past.operations.get(place, [])
        last = next((each for each in known if not each.replayable), None)
        if last is None:
            return f"what was done between generation {state.head_generation} and {state.generation} is not known"
        return f"{last.name} ({last.key}) was done since its head and is not to be repeated"

    def _lose(
        self, place: str, state: SandboxState, why: str, key: str | None, error: EffectError | None = None
    ) -> NoReturn:
        changes = {"status": SandboxStatus.lost, "can_resume": False, "can_snapshot": False}
        self._note(place, state.model_copy(update=changes), "lost", why, key)
        raise SandboxLost(
            f"sandbox {state.name} ({place}) cannot be brought back to generation {state.generation}, which the run "
            f"has seen: {why}; fork or retry the run from before, or declare its commands replayable"
        ) from error

    async def _keep(self, place: str, cause: str, seconds: float = BRING) -> None:
        """Take a snapshot; a sandbox that cannot be kept goes on, and can only be resumed where it is."""
        box = self._boxes[place]
        try:
            state = await _bounded(box.snapshot(), "a snapshot to be taken", seconds)
        except EffectError as error:
            self._not_kept(place, f"no snapshot ({cause}): {error}")
            return
        self._note(place, state.model_copy(update={"must_recreate": False}), "snapshot", cause, None)

    def _not_kept(self, place: str, why: str, after: str | None = None) -> None:
        """Say so once, `after` a step's outcome; from here on it can only be resumed where it is."""
        known = self._past.states[place]
        state = known.model_copy(update={"must_recreate": True})
        if after is not None:
            self._after[after] = (place, state, "not_kept", why)
        elif known.cause != why:
            self._note(place, state, "not_kept", why, None)

    def _closed(self, place: str, cause: str, key: str | None) -> None:
        state = self._past.states[place]
        self._boxes.pop(place, None)
        now = self._ways.services.now_ns()
        self._note(
            place, state.model_copy(update={"status": SandboxStatus.closed, "closed_at": now}), "closed", cause, key
        )

    def _note(self, place: str, state: SandboxState, event: str, cause: str, key: str | None) -> SandboxState:
        """Put a sandbox on record as it is now."""
        now = self._ways.services.now_ns()
        state = state.model_copy(update={"cause": cause, "changed_at": now})
        self._record(place, state, event, key, {})
        self._put(place, state)
        return state

    def _record(self, place: str, state: SandboxState, event: str, key: str | None, more: dict[str, Json]) -> None:
        facts: dict[str, Json] = {"event": event, "key": key, "place": place, **more, **state.model_dump(mode="json")}
        self._ways.note(Record(at=self._ways.services.now_ns(), topic=TOPIC, by="runtime", facts=facts))

    def _put(self, place: str, state: SandboxState) -> None:
        self._past.put(place, state)
        self._ways.keep(SandboxRow(state, self._ways.request.trace_id, place))


def _wants_head(state: SandboxState) -> bool:
    return state.status is SandboxStatus.open and state.generation > state.head_generation


async def _bounded(waited: Awaitable[T], what: str, seconds: float = BRING) -> T:
    """What is awaited, within the bound. TransientError `timeout` after it."""
    try:
        async with asyncio.timeout(seconds):
            return await waited
    except TimeoutError:
        raise TransientError(f"waited {seconds:g} s for {what}", code="timeout") from None
