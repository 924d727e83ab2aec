"""The journal and the control records in plain Python: a second implementation of both ports, without SQL.

It keeps the guarantees of `runs.ownership` by other means (one thread, copies as JSON), so that the contract
suites compare two stores and the engine can be tried without a disk. It seals nothing and survives nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from pydantic_core import to_json
from tests.doubles.memory_rows import Kept, branch_of, frame_of, record_of
from tests.doubles.memory_runs import MemoryRuns
from tests.doubles.memory_sessions import session_record

from retinue.runs import machine
from retinue.runs.arrivals import News
from retinue.runs.batch import JOB
from retinue.runs.contracts import Branch, Json, PendingRequest, RunRecord, Status
from retinue.runs.control import RunQuery, SessionQuery, SessionRecord
from retinue.runs.errors import InvalidInput, StoreError, UnknownName
from retinue.runs.journal import Frame
from retinue.runs.ownership import Append, Appended, DeadLetter, HostInfo, LeasedRun, NewRun
from retinue.runs.resources import guest_pool
from retinue.runs.retries import Retry
from retinue.runs.sessions import CLOSE


class MemoryStore(MemoryRuns):
    """Implements `Journal` and `Control`. One event loop; every operation is applied at once."""

    async def close(self) -> None:
        """Nothing is open."""

    # -- Journal -------------------------------------------------------------------------------------------

    async def register(self, host: HostInfo) -> None:
        """See Journal."""
        self._hosts[host.host_id] = host

    async def retire(self, host_id: str) -> None:
        """See Journal."""
        self._hosts.pop(host_id, None)
        for run in self._runs.values():
            if run.host == host_id and run.status is Status.in_progress:
                self._move(run, Status.queued)
                run.host = None
            if run.request.pool == guest_pool(host_id):
                run.request = run.request.model_copy(update={"pool": "runs"})

    async def lease(self, host: HostInfo, pool: str, limit: int, at: int, only: str | None = None) -> list[LeasedRun]:
        """See Journal."""
        if host.host_id not in self._hosts:
            return []
        queued = [run for run in self._runs.values() if run.status is Status.queued and not run.held]
        if only is not None:
            wanted = [run for run in queued if run.request.run_id == only]
        else:
            wanted = self._shared_out([run for run in queued if run.request.pool == pool])
        return [self._lease(run, host, at) for run in wanted[:limit]]

    def _shared_out(self, queued: list[Kept]) -> list[Kept]:
        """Tenants in turn, the one with the fewest runs in progress first; each one's runs by priority."""
        busy = Counter(run.request.tenant_id for run in self._runs.values() if run.status is Status.in_progress)
        queued.sort(key=lambda run: (-run.request.priority, -run.request.depth, run.num))
        turns: list[tuple[int, str, Kept]] = []
        for run in queued:
            tenant = run.request.tenant_id
            turns.append((busy[tenant], tenant, run))
            busy[tenant] += 1
        return [run for *_, run in sorted(turns, key=lambda turn: turn[:2])]

    def append(self, append: Append) -> asyncio.Future[Appended]:
        """See Journal. Applied at once; the future tells the answer."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._append(append))
        except StoreError as error:
            future.set_exception(error)
        return future

    async def news(self, host_id: str) -> dict[str, News]:
        """See Journal."""
        return {
            run_id: self._news(run)
            for run_id, run in self._runs.items()
            if run.host == host_id and run.status is Status.in_progress and run.news > run.seen
        }

    async def look(self, run_id: str) -> News:
        """See Journal."""
        return self._news(self._runs[run_id])

    async def branches(self, run_id: str, key: str) -> list[Branch]:
        """See Journal."""
        parent = self._runs[run_id]
        ended = [r for r in self._runs.values() if r.parent is parent and r.group == key and r.status.terminal]
        return [branch_of(run) for run in sorted(ended, key=lambda run: run.request.group_index or 0)]

    async def tend(self, host: HostInfo, at: int, lease_seconds: float) -> int:
        """See Journal. Nobody dies here: only what is due is queued."""
        due = [
            run
            for run in self._runs.values()
            if run.status in machine.WAITING and run.wake_at is not None and run.wake_at <= at
        ]
        for run in due:
            self._wake(run)
        return len(due)

    # -- Control -------------------------------------------------------------------------------------------

    async def submit(self, runs: Sequence[NewRun]) -> list[RunRecord]:
        """See Control."""
        return [record_of(self._runs[self._submit(new)]) for new in runs]

    async def resolve(self, request_id: str, status: str, by: str, at: int, value: Json = None) -> PendingRequest:
        """See Control."""
        found = [
            (run, request)
            for run in self._runs.values()
            for request in run.asked.values()
            if request.request_id.startswith(request_id) or request.request_id.endswith(request_id)
        ]
        if len(found) != 1:
            raise UnknownName(f"{len(found)} requests match id {request_id!r}: `retinue inbox` lists the open ones")
        run, request = found[0]
        if request.status == "open" and request.expires_at is not None and at >= request.expires_at:
            raise InvalidInput(f"request {request.request_id} is expired already")
        if request.status != "open":
            raise InvalidInput(f"request {request.request_id} is {request.status} already")
        if status not in (("answered",) if request.kind == "input" else ("approved", "denied")):
            raise InvalidInput(f"request {request.request_id} asks for {request.kind} and cannot be {status}")
        said = {"status": status, "resolved_at": at, "resolved_by": by}
        run.asked[request.key] = PendingRequest.model_validate(request.model_dump() | said)
        run.answers[request.key] = to_json(value)
        self._wake(run)
        return run.asked[request.key]

    async def signal(self, run_id: str, name: str, value: Json, at: int) -> None:
        """See Control."""
        run = self._find(run_id)
        if not self._wake(run):
            raise InvalidInput(f"run {run_id} has ended and takes no events")
        run.events.append((next(self._numbers), name, at, to_json(value)))

    async def cancel(self, run_id: str, by: str, at: int) -> int:
        """See Control."""
        return self._cancel([self._find(run_id)], by, at)

    async def hold(self, run_id: str, held: bool) -> int:
        """See Control."""
        changed = [r for r in self._below([self._find(run_id)]) if not r.status.terminal and r.held != held]
        for run in changed:
            run.held = held
            if run.status is Status.in_progress:
                self._wake(run)
        return len(changed)

    async def retry(self, run_id: str, wanted: Retry) -> list[str]:
        """See Control."""
        top = self._find(run_id)
        heard = (Status.completed, Status.canceled)
        if top.parent is not None and top.parent.status not in heard and top.parent.request.target != JOB:
            raise InvalidInput(f"run {run_id} is a child of {top.parent.request.run_id}, which is {top.parent.status}")
        return [run.request.run_id for run in self._retry(top, wanted)]

    async def sessions(self, query: SessionQuery) -> list[SessionRecord]:
        """See Control."""
        wanted = {
            "run_id": query.run_id,
            "root_run_id": query.root_run_id,
            "tenant_id": query.tenant_id,
            "server": query.server,
            "status": query.status,
        }
        found = [session_record(run.request, row) for run in self._runs.values() for row in run.sessions.values()]
        found = [s for s in found if all(v is None or getattr(s, name) == v for name, v in wanted.items())]
        found = [s for s in found if s.closed_at is None or not query.open_only]
        found.reverse()
        return sorted(found, key=lambda one: -one.opened_at)[: query.limit]

    async def session(self, session_id: str) -> SessionRecord:
        """See Control."""
        everything = await self.sessions(SessionQuery(limit=1_000_000))
        found = [one for one in everything if one.session_id.startswith(session_id) or one.session_id == session_id]
        found += [one for one in everything if one.session_id.endswith(session_id) and one not in found]
        if len(found) != 1 or len(session_id) < 4:
            raise UnknownName(f"{len(found)} capability sessions match {session_id!r}")
        return found[0]

    async def close_session(self, session_id: str, by: str, at: int) -> SessionRecord:
        """See Control."""
        found = await self.session(session_id)
        if found.closed_at is not None:
            raise InvalidInput(f"capability session {found.session_id} is closed already ({found.cause})")
        await self.signal(found.run_id, CLOSE, {"session_id": found.session_id, "by": by}, at)
        return found

    async def get(self, run_id: str) -> RunRecord:
        """See Control."""
        return record_of(self._find(run_id))

    async def result(self, run_id: str) -> Branch | None:
        """See Control."""
        run = self._find(run_id)
        return branch_of(run) if run.status.terminal else None

    async def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """See Control."""
        wanted = {
            "status": query.status,
            "tenant_id": query.tenant_id,
            "parent_run_id": query.parent_run_id,
            "root_run_id": query.root_run_id,
            "job_id": query.job_id,
            "held": query.held,
        }
        records = [record_of(run) for run in sorted(self._runs.values(), key=lambda run: -run.num)]
        found = [r for r in records if all(v is None or getattr(r, name) == v for name, v in wanted.items())]
        found = [r for r in found if not query.waiting or r.status in machine.WAITING]
        return [r for r in found if not query.roots_only or r.parent_run_id is None][: query.limit]

    async def requests(self, open_only: bool = True) -> list[PendingRequest]:
        """See Control."""
        asked = [request for run in self._runs.values() for request in run.asked.values()]
        asked = [request for request in asked if not open_only or request.status == "open"]
        return sorted(asked, key=lambda request: request.created_at)

    async def dead_letters(self, parent_run_id: str | None = None, limit: int = 1_000) -> list[DeadLetter]:
        """Inputs that could not become a run, oldest first."""
        return self._letters[:limit]

    async def read(self, run_id: str, after: int = 0) -> AsyncIterator[Frame]:
        """See Control."""
        run = self._find(run_id)
        for stored in list(run.frames):
            if stored.position > after:
                yield frame_of(run, stored)

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """See Control."""
        found = [frame_of(run, stored) for run, stored in self._log if stored.seq > after_seq]
        return found[:limit]
