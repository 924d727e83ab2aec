"""All connections of one process: made when they are needed, shared as their servers' scopes say, closed when idle.

Implements `sessions.connections.Connections`. They are caches: nothing of a run is lost with them but what a server
keeps nowhere else. Owns how many there are, who shares them and when another is tried. Knows no journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping

import mcp_types as types

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.errors import EffectError, TransientError
from retinue.runs.sessions import Link, Pause, Resumption
from retinue.sessions.connections import Listing, Pinned, RemoteResult
from retinue.sessions.mcp.calls import Conversation, StreamEnded
from retinue.sessions.mcp.children import Guardian
from retinue.sessions.mcp.connection import Connection, Restored
from retinue.sessions.mcp.faults import Forgotten
from retinue.sessions.mcp.handshake import Known
from retinue.sessions.mcp.orders import Order
from retinue.sessions.mcp.pending import Pending
from retinue.sessions.mcp.slots import Key, Slot, key_of, reads_on
from retinue.sessions.mcp.tokens import StreamToken, TaskToken, unpack
from retinue.sessions.servers import Server

MAX_CONNECTIONS = 256
"""At once in one process."""

BACKOFF_FIRST, BACKOFF_MOST = 0.5, 10.0
"""Seconds before a server that could not be reached is tried again: doubled with each failure."""

SHORT_LIFE = 5.0
"""Seconds: a connection that ends sooner counts as a failure to connect."""

CLOSE_ALL = 8.0
"""Seconds for closing everything."""

SWEEP = 15.0
"""Seconds between looks for idle connections, at most."""

DRAIN = 600.0
"""Seconds that calls have to end on a connection that is given to no further ones."""

READ_ON_AGAIN = 1.0
"""Seconds before a stream that ended early is read on."""

LIBRARY_LOGS = ("client", "mcp.client", "mcp.shared")
"""Logs of the SDK's client: they hold what servers wrote and the ends of connections, which are told as errors here."""

Use = Callable[[Connection], Awaitable[RemoteResult | Pause]]
"""What is done with a connection."""


class McpConnections:
    """The connections of one process and event loop. `environ` is where references to secrets are looked up."""

    def __init__(self, environ: Mapping[str, str], *, most: int = MAX_CONNECTIONS) -> None:
        for name in LIBRARY_LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._environ = environ
        self._most = most
        self._slots: dict[Key, Slot] = {}
        self._streams: dict[str, Connection] = {}
        self._known: dict[str, tuple[Server, Known]] = {}
        self._guardian = Guardian()
        self._closing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def list_tools(self, server: Server) -> Listing:
        """All tools of a server, over a connection of their own."""
        connection = Connection(server, self._environ, self._guardian)
        try:
            await connection.open()
            return await connection.listed()
        finally:
            await connection.close()

    async def call(
        self, server: Server, tool: str, arguments: dict[str, Json], caller: Caller, link: Link, pins: Pinned | None
    ) -> RemoteResult | Pause:
        """Call a tool, or go on with a call as the link says. See `sessions.connections.Connections`.

        In a call that goes on, `not_made` says that it was not gone on with: its token is as good as before.
        """
        order = Order(server, tool, arguments, caller)
        if link.resumption is not None:
            return await self._go_on(order, link, link.resumption, pins)
        stale = self._find(order)
        if stale is not None:
            await stale[1].stop()
        return await self._on_good_lease(order, link, lambda on: Conversation(on, order, link).begin(pins))

    async def release(self, run_id: str, ended: bool) -> None:
        """What only this run used is closed when it ended, else when it is idle."""
        if ended:
            await self._give_up(*self._take_off(run_id))

    def end_session(self, run_id: str, server: str) -> None:
        """What only this run used of a server is closed; whoever uses it still is the last to do so."""
        self._track(self._give_up(*self._take_off(run_id, server)))

    def held_sessions(self) -> set[tuple[str, str]]:
        """Runs, and the servers that they have a connection of their own with, or a call that nobody waits for."""
        own = {(slot.run_id, slot.server.name) for slot in self._slots.values() if slot.run_id is not None}
        return own | {
            (pending.run_id, connection.server.name)
            for connection in self.connections
            for pending in connection.inquiries.calls
            if pending.link is None
        }

    async def close(self) -> None:
        """Close all of them, within `CLOSE_ALL` seconds; what is left of server processes is killed."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for key, slot in list(self._slots.items()):
            self._retire(key, slot)
        for connection in self._streams.values():
            self._shut(connection, keep_session=True)
        self._streams.clear()
        try:
            if self._closing:
                _, late = await asyncio.wait(self._closing, timeout=CLOSE_ALL)
                for task in late:
                    task.cancel()
        finally:
            await self._guardian.close()

    # -- calls -------------------------------------------------------------------------------------------

    async def _on_good_lease(self, order: Order, link: Link, use: Use) -> RemoteResult | Pause:
        """A connection that turns out to be no longer good is replaced, once."""
        for again in (True, False):
            try:
                return await self._on_lease(order, use)
            except Forgotten as error:
                link.lost("expired")
                if not again:
                    raise
                self._replace(order, error.connection)
        raise AssertionError("the second try returns or raises")

    async def _go_on(
        self, order: Order, link: Link, resumption: Resumption, pins: Pinned | None
    ) -> RemoteResult | Pause:
        found = self._find(order)
        if found is not None:
            connection, pending = found
            return await self._answered(
                connection, Conversation(connection, order, link, pending).answer(resumption.replies)
            )
        if resumption.token is None:
            link.lost("closed")
            problem = f"{order.where}: the connection that its question came over is gone; the call may have happened."
            raise TransientError(problem, code="lost")
        token = unpack(resumption.token)
        replies = resumption.replies
        if isinstance(token, StreamToken):
            return await self._read_on(order, link, token, resumption)
        if isinstance(token, TaskToken):
            return await self._on_lease(order, lambda on: Conversation(on, order, link).resume_task(token, replies))
        return await self._on_good_lease(
            order, link, lambda on: Conversation(on, order, link).retry(token, replies, pins)
        )

    async def _read_on(
        self, order: Order, link: Link, token: StreamToken, resumption: Resumption
    ) -> RemoteResult | Pause:
        """A new connection for each try: within one, an abandoned stream moves on past the answer."""
        until = asyncio.get_running_loop().time() + order.seconds
        while True:
            said = types.InitializeResult.model_validate(token.initialized, by_name=False)
            restored = Restored(token.session_id, said)
            connection = Connection(order.server, self._environ, self._guardian, restored=restored)
            await connection.open()
            self._streams[order.caller.key] = connection
            try:
                way = Conversation(connection, order, link).resume_stream(token, resumption.replies)
                return await self._answered(connection, way)
            except StreamEnded as ended:
                if asyncio.get_running_loop().time() + READ_ON_AGAIN > until:
                    raise
                token = token.model_copy(update={"event_id": ended.event_id or token.event_id})
            await asyncio.sleep(READ_ON_AGAIN)

    async def _answered(self, connection: Connection, way: Awaitable[RemoteResult | Pause]) -> RemoteResult | Pause:
        """Go on with a call on its own connection; one that was made for the call alone ends with it."""
        slot = next((slot for slot in self._slots.values() if slot.connection is connection), None)
        if slot is not None:
            slot.leases += 1
        try:
            return await way
        finally:
            if slot is not None:
                slot.leases -= 1
                slot.used_at = asyncio.get_running_loop().time()
                self._shut_if_left(slot)
            self._shut_stream(connection)

    def _find(self, order: Order) -> tuple[Connection, Pending] | None:
        for connection in self.connections:
            pending = connection.inquiries.find(order.caller.key) if connection.alive else None
            if pending is not None and connection.server.name == order.server.name:
                return connection, pending
        return None

    @property
    def connections(self) -> list[Connection]:
        """All that are open."""
        leased = [slot.connection for slot in self._slots.values() if slot.connection is not None]
        return [*leased, *self._streams.values()]

    # -- leases ------------------------------------------------------------------------------------------

    async def _on_lease(self, order: Order, use: Use) -> RemoteResult | Pause:
        slot = self._slot(order)
        slot.leases += 1
        try:
            return await use(await self._connected(slot))
        finally:
            slot.leases -= 1
            slot.used_at = asyncio.get_running_loop().time()
            self._shut_if_left(slot)

    def _slot(self, order: Order) -> Slot:
        if self._closed:
            raise TransientError(f"{order.where} was not called: this process is closing.", code="not_made")
        key = key_of(order)
        slot = self._slots.get(key)
        if slot is not None and slot.server != order.server:
            self._retire(key, slot)
            slot = None
        if slot is None:
            self._make_room(order)
            run_id = order.caller.run_id if order.server.scope == "run" else None
            slot = self._slots[key] = Slot(order.server, run_id)
            self._watch()
        return slot

    def _make_room(self, order: Order) -> None:
        if len(self._slots) < self._most:
            return
        idle = [(slot.used_at, key) for key, slot in self._slots.items() if slot.idle and not slot.waits]
        if not idle:
            problem = f"all {self._most} connections of this process are in use"
            raise TransientError(f"{order.where} was not called: {problem}. Try later.", code="saturated")
        key = min(idle)[1]
        self._retire(key, self._slots[key])

    async def _connected(self, slot: Slot) -> Connection:
        if slot.connection is not None and slot.connection.alive:
            return slot.connection
        if slot.opening is None:
            left = slot.not_before - asyncio.get_running_loop().time()
            if left > 0:
                problem = f"server {slot.server.name!r} could not be reached {slot.failures} times"
                raise TransientError(f"{problem}; next try in {left:.1f} s.", code="not_made", retry_after=left)
            slot.opening = asyncio.create_task(self._open(slot), name=f"mcp open {slot.server.name}")
            slot.opening.add_done_callback(_read_outcome)
            slot.opening.add_done_callback(lambda _: self._shut_if_left(slot))
        opening = slot.opening
        await asyncio.wait({opening})
        if opening.cancelled():
            raise TransientError(f"server {slot.server.name!r} was not called: it is let go of.", code="not_made")
        return opening.result()

    async def _open(self, slot: Slot) -> Connection:
        loop = asyncio.get_running_loop()
        old, slot.connection = slot.connection, None
        if old is not None:
            slot.failures = slot.failures + 1 if loop.time() - slot.opened_at < SHORT_LIFE else 0
            self._shut(old)
        connection = Connection(slot.server, self._environ, self._guardian, self._known_of(slot.server))
        try:
            await connection.open()
        except EffectError:
            self._known.pop(slot.server.name, None)
            slot.failures += 1
            slot.not_before = loop.time() + min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(slot.failures - 1, 10))
            raise
        finally:
            slot.opening = None
        if connection.known is not None:
            self._known[slot.server.name] = (slot.server, connection.known)
        slot.connection, slot.opened_at, slot.used_at = connection, loop.time(), loop.time()
        return connection

    def _known_of(self, server: Server) -> Known | None:
        """What the last connection with a server learned, where the next one can adopt it without traffic."""
        declared, known = self._known.get(server.name, (None, None))
        return known if declared == server and isinstance(known, types.DiscoverResult) else None

    # -- the end of connections --------------------------------------------------------------------------

    def _retire(self, key: Key, slot: Slot) -> None:
        self._slots.pop(key, None)
        slot.left = True
        if self._closed or slot.idle:
            self._shut_slot(slot)

    def _take_off(self, run_id: str, server: str | None = None) -> tuple[list[tuple[Connection, Pending]], list[Slot]]:
        """What only this run uses, of one server or of all, for no call to find any more."""
        calls = [
            (connection, pending)
            for connection in self.connections
            for pending in connection.inquiries.calls
            if pending.run_id == run_id and pending.link is None and server in (None, connection.server.name)
        ]
        for connection, pending in calls:
            connection.inquiries.dismiss(pending)
        mine = [
            key for key, slot in self._slots.items() if slot.run_id == run_id and server in (None, slot.server.name)
        ]
        slots = [self._slots.pop(key) for key in mine]
        for slot in slots:
            slot.left = True
        return calls, slots

    async def _give_up(self, calls: list[tuple[Connection, Pending]], slots: list[Slot]) -> None:
        for _, pending in calls:
            await pending.stop()
        for connection, _ in calls:
            self._shut_stream(connection)
        for slot in slots:
            self._shut_if_left(slot)

    def _replace(self, order: Order, connection: object) -> None:
        """Another connection is made for the next call; calls that are under way on this one may end there."""
        slot = self._slots.get(key_of(order))
        if slot is not None and slot.connection is not None and slot.connection is connection:
            old, slot.connection = slot.connection, None
            self._track(self._drain(old))

    async def _drain(self, connection: Connection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await connection.inquiries.quiet()
        await connection.close()

    def _shut_if_left(self, slot: Slot) -> None:
        if slot.left and slot.idle:
            self._shut_slot(slot)

    def _shut_stream(self, connection: Connection) -> None:
        """A connection that was made to read on has nothing to read any more."""
        for key in [key for key, stream in self._streams.items() if stream is connection]:
            if not connection.inquiries.calls:
                self._shut(self._streams.pop(key), keep_session=True)

    def _shut_slot(self, slot: Slot) -> None:
        if slot.opening is not None:
            slot.opening.cancel()
        connection, slot.connection = slot.connection, None
        if connection is not None:
            self._shut(connection, keep_session=reads_on(connection))

    def _shut(self, connection: Connection, *, keep_session: bool = False) -> None:
        self._track(connection.close(keep_session=keep_session))

    def _track(self, way: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(way)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _watch(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name="mcp idle connections")

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._slots:
            least = min(slot.server.idle_seconds for slot in self._slots.values())
            await asyncio.sleep(min(SWEEP, max(0.05, least / 4)))
            for key, slot in list(self._slots.items()):
                if slot.idle and loop.time() - slot.used_at >= slot.server.idle_seconds:
                    self._retire(key, slot)


def _read_outcome(task: asyncio.Task[Connection]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
