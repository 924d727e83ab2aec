"""What tests may expect of the PostgreSQL server they share: durable, to be crashed and frozen, gone at the end."""

from __future__ import annotations

import psutil
import psycopg
import pytest
from tests.doubles.postgres import PostgresServer
from tests.doubles.processes import python

SERVE = """
import sys
from tests.doubles.postgres import PostgresServer
with PostgresServer():
    print("serving", flush=True)
    sys.stdin.readline()
"""


def test_a_fresh_database_is_empty_and_durable(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.fresh()) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        durable = [connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit")]
    assert tables == (0,)
    assert durable == [("on",), ("on",)]


def test_what_was_committed_is_there_after_a_crash(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres.restart("immediate")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (1,)


def test_a_frozen_server_answers_nobody_until_it_goes_on(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    postgres.pause()
    try:
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(url, connect_timeout=2)
    finally:
        postgres.resume()
    psycopg.connect(url).close()


def name_of(process: psutil.Process) -> str:
    """Its name, also of one that ends at this moment."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.usefixtures("postgres")
def test_a_server_does_not_outlive_a_session_that_was_killed() -> None:
    with python(SERVE) as session:
        session.wait_for("serving")
        children = psutil.Process(session.process.pid).children(recursive=True)
        assert "postgres" in {name_of(child) for child in children}
        session.kill()
        _, alive = psutil.wait_procs(children, 30)
    assert alive == []
