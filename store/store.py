"""A store: the ports `Journal` and `Control` of `runs` and what else is asked of it, over the engine of a database.

Writes go through the process's writer, reads through the engine's readers; both are short. Knows no database: the
operations are functions of a connection, and `store.sqlite` and `store.postgres` make the stores.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

from retinue.runs.accounts import with_share
from retinue.runs.arrivals import News
from retinue.runs.breakers import BreakerPolicy
from retinue.runs.contracts import Branch, Json, PendingRequest, RunRecord
from retinue.runs.control import (
    DeadInput,
    GroupState,
    JobRow,
    JobState,
    QueueState,
    Redriven,
    Rows,
    RunQuery,
    RunTree,
    SessionQuery,
    SessionRecord,
)
from retinue.runs.errors import LimitReached
from retinue.runs.journal import Frame
from retinue.runs.limits import NO_QUOTAS, Limits
from retinue.runs.ownership import Append, Appended, DeadLetter, HostInfo, LeasedRun, NewRun
from retinue.runs.retries import Retry
from retinue.store import control, dead, encoding, leasing, reading, sessions, steering, trees
from retinue.store.accounts import StoreAccounts
from retinue.store.alerts import StoreAlerts
from retinue.store.appending import Appends
from retinue.store.breakers import StoreBreakers
from retinue.store.engine import Connection, Engine
from retinue.store.frames import FrameCodec
from retinue.store.memories import StoreMemories
from retinue.store.rollouts import StoreRollouts
from retinue.store.rows import many, one
from retinue.store.sandboxes import StoreSandboxes
from retinue.store.sealing import Vault
from retinue.store.statements import sql
from retinue.store.tenants import StoreTenants
from retinue.store.writer import Writer

T = TypeVar("T")
BREAKERS = BreakerPolicy()
_FEW = 4
"""Runs that are accepted in a transaction which keeps nobody waiting."""


class Store:
    """Journal and control of one store. Open it in each process; close it when done.

    Raises StoreBusy, StoreFull, SchemaMismatch and Fenced as their docstrings say.
    """

    def __init__(
        self, engine: Engine, codec: FrameCodec, limits: Limits = NO_QUOTAS, breakers: BreakerPolicy = BREAKERS
    ) -> None:
        self._engine = engine
        self._codec = codec
        self._limits = limits
        self._writer = Writer(engine.pen)
        self._appends = Appends(codec, self._writer)
        self._beats: dict[str, float] = {}
        self.breakers = StoreBreakers(engine.glance, self._writer.submit, breakers, engine.moment)
        self.accounts = StoreAccounts(engine.read, self._writer.submit)
        self.rollouts = StoreRollouts(engine.glance, self._writer.submit, codec)
        self.alerts = StoreAlerts(engine.read, self._writer.submit, engine.incarnation)
        self.memories = StoreMemories(engine.read, self._writer.submit, codec)
        self.sandbox_records = StoreSandboxes(engine.read, self._writer.submit)
        self.tenants = StoreTenants(engine.read, self._writer.submit, codec)

    @property
    def vault(self) -> Vault:
        """The tenants' keys, for content that is kept beside the store."""
        return self._codec.vault

    async def close(self) -> None:
        """Finish what was submitted, then let go of everything."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._engine.close)

    # -- owning runs: the port Journal ------------------------------------------------------------------

    async def register(self, host: HostInfo) -> None:
        """See Journal."""
        clock = self._engine.clock
        await self._writer.submit(lambda connection: leasing.register(connection, host, clock(connection)))

    async def retire(self, host_id: str) -> None:
        """See Journal."""
        await self._writer.submit(lambda connection: leasing.retire(connection, host_id))

    async def lease(self, host: HostInfo, pool: str, limit: int, at: int, only: str | None = None) -> list[LeasedRun]:
        """See Journal. Free when nothing is queued: it only looks."""
        if only is None and not await self._engine.has_queued(pool):
            return []
        wanted = leasing.Wanted(pool, limit, only, self._limits)
        leased = await self._writer.submit(lambda c: leasing.lease(c, self._codec, host, wanted, at), silent=True)
        await self._prepare((run.request.tenant_id for run in leased), make=False)
        return leased

    def append(self, append: Append) -> asyncio.Future[Appended]:
        """See Journal. Submitted at once, in order; the future resolves when it is durable."""
        return self._appends.submit(append)

    async def news(self, host_id: str) -> dict[str, News]:
        """See Journal."""

        def read(connection: Connection) -> dict[str, News]:
            num = leasing.host_number(connection, host_id)
            rows = many(connection, sql("news_of_host"), (num,))
            return {
                run_id: leasing.load_news(connection, self._codec, (run, tenant_id, seq, cancel, held))
                for run, run_id, tenant_id, seq, cancel, held in rows
            }

        return await self._read(read)

    async def look(self, run_id: str) -> News:
        """See Journal."""

        def read(connection: Connection) -> News:
            query = "SELECT num, tenant_id, news, cancel, held FROM runs WHERE run_id = ?"
            num, tenant_id, seq, cancel, held = one(connection, query, (run_id,))
            return leasing.load_news(connection, self._codec, (num, tenant_id, seq, cancel, held))

        return await self._read(read)

    async def branches(self, run_id: str, key: str) -> list[Branch]:
        """See Journal."""
        return await self._read(lambda connection: reading.branches(connection, self._codec, run_id, key))

    async def tend(self, host: HostInfo, at: int, lease_seconds: float) -> int:
        """See Journal. Proof of death is sought outside the transaction."""
        if self._codec.stale:
            await asyncio.to_thread(self._codec.refresh)
        own_beat = self._beats.get(host.host_id)
        clock = self._engine.clock
        self._beats[host.host_id] = await self._writer.submit(
            lambda c: leasing.beat(c, host.host_id, clock(c)), silent=True
        )
        dead = await self._engine.judge(host, own_beat, lease_seconds)

        def write(connection: Connection) -> int:
            queued = len(connection.execute(sql("due"), (at,)).fetchall())
            return queued + sum(leasing.retire(connection, host_id) for host_id in dead)

        due = "SELECT 1 FROM runs WHERE wake_at <= ? LIMIT 1"
        if not dead and not await self._engine.glance(lambda connection: many(connection, due, (at,))):
            return 0
        return await self._writer.submit(write)

    async def has_news(self, host_id: str) -> bool:
        """Whether any run of this host may have news it has not seen; asked often."""
        return await self._engine.has_news(host_id)

    async def release(self, leased: LeasedRun, pool: str | None = None) -> None:
        """Give one lease back without writing to its journal: the run is queued again, in another pool if named."""
        values = (pool, leased.num, leased.epoch)
        await self._writer.submit(lambda connection: connection.execute(sql("release"), values).fetchall())

    async def reclaim(self, host_id: str, held: Collection[str]) -> int:
        """Queue again what this host holds beside `held` (run ids): leased by a commit whose answer was lost."""
        return await self._writer.submit(lambda connection: leasing.reclaim(connection, host_id, held))

    async def queues(self) -> list[QueueState]:
        """What waits, by pool: bounded, by index. Pools in which nothing waits are left out."""
        return await self._read(lambda c: [QueueState(*row) for row in many(c, sql("queues"))])

    def stream(self, deltas: Sequence[tuple[str, str, int, str]]) -> asyncio.Future[None]:
        """Keep pieces of streamed text: (run id, step key, attempt, text). They are not the journal."""

        def write(connection: Connection) -> None:
            for run_id, key, attempt, text in deltas:
                num, tenant_id = control.find(connection, run_id)
                sealed = self._codec.seal(tenant_id, text, f"delta:{run_id}")
                connection.execute(
                    "INSERT INTO deltas (run, key, attempt, sealed) VALUES (?, ?, ?, ?)", (num, key, attempt, sealed)
                )

        return self._writer.submit(write)

    async def deltas(self, run_id: str, after: int) -> list[tuple[int, str, int, str]]:
        """Streamed pieces of a run after a sequence number: (sequence, step key, attempt, text)."""
        query = (
            "SELECT deltas.seq, deltas.key, deltas.attempt, runs.tenant_id, deltas.sealed FROM deltas"
            " JOIN runs ON runs.num = deltas.run WHERE runs.run_id = ? AND deltas.seq > ?"
            " ORDER BY deltas.seq LIMIT 1000"
        )
        rows = await self._read(lambda connection: many(connection, query, (run_id, after)))
        return [
            (seq, key, attempt, self._codec.open(tenant, sealed, f"delta:{run_id}") or "")
            for seq, key, attempt, tenant, sealed in rows
        ]

    async def open_sessions(self, run_ids: Iterable[str]) -> set[tuple[str, str]]:
        """(run, server) of the capability sessions of these runs that are open."""
        return await self._read(lambda connection: sessions.open_of(connection, run_ids))

    def version(self) -> int:
        """A number that changes when any process has committed what others may wait for; some microseconds."""
        return self._engine.version()

    # -- everyone else: the port Control ---------------------------------------------------------------

    async def submit(self, runs: Sequence[NewRun]) -> list[RunRecord]:
        """See Control."""
        await self._prepare((new.request.tenant_id for new in runs), make=True)
        shared = [with_share(new, self._limits) for new in runs]
        encoded = [(new, encoding.encode_new(self._codec, new)) for new in shared]

        large = [(new.request.tenant_id, frame.blobs) for new, frames in encoded for frame in frames if frame.blobs]

        def prepare() -> None:
            for tenant_id, blobs in large:
                self._codec.keep(tenant_id, blobs)

        accept = partial(control.submit, runs=encoded, limits=self._limits)
        try:
            accepted = await self._writer.submit(accept, prepare if large else None, brief=len(runs) <= _FEW)
        except LimitReached as refusal:
            await self.accounts.refused(refusal.tenant_id, refusal.window, runs[0].at)
            raise
        return await self._read(lambda connection: [reading.record(connection, run_id) for run_id in accepted])

    async def resolve(self, request_id: str, status: str, by: str, at: int, value: Json = None) -> PendingRequest:
        """See Control."""
        said = control.Resolution(request_id, status, by, at, value)
        full_id = await self._writer.submit(lambda connection: control.resolve(connection, self._codec, said))
        return await self._read(lambda connection: reading.request(connection, self._codec, full_id))

    async def signal(self, run_id: str, name: str, value: Json, at: int) -> None:
        """See Control."""
        await self._writer.submit(lambda c: control.signal(c, self._codec, (run_id, name), value, at))

    async def cancel(self, run_id: str, by: str, at: int) -> int:
        """See Control."""
        found = await self.get(run_id)
        return await self._writer.submit(lambda c: control.cancel(c, self._codec, found.run_id, by, at))

    async def hold(self, run_id: str, held: bool) -> int:
        """See Control."""
        return await self._writer.submit(lambda c: steering.hold(c, run_id, held))

    async def retry(self, run_id: str, wanted: Retry) -> list[str]:
        """See Control."""
        return await self._writer.submit(lambda c: steering.retry(c, self._codec, run_id, wanted, self._limits))

    async def redrive(self, job_id: str, rows: Rows, wanted: Retry) -> Redriven:
        """Queue a page of the failed rows of a job again, in one transaction."""
        page = steering.Page(job_id, rows, self._limits)
        return await self._writer.submit(lambda c: steering.redrive(c, self._codec, page, wanted))

    async def sessions(self, query: SessionQuery) -> list[SessionRecord]:
        """See Control."""
        return await self._read(lambda connection: sessions.records(connection, query))

    async def session(self, session_id: str) -> SessionRecord:
        """See Control."""
        return await self._read(lambda connection: sessions.find(connection, session_id))

    async def close_session(self, session_id: str, by: str, at: int) -> SessionRecord:
        """See Control."""
        found = await self._writer.submit(lambda c: control.close_session(c, self._codec, session_id, by, at))
        return await self.session(found)

    async def get(self, run_id: str) -> RunRecord:
        """See Control."""
        return await self._read(lambda connection: reading.record(connection, run_id))

    async def result(self, run_id: str) -> Branch | None:
        """See Control."""
        return await self._read(lambda connection: reading.result(connection, self._codec, run_id))

    async def ended(self, run_ids: Sequence[str]) -> list[str]:
        """Which of these runs have ended."""
        query = "SELECT run_id FROM runs WHERE run_id IN (SELECT value FROM json_each(?)) AND final IS NOT NULL"
        ids = json.dumps(list(run_ids))
        return await self._read(lambda connection: [row[0] for row in many(connection, query, (ids,))])

    async def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """See Control."""
        return await self._read(lambda connection: reading.records(connection, query))

    async def requests(self, open_only: bool = True) -> list[PendingRequest]:
        """See Control."""
        return await self._read(lambda connection: reading.requests(connection, self._codec, open_only))

    async def request(self, request_id: str) -> PendingRequest:
        """One request; an unambiguous part of its id will do. UnknownName otherwise."""
        return await self._read(lambda connection: reading.find_request(connection, self._codec, request_id))

    async def asked(self, run_ids: Sequence[str] | None, most: int) -> tuple[list[PendingRequest], int]:
        """At most so many open requests (of these runs, or of all), oldest first, and how many there are."""
        return await self._read(lambda connection: trees.asked(connection, self._codec, run_ids, most))

    async def asked_below(self, root_run_id: str) -> list[PendingRequest]:
        """Open requests of a root and of everything below it, oldest first."""
        return await self._read(lambda connection: trees.asked_below(connection, self._codec, root_run_id))

    async def waiting(self, most: int) -> tuple[list[RunRecord], int]:
        """At most so many parked runs, oldest first, and how many there are."""
        return await self._read(lambda connection: trees.waiting(connection, most))

    async def below(self, run_id: str, most: int, deepest: int) -> RunTree:
        """A run and what is below it: at most so many runs and levels, what has not ended first."""
        return await self._read(lambda connection: trees.below(connection, run_id, most, deepest))

    async def lineage(self, run_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Records of these runs and of all above them, by id."""
        return await self._read(lambda connection: trees.lineage(connection, run_ids))

    async def groups(self, run_id: str) -> list[GroupState]:
        """The join state of each of a run's groups."""
        return await self._read(lambda connection: trees.groups(connection, run_id))

    async def inputs(self, run_ids: Sequence[str]) -> dict[str, Json]:
        """What these runs were given, by id."""
        return await self._read(lambda connection: trees.inputs(connection, self._codec, run_ids))

    async def recent(self, run_id: str) -> list[Frame]:
        """The frames of a run since its newest checkpoint, read in pages."""
        after = await self._read(lambda connection: trees.boundary(connection, run_id))
        return [frame async for frame in self.read(run_id, after)]

    async def dead_letters(self, parent_run_id: str | None = None, limit: int = 1_000) -> list[DeadLetter]:
        """Inputs and runs that could not be completed, oldest first."""
        return await self._read(lambda c: reading.dead_letters(c, self._codec, parent_run_id, limit))

    async def dead_inputs(self, job_id: str | None, number: int | None, limit: int) -> tuple[list[DeadInput], int]:
        """Refused inputs of a job (or of all, or the one of a number), newest first, and how many there are."""
        return await self._read(lambda c: dead.inputs(c, self._codec, job_id, number, limit))

    async def dead_runs(self, job_id: str | None, limit: int) -> tuple[list[RunRecord], int]:
        """Failed top-level runs and rows (or only the rows of a job), newest first, and how many there are."""
        return await self._read(lambda c: dead.runs(c, job_id, limit))

    async def job(self, run_id: str, key: str) -> JobState:
        """The join state of a job's rows while it runs."""
        return await self._read(lambda connection: reading.job(connection, run_id, key))

    async def rows(self, run_id: str, key: str, after: int, limit: int, ordered: bool) -> list[JobRow]:
        """Ended rows of a job after a place: their commit number, or (ordered) their index; in that order."""
        page = reading.Rows(run_id, key, after, limit, ordered)
        return await self._read(lambda connection: reading.rows(connection, self._codec, page))

    async def read(self, run_id: str, after: int = 0) -> AsyncIterator[Frame]:
        """See Control. Reads in pages, so that no read is long."""
        found = await self.get(run_id)
        while frames := await self._frames_of(found.run_id, after):
            for frame in frames:
                yield frame
            after = frames[-1].position

    async def _frames_of(self, run_id: str, after: int) -> list[Frame]:
        return await self._read(lambda connection: reading.frames_of(connection, self._codec, run_id, after, 200))

    async def fetch(self, tenant_id: str, content: Json) -> Json:
        """The content of a record that is only read when it is asked for; None when the tenant's key was destroyed."""
        return await asyncio.to_thread(self._codec.fetched, tenant_id, content)

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """See Control."""
        return await self._read(lambda connection: reading.tail(connection, self._codec, after_seq, limit))

    async def incarnation(self) -> str:
        """The id of this store: another one after a restore from a backup."""
        return self._engine.incarnation

    async def newest(self) -> int:
        """The newest commit's number: where a tail from now on begins."""
        return await self._read(reading.newest)

    async def hosts(self) -> list[tuple[str, str, int, str, str | None]]:
        """The hosts that are alive: (id, kind, pid, node, actor id)."""
        query = "SELECT host_id, kind, pid, node, actor_id FROM hosts WHERE state = 'alive' ORDER BY num"
        rows = await self._read(lambda connection: many(connection, query))
        return [(host_id, kind, pid, node, actor_id) for host_id, kind, pid, node, actor_id in rows]

    async def _prepare(self, tenant_ids: Iterable[str], make: bool) -> None:
        """Have the keys in hand for what is sealed on the loop."""
        if lacking := self._codec.lacks(tenant_ids):
            await asyncio.to_thread(self._codec.prepare, lacking, make)

    async def _read(self, read: Callable[[Connection], T]) -> T:
        if self._codec.stale:
            await asyncio.to_thread(self._codec.refresh)
        return await self._engine.read(read)
