"""The thin synchronous client, for notebooks and scripts: the same verbs, on a loop in a thread of its own.

Adds nothing to the asynchronous client and keeps no state beside it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.dead import LIMIT as LIMIT_DEAD
from retinue.ingress.dead import Dead, DeadList
from retinue.ingress.diffing import Difference
from retinue.ingress.events import RunEvent
from retinue.ingress.inspection import Inspection
from retinue.ingress.pending import LIMIT, Pending
from retinue.ingress.steering import Forked, Retaking
from retinue.runs.alerts import Alert
from retinue.runs.contracts import Branch, Budget, Json, PendingRequest, RunRecord
from retinue.runs.control import Redriven, RunQuery
from retinue.runs.definitions import Definition
from retinue.runs.forking import Given

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class SyncClient:
    """Made by `connect_sync`. Every method blocks; errors are those of `Client`."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def submit(self, target: str | Definition, input: Json, **options: Any) -> str:
        """Accept a run; returns its id."""
        return self._wait(self._client.submit(target, input, **options)).run_id

    def run(self, target: str | Definition, input: Json, timeout: float | None = None, **options: Any) -> Any:
        """Run something and return its output. Raises RunFailed or RunCanceled with the reason."""

        async def both() -> Any:
            handle = await self._client.submit(target, input, **options)
            return await handle.result(timeout)

        return self._wait(both())

    def get(self, run_id: str) -> RunRecord:
        """The record of a run."""
        return self._wait(self._client.get(run_id))

    def runs(self, query: RunQuery | None = None) -> list[RunRecord]:
        """Records, newest first."""
        return self._wait(self._client.runs(query or RunQuery()))

    def wait(self, run_id: str, timeout: float | None = None) -> Branch:
        """The result of a run as a value, when it has ended."""
        return self._wait(self._client.wait(run_id, timeout))

    def events(self, run_id: str) -> list[RunEvent]:
        """What has happened in a run so far."""

        async def gather() -> list[RunEvent]:
            return [event async for event in self._client.events(run_id, follow=False)]

        return self._wait(gather())

    def cancel(self, run_id: str) -> int:
        """Cancel a run and all below it."""
        return self._wait(self._client.cancel(run_id))

    def inbox(self) -> list[PendingRequest]:
        """What runs ask people."""
        return self._wait(self._client.inbox())

    def approve(
        self, request_id: str, by: str | None = None, arguments: dict[str, Json] | None = None
    ) -> PendingRequest:
        """Say yes to an approval."""
        return self._wait(self._client.approve(request_id, by, arguments))

    def deny(self, request_id: str, by: str | None = None, why: str = "") -> PendingRequest:
        """Say no to an approval."""
        return self._wait(self._client.deny(request_id, by, why))

    def answer(self, request_id: str, value: Json, by: str | None = None) -> PendingRequest:
        """Answer a question."""
        return self._wait(self._client.answer(request_id, value, by))

    def signal(self, run_id: str, name: str, value: Json = None) -> None:
        """Send an event to a run, which keeps it until it is taken."""
        self._wait(self._client.signal(run_id, name, value))

    def pending(self, run_id: str | None = None, everything: bool = False, limit: int = LIMIT) -> Pending:
        """What the whole tree of a run waits for, or what runs ask anywhere; with `everything` all they wait for."""
        return self._wait(self._client.pending(run_id, everything, limit))

    def alerts(self, everything: bool = False, limit: int = 1_000) -> list[Alert]:
        """Alerts that stand and were not acknowledged, oldest first; with `everything` all there were, newest first."""
        return self._wait(self._client.alerts(everything, limit))

    def acknowledge(self, alert_id: int, by: str | None = None) -> Alert:
        """Say that somebody knows of an alert."""
        return self._wait(self._client.acknowledge(alert_id, by))

    def inspect(self, run_id: str) -> Inspection:
        """Where a run stands and what resuming it would do."""
        return self._wait(self._client.inspect(run_id))

    def diff(self, one: str, other: str, children: bool = False) -> Difference:
        """Two runs side by side, step by step."""
        return self._wait(self._client.diff(one, other, children))

    def pause(self, run_id: str) -> int:
        """Hold a run and all below it; how many were changed."""
        return self._wait(self._client.pause(run_id))

    def resume(self, run_id: str) -> int:
        """Let a held run and all below it go on; how many were changed."""
        return self._wait(self._client.resume(run_id))

    def retry(self, run_id: str, *, budget: Budget | None = None, deadline: float | None = None) -> Retaking:
        """Queue a failed run again, and what failed it below."""
        return self._wait(self._client.retry(run_id, budget=budget, deadline=deadline))

    def migrate(self, run_id: str, *, budget: Budget | None = None, deadline: float | None = None) -> Retaking:
        """`retry` with the code of now."""
        return self._wait(self._client.migrate(run_id, budget=budget, deadline=deadline))

    def fork(
        self, run_id: str, at: str, given: Given | None = None, *, pinned: bool = False, budget: Budget | None = None
    ) -> Forked:
        """Accept a run that shares another's past up to a step."""
        return self._wait(self._client.fork(run_id, at, given, pinned=pinned, budget=budget))

    def dead(self, job_id: str | None = None, limit: int = LIMIT_DEAD) -> DeadList:
        """What was given up: refused inputs, failed top-level runs and rows."""
        return self._wait(self._client.dead(job_id, limit))

    def dead_letter(self, dead_id: str) -> Dead:
        """One dead letter with its input."""
        return self._wait(self._client.dead_letter(dead_id))

    def redrive(self, run_id: str, *, reason: str | None = None, limit: int | None = None) -> Redriven:
        """Queue the failed rows of a job again, or one failed run."""
        return self._wait(self._client.redrive(run_id, reason=reason, limit=limit))

    def sql(self, query: str, timeout: float = 30.0) -> pa.Table:
        """Ask the trace tables."""
        return self._wait(self._client.query(query, timeout))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def connect_sync(project: Path | None = None, *, local: bool = False, start: bool = True) -> Iterator[SyncClient]:
    """Like `connect`, blocking: `with connect_sync(local=True) as client: client.run("agent", "question")`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="retinue-client", daemon=True)
    thread.start()
    context = connect(project, local=local, start=start)
    try:
        client = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        try:
            yield SyncClient(client, loop)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
