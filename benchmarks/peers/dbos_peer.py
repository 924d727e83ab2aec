"""The work in DBOS, on SQLite or on PostgreSQL: `dbos_peer.py sqlite | postgres`.

Ways (plain functions on threads, coroutines, a queue) have a short pilot and the fastest is measured. Chosen:
- SQLite: the file is WAL before DBOS opens it (its default is a rollback journal, half as fast); synchronous=FULL is
  SQLite's default. One pooled connection, as SQLite has one writer: 20, the default, spend themselves on its lock.
- PostgreSQL: a server of its own on this machine, reached by TCP, with its default durability (fsync and
  synchronous_commit are on); DBOS's default pool of 20.
- Results are polled every 10 ms instead of every second, and the queue too, so that no figure is a waiting time.
- A child is a workflow with a run of its own, as in Retinue; steps gathered inside one run would not survive alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dbos import DBOS
from measure import (
    CHILDREN,
    PAYLOAD,
    PILOT_RUNS,
    PILOT_STEPS,
    SEQUENTIAL,
    STEPS,
    Stopwatch,
    counts_within_the_limit,
    report,
    runs_within_the_limit,
)
from servers import given_server, postgres_bytes
from tests.doubles.postgres import NoServer

POLL = 0.01  # seconds
PILOT_CHILDREN = 100
THREADS = 32  # that run workflows: more of them only wait for a connection
QUEUE = "children"


@DBOS.step()
def sync_step(number: int) -> str:
    """A no-op step."""
    return PAYLOAD


@DBOS.step()
async def async_step(number: int) -> str:
    """A no-op step."""
    return PAYLOAD


@DBOS.workflow()
def sync_flow(count: int) -> str:
    """One step after the other."""
    payload = ""
    for number in range(count):
        payload = sync_step(number)
    return payload


@DBOS.workflow()
async def async_flow(count: int) -> str:
    """The same as a coroutine."""
    payload = ""
    for number in range(count):
        payload = await async_step(number)
    return payload


@DBOS.workflow()
def sync_child(number: int) -> int:
    """A no-op child."""
    return number


@DBOS.workflow()
async def async_child(number: int) -> int:
    """A no-op child."""
    return number


@DBOS.workflow()
def fan_out_on_threads(count: int) -> int:
    """Children started at once on threads."""
    handles = [DBOS.start_workflow(sync_child, number) for number in range(count)]
    return sum(handle.get_result(polling_interval_sec=POLL) for handle in handles)


@DBOS.workflow()
def fan_out_on_queue(count: int) -> int:
    """Children through a queue, which is what another process could take them from."""
    handles = [DBOS.enqueue_workflow(QUEUE, sync_child, number) for number in range(count)]
    return sum(handle.get_result(polling_interval_sec=POLL) for handle in handles)


@DBOS.workflow()
async def fan_out_of_coroutines(count: int) -> int:
    """Children as coroutines on the parent's loop."""
    handles = [await DBOS.start_workflow_async(async_child, number) for number in range(count)]
    return sum([await handle.get_result(polling_interval_sec=POLL) for handle in handles])


def threads(runs: int, steps: int) -> float:
    """Seconds for concurrent runs on threads; one run alone needs none."""
    with Stopwatch() as watch:
        if runs == 1:
            sync_flow(steps)
        else:
            handles = [DBOS.start_workflow(sync_flow, steps) for _ in range(runs)]
            for handle in handles:
                handle.get_result(polling_interval_sec=POLL)
    return watch.seconds


def coroutines(runs: int, steps: int) -> float:
    """Seconds for concurrent runs on one loop."""

    async def all_of_them() -> None:
        await asyncio.gather(*(async_flow(steps) for _ in range(runs)))

    with Stopwatch() as watch:
        asyncio.run(all_of_them())
    return watch.seconds


def fan_out(way: Callable[[int], int], count: int) -> float:
    """Seconds for `count` children of one parent."""
    with Stopwatch() as watch:
        total = asyncio.run(way(count)) if way is fan_out_of_coroutines else way(count)
    assert total == count * (count - 1) // 2
    return watch.seconds


@contextmanager
def store_of(engine: str) -> Iterator[tuple[str, int, Callable[[], int]]]:
    """(address, connections, the store's bytes as a function) of a fresh store."""
    if engine == "postgres":
        with given_server() as server:
            address = server.fresh()
            yield address.replace("postgresql:", "postgresql+psycopg:"), 20, lambda: postgres_bytes(address)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dbos.sqlite"
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            yield f"sqlite:///{path}", 1, lambda: sqlite_bytes(path)


def sqlite_bytes(path: Path) -> int:
    """Bytes of the file after what the log holds was moved into it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def measure(engine: str, size: Callable[[], int]) -> None:
    """Pilots, then the figures."""
    ways = (threads, coroutines)
    one = {way: min(way(1, PILOT_STEPS), way(1, PILOT_STEPS)) for way in ways}  # twice: a noisy try must not choose
    many = {way: min(way(PILOT_RUNS, STEPS), way(PILOT_RUNS, STEPS)) for way in ways}
    wide = {way: fan_out(way, PILOT_CHILDREN) for way in (fan_out_on_threads, fan_out_on_queue, fan_out_of_coroutines)}
    pilots = {way.__name__: seconds for figures in (one, many, wide) for way, seconds in figures.items()}
    print(f"pilots of {engine}, seconds: {pilots}", file=sys.stderr)
    way, before = min(one, key=lambda way: one[way]), size()
    seconds = way(1, SEQUENTIAL)
    report(f"dbos_{engine}_steps_1_run", SEQUENTIAL / seconds, "1/s", way.__name__)
    report(f"dbos_{engine}_bytes_per_step", (size() - before) / SEQUENTIAL, "B", way.__name__)
    way = min(many, key=lambda way: many[way])
    runs = runs_within_the_limit(PILOT_RUNS, many[way])
    report(f"dbos_{engine}_steps_1000_runs", runs * STEPS / way(runs, STEPS), "1/s", f"{way.__name__}, {runs:,} runs")
    parent = min(wide, key=lambda parent: wide[parent])
    how = parent.__name__.replace("_", " ")
    seconds = fan_out(parent, CHILDREN[0])
    report(f"dbos_{engine}_fanout_{CHILDREN[0]}", seconds, "s", how)
    for count in counts_within_the_limit(seconds):
        report(f"dbos_{engine}_fanout_{count}", fan_out(parent, count), "s", how)


def main() -> None:
    """Launch DBOS on the store named on the command line, measure, leave nothing behind."""
    engine = sys.argv[1]
    try:
        with store_of(engine) as (address, connections, size):
            DBOS(
                config={
                    "name": "peer",
                    "system_database_url": address,
                    "sys_db_pool_size": connections,
                    "max_executor_threads": THREADS,
                    "log_level": "ERROR",
                }
            )
            DBOS.launch()
            DBOS.register_queue(QUEUE, polling_interval_sec=POLL)
            sync_flow(5)
            measure(engine, size)
            DBOS.destroy()
    except NoServer as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
