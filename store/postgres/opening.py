"""Opening a PostgreSQL store: the address, the settings of a connection, migrations.

A password is a reference, `${NAME}`, to a variable of the environment, taken in by the process that connects.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

import psycopg
from psycopg import conninfo, errors

from retinue.runs.errors import SchemaMismatch, StoreError
from retinue.store.liveness import Owner, boot_id, current_owner
from retinue.store.objects import resolve
from retinue.store.postgres.connection import Patient
from retinue.store.postgres.dialect import migrations
from retinue.store.postgres.pen import translate
from retinue.store.postgres.texts import take_any_text

CONNECT_SECONDS = 5
_SETTINGS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_OPTIONS = {"lock_timeout": 0.5, "idle_in_transaction_session_timeout": 1.0, "statement_timeout": 2.0}
"""What the server ends by itself, in patiences; who hears nothing for three of them gives the connection up."""
# The server's side of the connection: while it waits for the rest of a pipeline it has none of the bounds above, and
# keeps the row locks of a client that was cut off until TCP misses it.
_MISSED = {"tcp_keepalives_idle": 2, "tcp_keepalives_interval": 1, "tcp_keepalives_count": 3, "tcp_user_timeout": 5_000}
BY_INDEX = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
"""For a connection whose every statement touches a few rows by index: the planner takes a column of values for ten, and
a young table for an empty one."""
_REFERENCE = re.compile(r"\$\{\w+\}")
FILLING = 1_000_000_000
"""The schema of a store that is being filled by a copy: no process writes one."""
_MIGRATING = 4_611_686_018_427_387_903
"""The advisory lock of whoever migrates."""


def identity(url: str) -> str:
    """Which store it is, without who asks: host, port and database."""
    parts = conninfo.conninfo_to_dict(_REFERENCE.sub("", url))
    return f"{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def connect(url: str, patience: float, options: str = "") -> psycopg.Connection[Any]:
    """A connection as every user of the store needs it. psycopg.OperationalError when there is none."""
    connection = Patient.connect(**parameters(url, patience, options))
    configure(connection, patience)
    return connection


def configure(connection: Patient, patience: float) -> None:
    """Make a connection of `parameters` ready."""
    connection.longest = 3 * patience
    take_any_text(connection)


def parameters(url: str, patience: float, options: str = "") -> dict[str, Any]:
    """How to connect, for psycopg. ConfigError when the address refers to a variable that is not set."""
    given = conninfo.conninfo_to_dict(resolve(url, "store"))
    bounds = [f"-c {name}={int(part * patience * 1_000)}" for name, part in _OPTIONS.items()]
    bounds += [f"-c {name}={value}" for name, value in _MISSED.items()]
    given["options"] = " ".join(["-c jit=off", *bounds, options, str(given.get("options", ""))])
    return _SETTINGS | {"application_name": session_name(current_owner(), boot_id())} | given | {"autocommit": True}


def session_name(owner: Owner, boot: str) -> str:
    """What the server calls the sessions of a process, so that others can end them when it is dead, and no others."""
    when = f"{boot} {owner.started:.2f}"
    return f"retinue {owner.pid}@{blake2b(when.encode(), digest_size=6).hexdigest()}"


def migrate(url: str, patience: float) -> str:
    """Bring the database to this version's schema, one transaction a step; returns the store's incarnation."""
    try:
        with connect(url, patience) as connection:
            return _migrate(connection)
    except psycopg.Error as error:
        said = translate(error)
        raise StoreError(f"{said} (store {identity(url)})") from None


def _migrate(connection: psycopg.Connection[Any]) -> str:
    steps = migrations()
    found = schema_of(connection)
    if found < len(steps):
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATING,))
        for number in range(schema_of(connection), len(steps)):
            with connection.transaction():
                if number:
                    connection.execute("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE")
                connection.execute(steps[number])
                connection.execute(
                    "INSERT INTO meta (name, value)"
                    " VALUES ('schema', %s), ('incarnation', md5(gen_random_uuid()::text))"
                    " ON CONFLICT (name) DO UPDATE SET value ="
                    " CASE meta.name WHEN 'schema' THEN excluded.value ELSE meta.value END",
                    (str(number + 1),),
                )
        connection.execute("SELECT pg_advisory_unlock(%s)", (_MIGRATING,))
    elif found == FILLING:
        raise StoreError("a copy into this store has not ended: repeat the command that began it, until it has")
    elif found > len(steps):
        raise SchemaMismatch(f"the store has schema {found}, this version knows {len(steps)}: use the newer Retinue")
    row = connection.execute("SELECT value FROM meta WHERE name = 'incarnation'").fetchone()
    assert row is not None
    return str(row[0])


def schema_of(connection: psycopg.Connection[Any]) -> int:
    """The schema version of a database; 0 where there is no store, FILLING while a copy fills it."""
    try:
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    except errors.UndefinedTable:
        return 0
    return int(row[0]) if row else 0
