"""A process that runs runs: it leases them from the store, hosts each as a coroutine, and tends the store.

A cache of durable state: it may die at any moment, and the next host continues what it held. Knows no Ray;
actors put it into Ray processes and the inline host into the caller's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.host.clock import now_ns
from retinue.runs import ending
from retinue.runs.errors import Fenced, StoreBroken, StoreError
from retinue.runs.execution import Execution
from retinue.runs.ownership import HostInfo, LeasedRun
from retinue.runs.ports import Services
from retinue.store.store import Store

_LOG = logging.getLogger("retinue.host")
_POLL = 0.005
_SWEEP = 0.25
_TEND = 1.0

Duty = Callable[[], Coroutine[Any, Any, None]]
"""Something a host does beside hosting, for ever; canceled when the host stops."""


@dataclass(frozen=True, slots=True)
class HostShape:
    """What a host takes: from which pools, how many runs at once, and how long (s) it may be silent.

    `once`: it takes a single run and ends with it. `patience`: how long (s) it bears a store in which nothing can be
    written, such as on a full disk; None for ever.
    """

    pools: Sequence[str]
    capacity: int = 256
    lease_seconds: float = 15.0
    tends: bool = True
    once: bool = False
    patience: float | None = None


class Host:
    """Hosts runs until it is stopped. One per process and event loop."""

    def __init__(
        self,
        info: HostInfo,
        shape: HostShape,
        store: Store,
        services: Services,
        duties: Sequence[Duty] = (),
    ) -> None:
        self.info = info
        self._duties = duties
        self._shape = shape
        self._pools = list(shape.pools)
        self._store = store
        self._services = services
        self._active: dict[str, tuple[Execution, asyncio.Task[None]]] = {}
        self._carried: set[asyncio.Task[None]] = set()
        self._stranded: list[tuple[LeasedRun, str | None]] = []
        self._unsure = False
        self._sessions_seen = -1
        self._hint = asyncio.Event()
        self._stopping = False
        self._taking = True
        self._quiet_since = time.monotonic()
        self._refusal: BaseException | None = None
        self._refused_since: float | None = None
        self._failure: BaseException | None = None
        self.finished = 0

    @property
    def active(self) -> int:
        """How many runs it holds now."""
        return len(self._active)

    @property
    def holds(self) -> list[str]:
        """The ids of the runs it holds now."""
        return list(self._active)

    @property
    def idle(self) -> float:
        """For how long (s) it has held nothing."""
        return 0.0 if self._active else time.monotonic() - self._quiet_since

    def hint(self) -> None:
        """Something may be queued: look now instead of at the next poll."""
        self._hint.set()

    async def serve(self) -> None:
        """Register, then host runs until `stop`; what is not finished then goes back into its queue.

        Raises what the store said when it refused to be written for longer than the shape's patience, or is broken,
        and what a duty failed with.
        """
        await self._store.register(self.info)
        duties = [asyncio.create_task(duty()) for duty in (self._sweep_for_ever, self._tend_for_ever, *self._duties)]
        for duty in duties:
            duty.add_done_callback(self._duty_ended)
        try:
            await self._lease_for_ever()
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
            await self._let_go()
            if self._services.endpoint is not None:
                await self._services.endpoint.close()
            await self._services.gateway.close()
            if self._services.sandboxes is not None:
                await self._services.sandboxes.close()
            await self._services.models.close()
        if self._failure is not None:
            raise self._failure

    def _duty_ended(self, duty: asyncio.Task[None]) -> None:
        """A host without its duties is no host: who waits for it hears of the failure of one."""
        if not duty.cancelled() and (error := duty.exception()) is not None:
            _LOG.error("a duty of this host failed: %s", error)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Let `serve` end with an error."""
        self._failure = self._failure or error
        self.stop()

    def _heard(self, error: BaseException) -> None:
        """The store has refused something that this host tries again later; a broken one ends it."""
        if isinstance(error, StoreBroken):
            self._fail(error)

    def serve_also(self, pools: Sequence[str]) -> None:
        """Take from these pools too, to run what is in them or pass it on."""
        self._pools += [pool for pool in pools if pool not in self._pools]
        self.hint()

    def stop(self) -> None:
        """Ask `serve` to end."""
        self._stopping = True
        self._hint.set()

    def drain(self) -> None:
        """Ask `serve` to end without cutting anything off: take no run any more, finish the steps that are in flight,
        and give each run back to its queue between two steps."""
        self._taking = False
        for execution, _ in list(self._active.values()):
            execution.leave()
        self._hint.set()

    async def _lease_for_ever(self) -> None:
        seen = -1
        while not self._stopping and (self._taking or self._active):
            version = self._store.version()
            if version != seen or self._hint.is_set():
                seen = version
                self._hint.clear()
                try:
                    await self._look()
                except StoreError as error:
                    self._heard(error)
                    _LOG.warning("%s; trying again", error)
                    self._unsure = True
                    await asyncio.sleep(_TEND)
                    self._hint.set()
            try:
                async with asyncio.timeout(_POLL):
                    await self._hint.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        if self._unsure:
            await self._reclaim()
        for pool in self._pools:
            free = (1 if self._shape.once else self._shape.capacity) - len(self._active)
            if free > 0 and self._taking:
                for leased in await self._store.lease(self.info, pool, free, now_ns()):
                    await self._take(leased)
        if self._active and await self._store.has_news(self.info.host_id):
            for run_id, news in (await self._store.news(self.info.host_id)).items():
                if run_id in self._active:
                    self._active[run_id][0].take(news)

    async def _reclaim(self) -> None:
        """The store may have leased runs to this host and not have come to say so: nobody would ever run them."""
        held = [*self._active, *(leased.request.run_id for leased, _ in self._stranded)]
        lost = await self._store.reclaim(self.info.host_id, held)
        if lost:
            _LOG.warning("%d runs were leased by a commit whose answer was lost; they go back to their queues", lost)
        self._unsure = False

    async def _take(self, leased: LeasedRun) -> None:
        """Begin a run, or pass it on to the pool that has what its definition needs: a retry, or one whose definition
        has changed since it was queued, may have come here."""
        wanted = self._services.registry.pool_of(leased.request.target)
        if not self._taking or (wanted is not None and wanted not in self._pools):
            self._stranded.append((leased, wanted))
            await self._return_stranded()
            return
        self._taking = not self._shape.once
        self._begin(leased)

    def _begin(self, leased: LeasedRun) -> None:
        run_id = leased.request.run_id
        execution = Execution(leased, self._services, self.info)
        task = asyncio.create_task(self._carry(execution, leased))
        self._active[run_id] = (execution, task)
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _carry(self, execution: Execution, leased: LeasedRun) -> None:
        run_id = leased.request.run_id
        try:
            await execution.drive()
            self.finished += 1
            self._refused_since = None
        except StoreError as error:
            self._give_back(leased, execution.failure or error)
        except Exception as error:  # a defect of the engine must end the run, not the host
            await self._bury(execution, leased, error)
        finally:
            self._active.pop(run_id, None)
            self._quiet_since = time.monotonic()
            self._hint.set()
        if execution.sessions.used:
            await self._services.gateway.release(run_id, execution.sessions.ended)
        if execution.boxes.used and self._services.sandboxes is not None:
            await self._services.sandboxes.release(run_id, execution.boxes.ended)

    def _give_back(self, leased: LeasedRun, error: BaseException) -> None:
        """Let a run go back to its queue; since when the store refuses to be written is remembered."""
        self._stranded.append((leased, None))
        self._heard(error)
        if isinstance(error, Fenced):
            _LOG.info("%s", error)
            return
        self._refusal = error
        self._refused_since = self._refused_since or time.monotonic()
        _LOG.warning("run %s goes back to its queue: %s", leased.request.run_id, error)

    def _loses_patience(self) -> None:
        """Stop serving when the store has refused for longer than this host is to bear."""
        since, patience = self._refused_since, self._shape.patience
        if since is not None and patience is not None and time.monotonic() - since > patience:
            self._fail(self._refusal or StoreError("the store refuses to be written"))

    async def _bury(self, execution: Execution, leased: LeasedRun, error: Exception) -> None:
        try:
            await ending.fail(execution, error)
        except StoreError as failure:
            self._heard(failure)
            _LOG.error("run %s: %s, and it cannot be ended: %s", leased.request.run_id, error, failure)
            self._stranded.append((leased, None))

    async def _sweep_for_ever(self) -> None:
        """Let free steps ride along, but not for long."""
        while True:
            await asyncio.sleep(_SWEEP)
            for execution, _ in list(self._active.values()):
                execution.flush()

    async def _tend_for_ever(self) -> None:
        """Show that this host lives, queue what is due, take over from the dead."""
        while True:
            try:
                if self._shape.tends:
                    await self._store.tend(self.info, now_ns(), self._shape.lease_seconds)
                await self._return_stranded()
                await self._end_sessions()
            except StoreError as error:
                self._heard(error)
                _LOG.warning("%s; trying again", error)
            self._loses_patience()
            await asyncio.sleep(_TEND)

    async def _end_sessions(self) -> None:
        """Let go of what is held for runs that rest, once their sessions were closed: another host may have done so."""
        gateway = self._services.gateway
        held = {(run_id, server) for run_id, server in gateway.held_sessions() if run_id not in self._active}
        version = self._store.version()
        if not held or version == self._sessions_seen:
            return
        for run_id, server in held - await self._store.open_sessions({run_id for run_id, _ in held}):
            if run_id not in self._active:
                gateway.end_session(run_id, server)
        self._sessions_seen = version

    async def _return_stranded(self) -> None:
        """Queue again what this host has and does not carry; what the store refuses now is tried again in a second."""
        while self._stranded:
            leased, pool = self._stranded.pop()
            try:
                await self._store.release(leased, pool=pool)
            except StoreError as error:
                self._stranded.append((leased, pool))
                _LOG.warning("run %s is queued again later: %s", leased.request.run_id, error)
                return

    async def _let_go(self) -> None:
        """Stop carrying runs; what one that has ended leaves behind, such as its workspaces, is let go of to the end,
        which is bounded."""
        for _, task in self._active.values():
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)
        try:
            await self._store.retire(self.info.host_id)
        except StoreError as error:
            _LOG.warning("%s; its leases are taken over when this process is gone", error)
