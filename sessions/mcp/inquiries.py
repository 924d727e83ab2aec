"""What a server of the older world asks while a call is open, and of which call it asks it.

Over HTTP the question comes on the call's own stream. Over stdio nothing says whose it is: it is whoever is left when
all others have ended, and nobody's when that does not come within a bound; so no run ever sees another run's question.
Owns the calls of one connection. Knows no transport.
"""

from __future__ import annotations

import asyncio

import mcp_types as types
from mcp.client.session import ClientRequestContext

from retinue.runs.sessions import Question
from retinue.sessions.mcp.pending import CALL, MAX_ASKED, Pending
from retinue.sessions.mcp.questions import MAX_QUESTIONS, Unaskable, read_request, write_elicited, write_sampled
from retinue.sessions.servers import Server

SETTLE = 5.0
"""Seconds to find out whose question it is; new calls wait meanwhile."""

_Sampled = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData


class Inquiries:
    """The calls of one connection, and the callbacks of its session."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._calls: dict[str, Pending] = {}
        self._undecided = 0
        self._moved = asyncio.Event()

    @property
    def calls(self) -> list[Pending]:
        """All calls that are under way."""
        return list(self._calls.values())

    @property
    def busy(self) -> bool:
        """Whether the server works on a call; it does not while all of them wait for a person."""
        return any(not call.open for call in self._calls.values())

    def find(self, key: str) -> Pending | None:
        """The call with this key, if it is under way."""
        return self._calls.get(key)

    async def admit(self, call: Pending, seconds: float) -> None:
        """Add a call; waits while it has to be found out whose question it is that came, TimeoutError if for longer."""
        if self._undecided:
            async with asyncio.timeout(seconds):
                while self._undecided:
                    await self._wait_for_a_move()
        self._calls[call.key] = call

    def dismiss(self, call: Pending) -> None:
        """The call has ended."""
        if self._calls.get(call.key) is call:
            del self._calls[call.key]
        self._move()

    async def quiet(self) -> None:
        """Return when no call is under way any more."""
        while self._calls:
            await self._wait_for_a_move()

    async def elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """The session's callback for a question to a person."""
        found = await self._question(str(context.request_id), types.ElicitRequest(params=params))
        if isinstance(found, types.ErrorData):
            return found
        call, question = found
        return write_elicited(await call.ask(question))

    async def sample(self, context: ClientRequestContext, params: types.CreateMessageRequestParams) -> _Sampled:
        """The session's callback for a question to a model."""
        found = await self._question(str(context.request_id), types.CreateMessageRequest(params=params))
        if isinstance(found, types.ErrorData):
            return found
        call, question = found
        reply = await call.ask(question)
        if reply.action != "accept":
            return types.ErrorData(code=-1, message="sampling was refused")
        return write_sampled(reply)

    async def _question(
        self, key: str, request: types.ElicitRequest | types.CreateMessageRequest
    ) -> tuple[Pending, Question] | types.ErrorData:
        try:
            question = read_request(key, request, self._server.sampling)
            call = CALL.get() or await self._whose()
            if call.asked >= MAX_ASKED or len(call.open) >= MAX_QUESTIONS:
                raise Unaskable("it has asked too often in one call")
        except Unaskable as error:
            return types.ErrorData(code=types.INVALID_REQUEST, message=str(error))
        self._move()
        return call, question

    async def _whose(self) -> Pending:
        self._undecided += 1
        try:
            async with asyncio.timeout(SETTLE):
                while True:
                    working = [call for call in self._calls.values() if not call.open]
                    if not working:
                        raise Unaskable("no call is open that it could belong to")
                    if len({call.run_id for call in working}) == 1:
                        return working[-1]
                    await self._wait_for_a_move()
        except TimeoutError:
            raise Unaskable("several calls are open and nothing says to which it belongs") from None
        finally:
            self._undecided -= 1
            self._move()

    async def _wait_for_a_move(self) -> None:
        moved = self._moved
        await moved.wait()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
