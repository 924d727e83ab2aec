"""Raw probes of a PostgreSQL server: what a commit, a row that all write and a NOTIFY cost there, without an engine.

The statements have the shape of the store's appends: one guarded UPDATE of the runs of a batch and one INSERT into a
journal, both over columns. The server's CPU is read from /proc, so it runs on this machine. Knows no Retinue.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg

TABLES = """
CREATE TABLE run (num bigint PRIMARY KEY, position bigint NOT NULL, epoch bigint NOT NULL, news bigint NOT NULL);
CREATE TABLE journal (seq bigserial PRIMARY KEY, run bigint NOT NULL, position bigint NOT NULL, epoch bigint NOT NULL,
  facts bytea NOT NULL, sealed bytea NOT NULL, UNIQUE (run, position));
CREATE TABLE fan_out (num bigint PRIMARY KEY, pending bigint NOT NULL);
INSERT INTO fan_out VALUES (1, 0);
"""
FENCE = (
    "UPDATE run SET position = position + 1 FROM unnest(%s::bigint[]) AS w (num) WHERE run.num = w.num AND epoch = 1"
    " RETURNING run.num, news"
)
INSERT = (
    "INSERT INTO journal (run, position, epoch, facts, sealed) SELECT run, position, 1, facts, sealed"
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[]) AS w (run, position, facts, sealed)"
)
SETTLE = "UPDATE fan_out SET pending = pending - %s WHERE num = 1"
FACTS, SEALED = b"f" * 200, b"s" * 150
RUNS_EACH = 1_000
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """`writers` processes, each with one transaction of `rows` appends in flight; `settles`: all hit one row first."""

    writers: int
    rows: int
    settles: bool = False
    seconds: float = 1.5


@dataclass(frozen=True)
class Seen:
    """What a load did: transactions per second, CPU seconds of the server and of the client per transaction, and the
    share of the machine that others used meanwhile."""

    commits: float
    server_cpu: float
    client_cpu: float
    others: float


def prepare(url: str) -> None:
    """The tables of the probes, in an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute("INSERT INTO run SELECT n, 0, 1, 0 FROM generate_series(0, 99999) AS n")
        connection.execute("VACUUM ANALYZE")


def fsync_seconds(folder: Path, rounds: int = 400) -> float:
    """Median seconds to write 8 KiB and flush it to the disk under `folder`."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"\0" * (8_192 * rounds))
        file.flush()
        os.fsync(file.fileno())
        times = []
        for number in range(rounds):
            started = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 8_192, 8_192 * number)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def round_trip(url: str, rounds: int = 3_000) -> float:
    """Median seconds of the shortest statement there is."""
    with psycopg.connect(url, autocommit=True) as connection:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            connection.execute("SELECT 1", prepare=True)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def run_load(url: str, load: Load) -> Seen:
    """The load, all writers at once, each a process of its own."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(load.writers), context.SimpleQueue()
    writers = [
        context.Process(target=_write, args=(url, load, number, start, answers)) for number in range(load.writers)
    ]
    for writer in writers:
        writer.start()
    parts = [answers.get() for _ in writers]
    for writer in writers:
        writer.join(30)
    done, elapsed = sum(part[0] for part in parts), statistics.mean(part[1] for part in parts)
    server, client = (sum(part[place] for part in parts) for place in (2, 3))
    busy = statistics.mean(part[4] for part in parts)
    others = max(0.0, busy - server - client) / (elapsed * (os.cpu_count() or 1))
    return Seen(done / elapsed, server / done, client / done, others)


def _write(url: str, load: Load, number: int, start: Barrier, answers: Any) -> None:
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        place = number * RUNS_EACH
        for _ in range(20):
            _transaction(connection, load, place)
        start.wait(60)
        pid, done, position = connection.info.backend_pid, 0, place
        server, client, busy, started = cpu_of(pid), time.process_time(), busy_seconds(), time.perf_counter()
        while (elapsed := time.perf_counter() - started) < load.seconds:
            _transaction(connection, load, position)
            position = place + (position - place + load.rows) % RUNS_EACH
            done += 1
        answers.put((done, elapsed, cpu_of(pid) - server, time.process_time() - client, busy_seconds() - busy))


def _transaction(connection: psycopg.Connection[Any], load: Load, first: int) -> None:
    """BEGIN, the appends and COMMIT in one pipeline: one round trip."""
    runs, stamp = list(range(first, first + load.rows)), time.perf_counter_ns()
    positions = list(range(stamp, stamp + load.rows))
    with connection.pipeline():
        connection.execute("BEGIN")
        if load.settles:
            connection.execute(SETTLE, (load.rows,))
        connection.execute(FENCE, (runs,), binary=True)
        connection.execute(INSERT, (runs, positions, [FACTS] * load.rows, [SEALED] * load.rows), binary=True)
        connection.execute("COMMIT")


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / TICK


def cpu_of(pid: int) -> float:
    """CPU seconds a process of one thread has used, by the scheduler's own clock."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def notify_cpu(url: str, listeners: int, rounds: int = 2_000) -> float:
    """Server CPU seconds of one NOTIFY, those of the sessions that listen included."""
    sessions = [psycopg.connect(url, autocommit=True) for _ in range(listeners)]
    try:
        for session in sessions:
            session.execute("LISTEN probe")
        pids = [session.info.backend_pid for session in sessions]
        with psycopg.connect(url, autocommit=True) as connection:
            before = sum(map(cpu_of, pids))
            own = _server_cpu(connection, rounds, lambda: connection.execute("NOTIFY probe"))
            return own + (sum(map(cpu_of, pids)) - before) / rounds
    finally:
        for session in sessions:
            session.close()


def _server_cpu(connection: psycopg.Connection[Any], rounds: int, act: Callable[[], object]) -> float:
    before = cpu_of(connection.info.backend_pid)
    for _ in range(rounds):
        act()
    return (cpu_of(connection.info.backend_pid) - before) / rounds


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(value at nothing, slope) of the straight line nearest to the points, relative errors weighing alike."""
    weights = [1 / (value * value) for _, value in points]
    total = sum(weights)
    mean_x = sum(weight * x for weight, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(weight * y for weight, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(weight * (x - mean_x) ** 2 for weight, (x, _) in zip(weights, points, strict=True))
    slope = sum(weight * (x - mean_x) * (y - mean_y) for weight, (x, y) in zip(weights, points, strict=True)) / spread
    return max(0.0, mean_y - slope * mean_x), slope
