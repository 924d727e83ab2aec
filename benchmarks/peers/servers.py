"""The PostgreSQL server of a comparison: one for all sides of it, each with a new database.

Plain standard library beside psycopg, as it runs in the peers' environment as well as in Retinue's; knows no engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from tests.doubles.postgres import PostgresServer

VARIABLE = "COMPARISON_POSTGRES"
"""Names the address of the server that runs already."""


@dataclass(frozen=True)
class Given:
    """A server that somebody else started."""

    url: str

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = f"side_{os.urandom(6).hex()}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"{self.url.rpartition('/')[0]}/{name}"


@contextmanager
def given_server() -> Iterator[Given]:
    """The comparison's server, or, for a script that is started alone, one of its own."""
    url = os.environ.get(VARIABLE)
    if url is not None:
        yield Given(url)
        return
    with PostgresServer() as server:
        yield Given(server.fresh())


def postgres_bytes(url: str) -> int:
    """Bytes of a database's tables and indexes."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])
