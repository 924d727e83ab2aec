"""One connection with one server: made, held and ended by one task of its own.

The SDK's client has to be left in the task that entered it, and a fault inside may cancel that task; so nobody but the
owner enters it, and callers only send requests. Owns the time to connect and to close, and what is known of the server
while it lasts. Knows no run: calls are the business of `calls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import httpx2
import mcp_types as types
from mcp import MCPError
from mcp.client import ClientSession
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from retinue.runs.errors import EffectError, TransientError
from retinue.runs.sessions import Wire
from retinue.sessions.connections import Listing
from retinue.sessions.mcp import children, tasks
from retinue.sessions.mcp.containment import SESSION, ContainedTransport, Exchange
from retinue.sessions.mcp.dispatch import NumberedDispatcher
from retinue.sessions.mcp.faults import Forgotten, judge
from retinue.sessions.mcp.handshake import Hashes, Known, hashes_of, list_all, negotiate
from retinue.sessions.mcp.inquiries import Inquiries
from retinue.sessions.mcp.news import Newsreader
from retinue.sessions.mcp.pace import Pace
from retinue.sessions.mcp.pipes import Reading, Writing
from retinue.sessions.mcp.texts import hide, one_line
from retinue.sessions.servers import Server, environment_of, headers_of

CLOSE_SECONDS = 6.0
"""For leaving a connection, a stubborn server process included."""

SAY_GOODBYE = 1.0
"""Seconds for telling an older HTTP server that its session is over."""

CONNECT, WRITE, READ = 10.0, 30.0, 3600.0
"""Seconds of HTTP: for a connection, for sending, and between two parts of a reply; calls have their own clock."""

LATE = 300
"""Characters of a server's last complaints in an error message."""

SHORTEST_SECRET = 4
"""Characters; shorter values are not worth hiding, and would make holes in every text."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Idle TCP connections are given up before their server does so, usually after 5 s: of a request that meets the end of
# its connection nobody knows whether it arrived.
_LIMITS = httpx2.Limits(max_connections=128, max_keepalive_connections=16, keepalive_expiry=3.0)
_IDENTITY = types.Implementation(name="retinue", version=version("retinue"))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A session of an older HTTP server that was begun elsewhere, to be taken up again."""

    session_id: str
    initialized: types.InitializeResult


class Connection:
    """Open it once, close it once. `alive` until either side ended it; `listing` is what the server listed last."""

    def __init__(
        self,
        server: Server,
        environ: Mapping[str, str],
        guardian: children.Guardian,
        known: Known | None = None,
        restored: Restored | None = None,
    ) -> None:
        self.server = server
        self._lives = False
        self.listing: Listing | None = None
        self.inquiries = Inquiries(server)
        self._environ = environ
        self._guardian = guardian
        self._known = restored.initialized if restored is not None else known
        self._restored = restored
        self._exchange = Exchange()
        self._news = Newsreader(self.expect_changes)
        self._hashes: Hashes | None = None
        self._stale = True
        self._listing_now = asyncio.Lock()
        self._ending = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None
        self._dispatcher: NumberedDispatcher | None = None
        self._child: children.Child | None = None
        self._reading: Reading | None = None
        self._secrets = _secrets_of(server, environ)

    @property
    def alive(self) -> bool:
        """Whether a request can be sent: false from the moment on that its server's process has ended."""
        return self._lives and (self._child is None or not self._child.ended)

    @property
    def session(self) -> ClientSession:
        """The SDK's session, for requests. TransientError (`not_made`) once the connection has ended."""
        if self._session is None or not self.alive:
            raise Forgotten(f"server {self.server.name!r} was not asked: {self.trouble}.", self)
        return self._session

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen in any message."""
        return self._secrets

    @property
    def exchange(self) -> Exchange:
        """What its HTTP side knows."""
        return self._exchange

    @property
    def known(self) -> Known | None:
        """What the server said at the beginning; another connection can adopt it."""
        if self._session is None:
            return None
        return self._session.discover_result or self._session.initialize_result

    @property
    def modern(self) -> bool:
        """Whether it speaks 2026-07-28 or later."""
        return self._session is not None and self._session.discover_result is not None

    @property
    def hashes(self) -> Hashes | None:
        """Those of what the server listed last."""
        if self.listing is not None and (self._hashes is None or self._hashes.listing is not self.listing):
            self._hashes = hashes_of(self.listing)
        return self._hashes

    @property
    def wire(self) -> Wire:
        """For the record of a session."""
        return Wire(
            server=self.server.name,
            transport=self.server.transport,
            scope=self.server.scope,
            protocol=(self._session.protocol_version if self._session else None) or "",
            session_id=None if self.modern else self._exchange.session_id,
            pins=self.hashes.whole if self.hashes is not None else "",
        )

    @property
    def trouble(self) -> str:
        """Why it is not alive, as far as the server let us know."""
        said = self._reading.trouble if self._reading is not None else ""
        tail = one_line(self._child.tail.text[-4 * LATE :], 4 * LATE)[-LATE:] if self._child is not None else ""
        problem = said or "its connection has ended"
        return hide(f"{problem}; it last complained: {tail}" if tail else problem, self._secrets)

    async def open(self) -> None:
        """Connect, agree on a protocol and, for a session that begins, read the list of tools.

        Within `connect_seconds`. TransientError (`not_made`), or PermanentError (`not_made`, `protocol`) for what
        another try cannot mend. Nothing is left behind when it raises or is cancelled.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(ready), name=f"mcp {self.server.name}")
        try:
            await ready
        except BaseException:
            await self.close()
            raise

    async def close(self, *, keep_session: bool = False) -> None:
        """End it within `CLOSE_SECONDS`. `keep_session`: an older HTTP server is not told, so that what is open
        there can be taken up again.
        """
        if keep_session:
            self._exchange.muted = True
        self._lives = False
        self._ending.set()
        if self._owner is not None and self._owner is not asyncio.current_task():
            done, _ = await asyncio.wait({self._owner}, timeout=CLOSE_SECONDS)
            if not done:
                self._owner.cancel()
                await asyncio.wait({self._owner}, timeout=1.0)

    async def listed(self) -> Listing:
        """What the server lists; asked again after it said that something changed."""
        async with self._listing_now:
            if self.listing is None or self._stale:
                self._stale = False
                self.listing = await self._list()
            return self.listing

    def expect_changes(self) -> None:
        """The list of tools may not be what it was."""
        self._stale = True

    async def cancel(self, request_id: int | str) -> None:
        """Tell the server that nobody waits for this request any more."""
        if self._dispatcher is not None and self.alive:
            await self._dispatcher.notify("notifications/cancelled", {"requestId": request_id})

    async def _list(self) -> Listing:
        try:
            async with asyncio.timeout(self.server.connect_seconds):
                return await list_all(self.session)
        except TimeoutError:
            raise self._not_made(f"it did not list its tools within {self.server.connect_seconds:g} s") from None
        except (MCPError, ValidationError) as error:
            raise judge(f"the list of tools of {self.server.name!r}", error, self._secrets) from None

    # -- the owner ---------------------------------------------------------------------------------------

    async def _own(self, ready: asyncio.Future[None]) -> None:
        stack = AsyncExitStack()
        try:
            try:
                async with asyncio.timeout(self.server.connect_seconds):
                    await self._enter(stack)
                self._lives = not self._ending.is_set()
            except BaseException as error:
                if not ready.done():
                    ready.set_exception(self._explain(error))
                return
            ready.set_result(None)
            await self._ending.wait()
        except asyncio.CancelledError:
            logger.debug("the connection with %s was ended from within", self.server.name)
        finally:
            self._lives = False
            await self._leave(stack)

    def _end(self) -> None:
        self._lives = False
        self._ending.set()

    async def _enter(self, stack: AsyncExitStack) -> None:
        reading, writing = await (self._enter_stdio(stack) if self.server.command else self._enter_http(stack))
        self._dispatcher = NumberedDispatcher(reading, writing, self._end)
        session = ClientSession(
            dispatcher=self._dispatcher,
            client_info=_IDENTITY,
            elicitation_callback=self.inquiries.elicit,
            sampling_callback=self.inquiries.sample if self.server.sampling else None,
            message_handler=self._news.receive,
            extensions={tasks.EXTENSION: {}},
            result_claims=tasks.claims(),
        )
        self._session = await stack.enter_async_context(session)
        await negotiate(session, self.server.protocol, self._known, self.server.connect_seconds)
        if self._restored is None:
            self._stale = False
            self.listing = await list_all(session)
            await self._news.listen(session, stack)

    async def _enter_stdio(self, stack: AsyncExitStack) -> tuple[Reading, Writing]:
        env = environment_of(self.server, self._environ)
        self._child = await children.start(self.server.command or (), env, self.server.cwd, self._guardian)
        stack.push_async_callback(self._child.stop)
        self._reading = Reading(self._child.output, Pace())
        return self._reading, Writing(self._child.input)

    async def _enter_http(self, stack: AsyncExitStack) -> tuple[Any, Any]:
        headers = headers_of(self.server, self._environ)
        if self._restored is not None:
            headers[SESSION] = self._exchange.session_id = self._restored.session_id
        client = httpx2.AsyncClient(
            transport=ContainedTransport(httpx2.AsyncHTTPTransport(verify=_tls(), limits=_LIMITS), self._exchange),
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(WRITE, connect=CONNECT, read=READ, pool=CONNECT),
        )
        await stack.enter_async_context(client)
        stack.push_async_callback(self._say_goodbye, client)
        url = self.server.url or ""
        return await stack.enter_async_context(
            streamable_http_client(url, http_client=client, terminate_on_close=False, max_sse_event_size=None)
        )

    async def _say_goodbye(self, client: httpx2.AsyncClient) -> None:
        if self._exchange.session_id and not self._exchange.muted and not self.modern:
            headers = {SESSION: self._exchange.session_id}
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(SAY_GOODBYE):
                    await client.delete(self.server.url or "", headers=headers)

    async def _leave(self, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await stack.aclose()
        except TimeoutError:
            logger.warning("leaving the connection with %s took more than %g s", self.server.name, CLOSE_SECONDS)
        except BaseException as error:  # a group of whatever its inner tasks raised: it is over in any case
            logger.debug("the connection with %s ended with %r", self.server.name, type(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    # -- what goes wrong ---------------------------------------------------------------------------------

    def _explain(self, error: BaseException) -> EffectError:
        where = f"server {self.server.name!r}"
        if isinstance(error, EffectError):
            told = type(error)(f"{where}: {hide(str(error), self._secrets)}", code=error.code)
            return told
        if isinstance(error, TimeoutError):
            return self._not_made(f"it did not answer within {self.server.connect_seconds:g} s")
        if isinstance(error, MCPError | ValidationError):
            judged = judge(where, error, self._secrets)
            if judged.code in ("not_made", "too_large", "protocol"):
                return judged
            return self._not_made(one_line(str(judged), LATE))
        return self._not_made(f"the connection failed ({type(error).__name__})")

    def _not_made(self, problem: str) -> TransientError:
        if self._child is not None or self._reading is not None:
            problem = f"{problem}; {self.trouble}"
        text = hide(f"server {self.server.name!r} cannot be used: {problem}.", self._secrets)
        return TransientError(text, code="not_made")


def _secrets_of(server: Server, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that a declaration refers to: none of them may be seen in a message."""
    texts = [*server.env.values(), *server.headers.values(), server.auth or ""]
    values = {environ.get(name, "") for text in texts for name in _REFERENCE.findall(text)}
    return tuple(sorted((value for value in values if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


@cache
def _tls() -> ssl.SSLContext:
    """Shared by all connections: reading the certificates takes longer than connecting."""
    return httpx2.create_ssl_context()
