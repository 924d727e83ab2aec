"""Who serves a store now, by one short connection: for whoever has not opened it. Knows no runtime."""

from __future__ import annotations

import psycopg

from retinue.runs.errors import StoreError
from retinue.store.postgres.opening import connect, identity
from retinue.store.postgres.pen import translate

_NEWEST = """SELECT node, pid, pid_started, boot_id FROM hosts
WHERE state = 'alive' AND kind = %s AND beat > extract(epoch FROM clock_timestamp()) - %s ORDER BY num LIMIT 1"""

_PATIENCE = 5.0
Serving = tuple[str, int, float, str]
"""Of a host its node's name, process id, the moment that started (s) and the machine's boot id."""


def host_of(url: str, kind: str, silent: float) -> Serving | None:
    """A host of a kind that has shown itself within `silent` seconds, by the server's clock; None when none has.

    StoreError when the server cannot be asked.
    """
    try:
        with connect(url, _PATIENCE) as connection:
            row = connection.execute(_NEWEST, (kind, silent)).fetchone()
    except psycopg.errors.UndefinedTable:  # nobody has opened the store yet
        return None
    except psycopg.Error as error:
        raise StoreError(f"{translate(error)} (store {identity(url)})") from None
    return None if row is None else (row[0], row[1], row[2], row[3])
