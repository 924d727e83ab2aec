"""What can be done with runs through their store alone: look, answer, signal, cancel, compare, hold, retry, redrive.

The verbs that only read or speak to runs use this: it imports no models, tools, policy, traces and no Ray, so it
is there in a fraction of a second. `Client` adds what needs a project or a process that runs runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from retinue.host import clock
from retinue.host.opening import opened_store
from retinue.host.settings import Settings
from retinue.ingress.answering import answer_to, declined
from retinue.ingress.approving import check_approver, check_edit
from retinue.ingress.awaiting import Awaited, awaited
from retinue.ingress.dead import LIMIT as LIMIT_DEAD
from retinue.ingress.dead import REFUSED, Dead, DeadList, dead_list, dead_one, is_input
from retinue.ingress.diffing import Difference, diff_runs
from retinue.ingress.events import RunEvent, events_of
from retinue.ingress.inspection import Inspection, inspect_run
from retinue.ingress.pending import LIMIT, Pending, pending
from retinue.ingress.steering import Retaking, retake
from retinue.ingress.trees import LEVELS, SHOWN
from retinue.ingress.wholes import FullOutput, read_full_output
from retinue.runs.accounts import Account
from retinue.runs.alerts import Alert
from retinue.runs.batch import JOB
from retinue.runs.contracts import Budget, Json, PendingRequest, RunRecord, RunRequest, Status
from retinue.runs.control import GroupState, Redriven, Rows, RunQuery, RunTree, SessionQuery, SessionRecord
from retinue.runs.errors import InvalidInput, StoreError
from retinue.runs.journal import Accepted
from retinue.runs.retries import Retry
from retinue.runs.rollouts import Rollout
from retinue.store.store import Store

_POLL = 0.02
_CHUNK = 500


class Controls:
    """Made by `open_controls`. All methods may be called from one event loop; errors are RetinueError."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self._store = store

    @property
    def store(self) -> Store:
        """The store itself, for what stands beside runs."""
        return self._store

    # -- looking -----------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunRecord:
        """The record of a run; an unambiguous part of its id will do."""
        return await self._store.get(run_id)

    async def accepted(self, run_id: str) -> RunRequest:
        """What was asked for when the run was accepted: on whose behalf, by which way, within which limits."""
        record = await self.get(run_id)
        async for frame in self._store.read(record.run_id):
            for entry in frame.entries:
                if isinstance(entry, Accepted):
                    return entry.request
        raise StoreError(f"run {record.run_id} has no entry that says how it was accepted: its journal is not whole")

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Records, newest first."""
        return await self._store.list_runs(query)

    async def tree(self, run_id: str, most: int = SHOWN, deepest: int = LEVELS - 1) -> RunTree:
        """A run and what is below it, as far as asked; what has not ended comes first."""
        return await self._store.below((await self.get(run_id)).run_id, most, deepest)

    async def inspect(self, run_id: str) -> Inspection:
        """Where a run stands: its cursor, where replay begins, what is kept, what it waits for, its groups."""
        return await inspect_run(self._store, run_id)

    async def full_output(self, run_id: str, key: str) -> tuple[FullOutput, Json]:
        """The whole result of a step whose result was above the cap of its tool."""
        return await read_full_output(self._store, run_id, key)

    async def diff(self, one: str, other: str, children: bool = False) -> Difference:
        """Two runs side by side, step by step; with `children` their children too, by group and index."""
        return await diff_runs(self._store, one, other, children)

    async def events(self, run_id: str, after: int = 0, follow: bool = True) -> AsyncIterator[RunEvent]:
        """The events of a run after a position, streamed text included; until it has ended, when following."""
        run_id = (await self.get(run_id)).run_id
        streamed, seen = 0, -1
        while True:
            version = self._store.version()
            if version != seen:
                seen = version
                ended = (await self.get(run_id)).status.terminal
                while pieces := await self._store.deltas(run_id, streamed):
                    for piece in pieces:
                        yield _delta(run_id, after, piece)
                    streamed = pieces[-1][0]
                async for frame in self._store.read(run_id, after):
                    for event in events_of(frame):
                        yield event
                    after = frame.position
                if ended or not follow:
                    return
            await asyncio.sleep(_POLL)

    # -- what runs wait for --------------------------------------------------------------------------------

    async def inbox(self, root_run_id: str | None = None) -> list[PendingRequest]:
        """What runs ask people (or only the tree of this root), oldest first."""
        if root_run_id is not None:
            return await self._store.asked_below(root_run_id)
        return await self._store.requests()

    async def pending(self, run_id: str | None = None, everything: bool = False, limit: int = LIMIT) -> Pending:
        """What the whole tree of a run waits for, or what runs ask anywhere; with `everything` all they wait for."""
        return await pending(self._store, run_id, everything, limit)

    async def awaited(self, run_id: str) -> tuple[Awaited, ...]:
        """What one run waits for, by its journal; nothing when it has ended."""
        record = await self.get(run_id)
        return () if record.status.terminal else awaited(await self._store.recent(record.run_id))

    async def approve(
        self, request_id: str, by: str | None = None, arguments: dict[str, Json] | None = None
    ) -> PendingRequest:
        """Say yes to an approval; with `arguments` to the call with these in place of those it was asked for with.

        InvalidInput when a yes of `by` would not count, or the request is about no call.
        """
        request = await self._store.request(request_id)
        check_approver(request, by or self.settings.principal, self.settings.roles)
        if arguments is not None:
            check_edit(request, arguments)
        value = None if arguments is None else {"arguments": arguments}
        return await self._resolve(request.request_id, "approved", by, value)

    async def deny(self, request_id: str, by: str | None = None, why: str = "") -> PendingRequest:
        """Say no to an approval."""
        return await self._resolve(request_id, "denied", by, why or None)

    async def answer(self, request_id: str, value: Json, by: str | None = None) -> PendingRequest:
        """Answer a question. InvalidInput names the field of a form that is not as a server asks for it."""
        request = await self._store.request(request_id)
        return await self._resolve(request.request_id, "answered", by, answer_to(request, value))

    async def decline(self, request_id: str, by: str | None = None) -> PendingRequest:
        """Decline to answer what a server asks: its call goes on without. InvalidInput for any other question."""
        request = await self._store.request(request_id)
        return await self._resolve(request.request_id, "answered", by, declined(request))

    async def signal(self, run_id: str, name: str, value: Json = None) -> None:
        """Send an event to a run, which keeps it until it is taken. InvalidInput when the run has ended."""
        if not name.strip():
            raise InvalidInput("the event's name is empty: use the name that the run waits for, as `ctx.event` has it")
        await self._store.signal(run_id, name, value, clock.now_ns())

    async def cancel(self, run_id: str, by: str | None = None) -> int:
        """Cancel a run and all below it; returns how many were marked or ended."""
        return await self._store.cancel(run_id, by or self.settings.principal, clock.now_ns())

    # -- sessions with servers ---------------------------------------------------------------------------

    async def sessions(self, query: SessionQuery) -> list[SessionRecord]:
        """Capability sessions, newest first."""
        return await self._store.sessions(query)

    async def session(self, session_id: str) -> SessionRecord:
        """One capability session; an unambiguous part of its id will do."""
        return await self._store.session(session_id)

    async def close_session(self, session_id: str, by: str | None = None) -> SessionRecord:
        """Have a session closed by the owner of its run: open calls end, the next one begins a new session.

        InvalidInput when it is closed already.
        """
        return await self._store.close_session(session_id, by or self.settings.principal, clock.now_ns())

    # -- what somebody has to be told of -------------------------------------------------------------------

    async def alerts(self, everything: bool = False, limit: int = 1_000) -> list[Alert]:
        """Alerts that stand and were not acknowledged, oldest first; with `everything` all there were, newest first."""
        return await self._store.alerts.listed(everything, limit)

    async def acknowledge(self, alert_id: int, by: str | None = None) -> Alert:
        """Say that somebody knows of an alert. UnknownName, or InvalidInput when it has cleared."""
        return await self._store.alerts.acknowledge(alert_id, by or self.settings.principal, clock.now_ns())

    async def accounts(self) -> list[Account]:
        """What tenants with a money limit have spent and reserved, every window there was an account for."""
        return await self._store.accounts.listed()

    async def rollouts(self, name: str | None, limit: int) -> list[Rollout]:
        """The changes of stages of a name, or of all, newest first."""
        return await self._store.rollouts.history(None if name is None else name.partition("@")[0], limit)

    # -- steering ------------------------------------------------------------------------------------------

    async def pause(self, run_id: str) -> int:
        """Hold a run and all below it: what is in flight ends, nothing more begins. Returns how many were changed.

        InvalidInput when it has ended and nothing below it goes on.
        """
        return await self._hold(run_id, held=True)

    async def resume(self, run_id: str) -> int:
        """Let a held run and all below it go on; returns how many were changed. InvalidInput as for `pause`."""
        return await self._hold(run_id, held=False)

    async def retry(
        self,
        run_id: str,
        *,
        budget: Budget | None = None,
        deadline: float | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> Retaking:
        """Queue a failed run again, and what failed it below; `deadline` (s) begins now, `versions` by target migrate.

        Ids and idempotency keys stay. IllegalTransition when it did not fail, InvalidInput while it or its parent
        goes on.
        """
        wanted = self._retry(budget, deadline)
        if versions is not None:
            target = (await self.get(run_id)).target
            wanted = replace(wanted, migrate=True, version=versions.get(target), versions=versions)
        return await retake(self._store, run_id, wanted)

    async def dead(self, job_id: str | None = None, limit: int = LIMIT_DEAD) -> DeadList:
        """What was given up: refused inputs, failed top-level runs and rows; of one job or of all."""
        found = None if job_id is None else (await self.get(job_id)).run_id
        return await dead_list(self._store, found, limit)

    async def dead_letter(self, dead_id: str) -> Dead:
        """One dead letter with its input."""
        return await dead_one(self._store, dead_id)

    async def redrive(self, run_id: str, *, reason: str | None = None, limit: int | None = None) -> Redriven:
        """Queue the failed rows of a job again (of one stop reason, or so many), or one failed run.

        Rows go on in place: ids and idempotency keys stay, the job's counters count them as pending. Done in
        transactions of 500; one that cannot go on is named in `refused` and left as it is.
        """
        if is_input(run_id):
            raise InvalidInput(f"{run_id} is an input that never became a run and cannot be redriven: {REFUSED}")
        record = await self.get(run_id)
        if record.target == JOB or (record.status is not Status.failed and await self.groups(record.run_id)):
            return await self._redrive_rows(record.run_id, reason, limit)
        if reason is not None and record.reason != reason:
            ended = record.reason.value if record.reason else "no reason"
            raise InvalidInput(
                f"run {record.run_id} is {record.status} ({ended}), not with {reason}: leave --reason out"
            )
        return Redriven(tuple(await self._store.retry(record.run_id, self._retry())))

    async def groups(self, run_id: str) -> list[GroupState]:
        """How far each fan-out of a run is."""
        return await self._store.groups((await self.get(run_id)).run_id)

    async def _redrive_rows(self, job_id: str, reason: str | None, limit: int | None) -> Redriven:
        queued: list[str] = []
        refused: list[tuple[str, str]] = []
        after: int | None = 0
        while after is not None and (limit is None or len(queued) < limit):
            page = _CHUNK if limit is None else min(_CHUNK, limit - len(queued))
            done = await self._store.redrive(job_id, Rows(after, page, reason), self._retry())
            queued += done.queued
            refused += done.refused
            after = done.last
        return Redriven(tuple(queued), tuple(refused))

    async def _hold(self, run_id: str, held: bool) -> int:
        record = await self.get(run_id)
        count = await self._store.hold(record.run_id, held)
        if not count and record.status.terminal:
            raise InvalidInput(
                f"run {record.run_id} is {record.status} and nothing below it goes on: only a run that is queued, "
                "in_progress or waiting can be held or let go"
            )
        return count

    def _retry(self, budget: Budget | None = None, deadline: float | None = None) -> Retry:
        now = clock.now_ns()
        return Retry(
            by=self.settings.principal,
            at=now,
            budget=budget,
            deadline=None if deadline is None else now + int(deadline * 1e9),
        )

    async def _resolve(self, request_id: str, status: str, by: str | None, value: Json) -> PendingRequest:
        who = by or self.settings.principal
        return await self._store.resolve(request_id, status, who, clock.now_ns(), value)


def _delta(run_id: str, position: int, piece: tuple[int, str, int, str]) -> RunEvent:
    _, key, attempt, text = piece
    facts = {"attempt": attempt}
    return RunEvent(at=clock.now_ns(), run_id=run_id, position=position, kind="delta", name=key, text=text, facts=facts)


@asynccontextmanager
async def open_controls(settings: Settings) -> AsyncIterator[Controls]:
    """The controls of a project's runs. Hosts nothing and starts nothing. Raises StoreError, StoreBusy."""
    async with opened_store(settings) as store:
        yield Controls(settings, store)
