"""What `retinue doctor` says of the store: where it is and, for a server, whether it is fit to be one.

Pure, but for the one look at the server. Knows no other check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from retinue.host.opening import look_at_server
from retinue.host.settings import Settings
from retinue.runs.errors import RetinueError

if TYPE_CHECKING:
    from retinue.store.postgres.looking import Server

_OLDEST = 14
_APART = 2.0
"""Seconds that clocks may differ: timers and deadlines are set by those of the nodes, leases by the server's."""
_OTHERS = 3
"""Processes beside the actors: supervisor, traces, a command."""
_POOL = 4
"""Actors of a pool of its own at most, where nothing else is said."""
_PER_PROCESS = 6
"""Connections that a process may open for one store: to write, to read (four), to hear of news."""


class Unfit(RetinueError):
    """The store cannot be used as it is; the message holds the remedy."""


def store(settings: Settings) -> str:
    """Where the store is; a server's version, schema and clock."""
    server = look_at_server(settings)
    if server is None:
        return f"SQLite in {settings.data_folder}: for one machine"
    if server.major < _OLDEST:
        raise Unfit(f"PostgreSQL {server.version} at {server.place} is too old: upgrade it to {_OLDEST} or newer")
    if abs(server.apart) > _APART:
        raise Unfit(
            f"the clock of {server.place} is {abs(server.apart):,.1f} s {'before' if server.apart > 0 else 'behind'} "
            "this machine's: let both follow a time server, timers and leases go by them"
        )
    return f"PostgreSQL {server.version} at {server.place}, {_schema(server)}, clocks {abs(server.apart):.2f} s apart"


def keys(settings: Settings) -> str:
    """Whether who has the database alone can open what is in it."""
    server = look_at_server(settings)
    if server is None:
        return f"files in {settings.data_folder / 'keys'}, mode 0600"
    plain = server.keys - server.wrapped
    if settings.store_key is None or plain:
        some = f"{plain:,} of {server.keys:,} keys are" if server.keys else "keys will be"
        return (
            f"warning: {some} in the database as they are, so who has it or a dump of it reads all contents; "
            "name a `store_key` and copy the store into an empty database (`retinue store copy`)"
        )
    return f"{server.wrapped:,} keys, all wrapped with `store_key`"


def connections(settings: Settings) -> str:
    """Whether the server lets in as many as this project may need."""
    server = look_at_server(settings)
    if server is None:
        return "none: every process opens the file itself"
    needed = _processes(settings) * _PER_PROCESS
    said = f"{server.connections:,} are let in by the server, {needed:,} needed when all actors live"
    if needed > server.connections:
        raise Unfit(f"{said}: raise its max_connections, or lower `actors`; a pooler that shares sessions will not do")
    return said


STORE_CHECKS: dict[str, Callable[[Settings], str]] = {
    "store": store,
    "store keys": keys,
    "connections": connections,
}


def _schema(server: Server) -> str:
    if server.filling:
        raise Unfit(f"a copy into {server.place} has not ended: repeat the command that began it, until it has")
    if server.schema > server.known:
        raise Unfit(
            f"the store at {server.place} has schema {server.schema}, this version knows {server.known}: "
            "use the newer Retinue"
        )
    if server.schema == 0:
        return "no store in it yet: the first process that opens it makes one"
    return f"schema {server.schema}" + ("" if server.schema == server.known else f", to be made {server.known}")


def _processes(settings: Settings) -> int:
    actors = settings.actors
    usual = {"runs": actors.runs, "workers": actors.workers}
    most = {name: pool.max or pool.min or usual.get(name, _POOL) for name, pool in actors.pools.items()}
    return sum((usual | most).values()) + _OTHERS
