"""Who serves a store now, by one short connection: for whoever has not opened it. Knows no runtime."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from retinue.runs.errors import StoreError
from retinue.store.postgres.opening import connect, identity
from retinue.store.postgres.pen import translate

_LIVING = """SELECT h.node, h.pid, h.pid_started, h.boot_id, h.kind, h.actor_id, extract(epoch FROM now()) - h.beat,
  (SELECT count(*) FROM runs WHERE host = h.num AND status = 'in_progress')
FROM hosts h WHERE h.state = 'alive' AND h.beat > extract(epoch FROM now()) - %s ORDER BY h.node, h.num"""
_PATIENCE = 10.0
"""Seconds that a server may be silent."""


class Serving(NamedTuple):
    """A host: its node's name, process id, the moment that started (s), the machine's boot id, its kind, its actor, for
    how long (s) it has been silent, and how many runs it holds."""

    node: str
    pid: int
    started: float
    boot_id: str
    kind: str
    actor_id: str | None
    silent: float
    holds: int


def hosts_of(url: str, silent: float) -> list[Serving]:
    """The hosts that have shown themselves within `silent` seconds, by the server's clock, in order of their nodes.

    StoreError when the server cannot be asked.
    """
    try:
        with connect(url, _PATIENCE) as connection:
            rows = connection.execute(_LIVING, (silent,)).fetchall()
    except psycopg.errors.UndefinedTable:  # nobody has opened the store yet
        return []
    except psycopg.Error as error:
        raise StoreError(f"{translate(error)} (store {identity(url)})") from None
    return [
        Serving(node, pid, started, boot, kind, actor, float(ago), holds)
        for node, pid, started, boot, kind, actor, ago, holds in rows
    ]
