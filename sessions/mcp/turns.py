"""One request after another in the name of one call, on the call's own clock.

Owns the time a call may take of its server, how a request is given up, and what an error means for the call. The time
that people take is not in it: nobody waits then. Knows one connection; what is sent is its user's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED
from pydantic import ValidationError

from retinue.runs.errors import EffectError, TransientError
from retinue.runs.sessions import Link, Token
from retinue.sessions.mcp.connection import Connection
from retinue.sessions.mcp.faults import TOO_LARGE, UNANSWERED, Forgotten, judge
from retinue.sessions.mcp.orders import Order
from retinue.sessions.mcp.pending import Pending
from retinue.sessions.mcp.pipes import MAX_MESSAGE

TELL = 0.4
"""Seconds for telling a server that a call is given up."""

KEEP_AFTER = 0.25
"""Seconds that a request takes before it is worth keeping what it can be taken up again with."""


class Turns:
    """The requests of one execution of a call."""

    def __init__(self, connection: Connection, order: Order, link: Link, pending: Pending) -> None:
        self.connection = connection
        self.order = order
        self.link = link
        self.pending = pending

    async def take(self, send: Callable[[], Awaitable[Any]], anchor: Callable[[], Token | None] | None = None) -> Any:
        """Send a request and wait for its answer; None when the server asks something meanwhile.

        Raises MCPError as it came. TransientError: `timeout`, or `lost` for whatever else happened to the request.
        """
        self.pending.start(send)
        return await self.wait(anchor)

    async def wait(self, anchor: Callable[[], Token | None] | None = None) -> Any:
        """Wait for the answer of the request that is under way. `anchor` gives what it can be taken up again with:
        kept once the request takes longer than `KEEP_AFTER`.
        """
        try:
            if anchor is not None and not await self.pending.settles_within(KEEP_AFTER):
                token = anchor()
                if token is not None:
                    await self.link.keep(token)
            return await self.pending.follow(self.order.seconds)
        except TimeoutError:
            await self.give_up()
            seconds = f"{self.order.seconds:g} s"
            problem = f"{self.order.where} did not answer within {seconds}; the call may have happened."
            raise TransientError(f"{problem} Allow more with `timeout`.", code="timeout") from None
        except asyncio.CancelledError:
            await self.give_up()
            raise
        except MCPError as error:
            if self.pending.trail.too_large:
                raise self.judge(error) from None
            raise
        except ValidationError as error:
            raise self.judge(error) from None
        except EffectError:
            raise
        except Exception as error:  # of the SDK or the loop: the request was on its way
            text = f"{self.order.where}: the reply was lost ({type(error).__name__}); the call may have happened."
            raise self.lost(text) from None

    async def rest(self, seconds: float) -> None:
        """Wait between two requests; the time counts."""
        left = self.order.seconds - self.pending.spent
        if left <= 0:
            problem = f"{self.order.where} did not end within {self.order.seconds:g} s; the call may have happened."
            raise TransientError(f"{problem} Allow more with `timeout`.", code="timeout")
        pause = min(seconds, left)
        self.pending.spent += pause
        await asyncio.sleep(pause)

    async def give_up(self) -> None:
        """Stop waiting for the request, and tell the server where the SDK does not."""
        resumed = self.pending.resumed_id
        await self.pending.stop()
        if resumed is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL):
                    await self.connection.cancel(resumed)

    def judge(self, error: MCPError | ValidationError) -> EffectError:
        """What an error of the server or of the wire means for the call."""
        if isinstance(error, MCPError) and self.pending.trail.too_large:
            error = MCPError(TOO_LARGE, f"it answered with more than {MAX_MESSAGE:,} bytes")
        judged = judge(self.order.where, error, self.connection.secrets)
        if isinstance(error, MCPError) and error.code in UNANSWERED:
            gone = error.code == CONNECTION_CLOSED and self.order.server.transport == "stdio"
            return self.lost(f"{judged} {self.connection.trouble}" if gone else str(judged), closed=gone)
        if isinstance(judged, Forgotten):
            judged.connection = self.connection
        return judged

    def lost(self, problem: str, *, closed: bool = False) -> TransientError:
        """The reply will not come."""
        self.link.lost("closed" if closed or not self.connection.alive else "broken")
        return TransientError(problem, code="lost")
