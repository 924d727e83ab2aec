"""What can be told of a server and of the store in it without changing either: for whoever checks an installation.

Knows no settings but the address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from retinue.runs.errors import StoreError
from retinue.store.postgres.dialect import migrations
from retinue.store.postgres.opening import FILLING, connect, identity, schema_of
from retinue.store.postgres.pen import translate

_PATIENCE = 5.0
_ROOM = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,"
    " current_setting('server_version'), current_setting('server_version_num')::int / 10000"
)
_KEYS = "SELECT count(*), count(*) FILTER (WHERE get_byte(wrapped, 0) = 1) FROM keys"


@dataclass(frozen=True, slots=True)
class Server:
    """`known` is the newest schema of this version, `schema` that of the store (0: none); `filling`: by a copy.

    `apart`: seconds by which the server's clock is before this machine's. `connections`: how many it lets in.
    """

    place: str
    version: str
    major: int
    schema: int
    known: int
    filling: bool
    connections: int
    apart: float
    keys: int
    wrapped: int


def look(url: str, now: Callable[[], float]) -> Server:
    """Ask the server, over one connection; `now` is this machine's clock (Unix s).

    StoreError when it cannot be asked; no password is in it.
    """
    try:
        with connect(url, _PATIENCE) as connection:
            return _ask(url, connection, now)
    except psycopg.Error as error:
        raise StoreError(f"{translate(error)} (store {identity(url)})") from None


def _ask(url: str, connection: psycopg.Connection[Any], now: Callable[[], float]) -> Server:
    room = connection.execute(_ROOM).fetchone()
    schema = schema_of(connection)
    keys = connection.execute(_KEYS).fetchone() if schema else (0, 0)
    began = now()
    clock = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert room is not None and keys is not None and clock is not None
    return Server(
        place=identity(url),
        version=room[1],
        major=room[2],
        schema=schema,
        known=len(migrations()),
        filling=schema == FILLING,
        connections=room[0],
        apart=clock[0] - (began + now()) / 2,
        keys=keys[0],
        wrapped=keys[1],
    )
