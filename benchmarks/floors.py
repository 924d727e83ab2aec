"""The floors: what the same disk and the same Ray do without an engine, measured in the same run.

Raw commits are 300-byte rows into SQLite (WAL, synchronous=FULL) one a transaction and 100 a transaction, and the same
into PostgreSQL with its defaults; plain Ray is one actor call for each child, spread over two actors, nothing durable.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw
import psycopg

from retinue.actors.quiet import prepare

prepare()

import ray  # noqa: E402 - Ray reads its environment when it is imported

_ROW = b"x" * 300


def raw_commits(folder: Path, rows_per_commit: int, seconds: float) -> float:
    """Rows per second committed by one writer."""
    connection = apsw.Connection(str(folder / f"raw-{rows_per_commit}.db"))
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE rows (num INTEGER PRIMARY KEY, body BLOB)")
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(rows_per_commit):
            connection.execute("INSERT INTO rows (body) VALUES (?)", (_ROW,))
        connection.execute("COMMIT")
        done += rows_per_commit
    connection.close()
    return done / elapsed


def raw_postgres_commits(url: str, rows_per_commit: int, seconds: float) -> float:
    """Rows per second committed by one writer, a statement and a round trip a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (num bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)")
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            connection.execute("INSERT INTO rows (body) SELECT unnest(%s::bytea[])", ([_ROW] * rows_per_commit,))
            done += rows_per_commit
    return done / elapsed


class Echo:
    """An actor that does nothing."""

    def child(self, number: int) -> int:
        """Give the number back."""
        return number


def plain_ray(count: int) -> float:
    """Seconds for `count` calls, one a child, over two warm actors of the running Ray."""
    actors = [ray.remote(Echo).options(num_cpus=0).remote() for _ in range(2)]
    ray.get([actor.child.remote(0) for actor in actors for _ in range(50)])
    started = time.perf_counter()
    total = sum(ray.get([actors[number % 2].child.remote(number) for number in range(count)]))
    elapsed = time.perf_counter() - started
    assert total == count * (count - 1) // 2
    for actor in actors:
        ray.kill(actor)
    return elapsed
