"""The places of connections: one for each that is shared as its server's scope says, whether it is open or not.

Knows who shares a place and whether it is in use. Opens and closes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from retinue.sessions.mcp.connection import Connection
from retinue.sessions.mcp.orders import Order
from retinue.sessions.servers import Server

Key = tuple[str, ...]


@dataclass(eq=False)
class Slot:
    """The place of one connection. `used_at` and the like are times of the event loop; nobody finds it once it is
    `left`: what uses it still is the last to do so.
    """

    server: Server
    run_id: str | None
    connection: Connection | None = None
    opening: asyncio.Task[Connection] | None = None
    failures: int = 0
    not_before: float = 0.0
    opened_at: float = 0.0
    used_at: float = 0.0
    leases: int = 0
    left: bool = False

    @property
    def idle(self) -> bool:
        """Whether nobody uses it just now; calls that wait for a person do not."""
        busy = self.connection is not None and self.connection.inquiries.busy
        return not self.leases and self.opening is None and not busy

    @property
    def waits(self) -> bool:
        """Whether a call on it waits for a person."""
        return self.connection is not None and bool(self.connection.inquiries.calls)


def key_of(order: Order) -> Key:
    """Where the connection of a call is found: by its server and by who shares it."""
    owners = {"run": order.caller.run_id, "worker": order.caller.tenant_id, "shared": ""}
    return (order.server.name, order.server.scope, owners[order.server.scope])


def reads_on(connection: Connection) -> bool:
    """Whether another connection can read on what is under way on this one."""
    return any(pending.trail.last_event is not None for pending in connection.inquiries.calls)
