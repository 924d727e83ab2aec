"""Probes of the PostgreSQL store by hand, without a host: what appends, ends, children, leases and looks cost.

CPU of the server is that of the sessions of one database, CPU of the client that of this process, its writer's thread
alone where it says so; all by the scheduler's clock. Server and client are on this machine. Knows nothing of the model.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from benchmarks.scale.probe import cpu_of
from tests.doubles.shapes import START, Owner, child_of, host, new_run, own, said

from retinue.runs.ownership import Spawn
from retinue.store.postgres.store import PostgresStore

WRITER = "retinue-writer"
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'retinue%'"
CONTENT = "x" * 100
BATCHES = (1, 10, 100, 400)


@dataclass(frozen=True)
class Used:
    """Seconds for one round: CPU of the server's sessions, of the writer's thread, of this whole process; and by the
    clock on the wall."""

    server: float
    writer: float
    client: float
    elapsed: float


class Meter:
    """Measures rounds of something done to a store."""

    def __init__(self, url: str) -> None:
        self._admin = psycopg.connect(url, autocommit=True)

    async def rounds(self, act: Callable[[], Awaitable[Any]], count: int) -> Used:
        """The mean of `count` rounds; one before them is not counted, nor are stale statistics."""
        self._admin.execute("ANALYZE")
        await act()
        before = self._read()
        for _ in range(count):
            await act()
        return Used(*((after - start) / count for after, start in zip(self._read(), before, strict=True)))

    def numbers(self) -> tuple[int, int]:
        """Bytes of write-ahead log ever written, and of this database."""
        row = self._admin.execute(
            "SELECT (pg_current_wal_lsn() - '0/0')::bigint, pg_database_size(current_database())"
        ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.close()

    def _read(self) -> tuple[float, float, float, float]:
        server = sum(cpu_of(pid) for (pid,) in self._admin.execute(SESSIONS))
        return server, writer_cpu(), time.process_time(), time.perf_counter()


def writer_cpu() -> float:
    """CPU seconds of the writer's threads of this process."""
    threads = [thread.native_id for thread in threading.enumerate() if thread.name == WRITER]
    return sum(int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) for number in threads) / 1e9


class Bench:
    """A store with a host of its own; each probe brings the runs it needs."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url)
        self.meter = Meter(url)
        self._host = host("probe")
        self._runs = 0

    async def open(self) -> None:
        """Register the host."""
        await self.store.register(self._host)

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()
        self.meter.close()

    async def owners(self, count: int) -> list[Owner]:
        """So many runs, leased."""
        self._runs += count
        names = [f"run{number}" for number in range(self._runs - count, self._runs)]
        await self.store.submit([new_run(name, CONTENT) for name in names])
        return [await own(self.store, name, self._host) for name in names]

    async def appends(self, size: int) -> Used:
        """A batch of so many appends, one of each of as many runs."""
        owners = await self.owners(size)

        async def act() -> None:
            await asyncio.gather(*(owner.append(said("step", CONTENT)) for owner in owners))

        return await self.meter.rounds(act, max(10, 1_000 // size))

    async def ends(self, size: int) -> Used:
        """A batch in which so many children of one parent end."""
        return await self.meter.rounds(await self._ending(size, 12), 11)

    async def _ending(self, size: int, rounds: int) -> Callable[[], Awaitable[None]]:
        [parent] = await self.owners(1)
        name = parent.leased.request.run_id
        children = tuple(child_of(name, "g", number) for number in range(size * rounds))
        await parent.append(said("all"), spawn=Spawn("g", children))
        leased = [await own(self.store, child.request.run_id, self._host) for child in children]

        async def act() -> None:
            batch = [leased.pop() for _ in range(size)]
            await asyncio.gather(*(child.finish(CONTENT) for child in batch))

        return act

    async def spawns(self, size: int) -> Used:
        """A transaction that makes so many children."""
        [parent] = await self.owners(1)
        name, made = parent.leased.request.run_id, 0

        async def act() -> None:
            nonlocal made
            children = tuple(child_of(name, "g", number) for number in range(made, made + size))
            made += size
            await parent.append(said("more"), spawn=Spawn("g", children))

        return await self.meter.rounds(act, 8)

    async def leases(self, size: int) -> Used:
        """A lease of so many of the runs that wait."""
        rounds = 10
        await self.store.submit(
            [new_run(f"lease{size}-{n}", CONTENT, pool="probe") for n in range(size * (rounds + 1))]
        )

        async def act() -> None:
            assert len(await self.store.lease(self._host, "probe", size, START)) == size

        return await self.meter.rounds(act, rounds)

    async def looks(self) -> Used:
        """A look for news of a host."""
        return await self.meter.rounds(lambda: self.store.news("nobody"), 300)

    async def tends(self, others: int) -> Used:
        """A round of tending beside so many hosts of other machines."""
        for number in range(others):
            await self.store.register(host(f"other{others}-{number}", boot_id="elsewhere"))
        return await self.meter.rounds(lambda: self.store.tend(self._host, START, 3_600), 20)

    async def bytes_of_appends(self) -> tuple[float, float]:
        """Bytes of (log, tables and indexes) for one append of a batch of 100, before anything is vacuumed."""
        owners = await self.owners(100)
        log, size = self.meter.numbers()
        for _ in range(100):
            await asyncio.gather(*(owner.append(said("step", CONTENT)) for owner in owners))
        log_after, size_after = self.meter.numbers()
        return (log_after - log) / 10_000, (size_after - size) / 10_000

    async def bytes_of_parked(self, count: int = 1_000) -> float:
        """Bytes of the database for a run that waits."""
        _, size = self.meter.numbers()
        for owner in await self.owners(count):
            await owner.park()
        return (self.meter.numbers()[1] - size) / count


async def probe_all(bench: Bench) -> dict[str, list[tuple[float, Used]]]:
    """Every probe, by its name: what it used at each size."""
    return {
        "append": [(size, await bench.appends(size)) for size in BATCHES],
        "end": [(size, await bench.ends(size)) for size in (1, 10, 100)],
        "spawn": [(size, await bench.spawns(size)) for size in (1, 10, 100, 500)],
        "lease": [(size, await bench.leases(size)) for size in (1, 10, 100)],
        "look": [(1, await bench.looks())],
        "tend": [(size, await bench.tends(size)) for size in (1, 300)],
    }


async def probe_bytes(bench: Bench) -> tuple[float, float, float]:
    """Bytes of (log of an append, tables of an append, a parked run)."""
    return *await bench.bytes_of_appends(), await bench.bytes_of_parked()


async def with_bench(url: str, probe: Callable[[Bench], Awaitable[Any]]) -> Any:
    """What a probe gives on a fresh database."""
    bench = Bench(url)
    await bench.open()
    try:
        return await probe(bench)
    finally:
        await bench.close()
