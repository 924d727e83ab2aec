"""One call of a tool: from its beginning, or from where it was left, to a result or to a question.

Owns the ways a call goes on in both worlds: a result, a question on its stream, a result that asks for more, a task.
Knows one connection and no pool.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.shared.message import ClientMessageMetadata
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS, URL_ELICITATION_REQUIRED
from pydantic import ValidationError

from retinue.runs.errors import EffectError, PermanentError, TransientError
from retinue.runs.sessions import Link, Pause, Question, Reply, Token
from retinue.sessions.connections import Pinned, RemoteResult
from retinue.sessions.mcp import following, questions
from retinue.sessions.mcp.connection import Connection
from retinue.sessions.mcp.faults import ENDED, Forgotten, judge
from retinue.sessions.mcp.orders import OUTCOME, Order, call_request, is_pinned, read_result
from retinue.sessions.mcp.pending import Pending
from retinue.sessions.mcp.tasks import TaskBegun
from retinue.sessions.mcp.tokens import RetryToken, StreamToken, TaskToken, pack
from retinue.sessions.mcp.turns import TELL, Turns

MAX_ROUNDS = 20
"""Times that a server may answer one call with questions."""

EMPTY_ROUNDS = 60
"""Times that it may answer one call with nothing but a state."""
EMPTY_PAUSE = 0.25
"""Seconds between those."""


class StreamEnded(TransientError):
    """A stream that was taken up again ended before its answer came. There may be more from after `event_id`."""

    def __init__(self, event_id: str | None) -> None:
        super().__init__("the stream ended before the answer; the call may have happened", code="lost")
        self.event_id = event_id


class Conversation:
    """One execution of a call. Use one of its ways to begin or go on, once."""

    def __init__(self, connection: Connection, order: Order, link: Link, pending: Pending | None = None) -> None:
        self._connection = connection
        self._order = order
        self._link = link
        self._pending = pending or Pending(order.caller.key, order.caller.run_id, order.tool)
        self._turns = Turns(connection, order, link, self._pending)
        self._round = 0
        self._task: str | None = None
        self._pins: Pinned | None = None

    async def begin(self, pins: Pinned | None) -> RemoteResult | Pause:
        """Call the tool. PermanentError `pin_changed` when it is not the one that was approved."""
        self._pins = pins
        await self._check()
        return await self._enter(self._begin())

    async def retry(self, token: RetryToken, replies: Mapping[str, Reply], pins: Pinned | None) -> RemoteResult | Pause:
        """Make the call again with what was replied. The token is taken off the journal before anything is sent.

        PermanentError `pin_changed` as for a call that begins: it is carried out anew.
        """
        self._pins = pins
        await self._check()
        return await self._enter(self._retry(token, replies))

    async def resume_task(self, token: TaskToken, replies: Mapping[str, Reply]) -> RemoteResult | Pause:
        """Go on with a task."""
        self._task = token.task_id
        return await self._enter(self._settled(following.resume_task(self._turns, token, replies)))

    async def resume_stream(self, token: StreamToken, replies: Mapping[str, Reply]) -> RemoteResult | Pause:
        """Read on where another process stopped; the connection has to be a new one that restored its session."""
        self._pending.replies = dict(replies)
        self._pending.resumed_id = token.request_id
        self._pending.trail.last_event = token.event_id
        self._pending.trail.resuming = True
        return await self._enter(self._read_on(token))

    async def answer(self, replies: Mapping[str, Reply]) -> RemoteResult | Pause:
        """Go on with a call that waits on this connection."""
        self._pending.answer(replies)
        return await self._enter(self._wait(), admit=False)

    # -- the frame of every way --------------------------------------------------------------------------

    async def _enter(self, way: Any, *, admit: bool = True) -> RemoteResult | Pause:
        inquiries = self._connection.inquiries
        self._pending.link = self._link
        try:
            if admit:
                await self._admit()
            self._link.opened(self._connection.wire)
            outcome: RemoteResult | Pause = await way
        except asyncio.CancelledError:
            await self._stop_task()
            raise
        finally:
            way.close()
            self._pending.link = None
            if not self._pending.open:
                inquiries.dismiss(self._pending)
        return outcome

    async def _admit(self) -> None:
        try:
            await self._connection.inquiries.admit(self._pending, self._order.seconds)
        except TimeoutError:
            problem = f"{self._order.where} was not called: its server asks questions that belong to no call."
            raise TransientError(f"{problem} Give it `scope: run`.", code="not_made") from None

    async def _stop_task(self) -> None:
        if self._task is not None and self._connection.alive:
            with contextlib.suppress(TimeoutError, MCPError, EffectError, ValidationError):
                async with asyncio.timeout(TELL):
                    await following.stop_task(self._turns, self._task)

    # -- the ways ----------------------------------------------------------------------------------------

    async def _begin(self) -> RemoteResult | Pause:
        try:
            outcome = await self._send()
        except MCPError as error:
            if error.code == URL_ELICITATION_REQUIRED:
                return self._pages(error)
            raise self._turns.judge(error) from None
        return await self._settle(outcome)

    async def _retry(self, token: RetryToken, replies: Mapping[str, Reply]) -> RemoteResult | Pause:
        requests = questions.read_again(token.requests)
        if not requests.keys() <= replies.keys():
            asked = questions.read_requests(self._order.where, requests, self._order.server.sampling)
            return Pause(asked, pack(token))
        if token.pages and any(reply.action != "accept" for reply in replies.values()):
            raise PermanentError(f"{self._order.where} cannot go on: a page that it needs was declined", code="refused")
        responses = None if token.pages else questions.write_responses(requests, replies)
        self._round = token.round
        _ = self._connection.session
        await self._link.keep(None)
        try:
            outcome = await self._send(responses, token.state)
        except MCPError as error:
            if error.code == URL_ELICITATION_REQUIRED:
                return self._pages(error)
            if error.code == INVALID_PARAMS and not token.pages:
                self._link.lost("expired")
                problem = (
                    f"{self._order.where}: its server does not take the reply any more; the call may have happened."
                )
                raise TransientError(problem, code="lost") from None
            judged = self._turns.judge(error)
            if judged.code == "not_made":
                await self._link.keep(pack(token))
            raise judged from None
        return await self._settle(outcome)

    async def _read_on(self, token: StreamToken) -> RemoteResult | Pause:
        session = self._connection.session
        metadata = ClientMessageMetadata(resumption_token=token.event_id)
        request = call_request(self._order)
        progress = self._pending.progress
        try:
            outcome = await self._turns.take(
                lambda: session.send_request(request, OUTCOME, metadata=metadata, progress_callback=progress)
            )
        except MCPError as error:
            raise await self._unreadable(error) from None
        return await self._settle(outcome)

    async def _wait(self) -> RemoteResult | Pause:
        try:
            outcome = await self._turns.wait(self._anchor)
        except MCPError as error:
            raise self._turns.judge(error) from None
        return await self._settle(outcome)

    # -- what comes of a request -------------------------------------------------------------------------

    async def _settle(self, outcome: Any) -> RemoteResult | Pause:
        for _ in range(EMPTY_ROUNDS):
            if outcome is None:
                return self._pause_on_stream()
            if isinstance(outcome, TaskBegun):
                self._task = outcome.task_id
                return await self._settled(following.begin_task(self._turns, outcome))
            if isinstance(outcome, types.CallToolResult):
                return read_result(self._order, outcome, self._connection.secrets)
            if outcome.input_requests:
                return self._pause_to_retry(outcome)
            await self._turns.rest(EMPTY_PAUSE)
            outcome = await self._send_or_fail(None, outcome.request_state)
        raise PermanentError(
            f"{self._order.where} asks to be called again and again: {EMPTY_ROUNDS} times", code="refused"
        )

    async def _settled(self, way: Any) -> RemoteResult | Pause:
        outcome = await way
        return outcome if isinstance(outcome, Pause) else read_result(self._order, outcome, self._connection.secrets)

    async def _send(self, responses: types.InputResponses | None = None, state: str | None = None) -> Any:
        """Send the call; once more where its headers were not those that its tool wants by now: it was turned away."""
        try:
            return await self._send_once(responses, state)
        except MCPError as error:
            if error.code != HEADER_MISMATCH or not self._connection.modern:
                raise
        self._connection.expect_changes()
        await self._check()
        return await self._send_once(responses, state)

    async def _send_once(self, responses: types.InputResponses | None, state: str | None) -> Any:
        session = self._connection.session
        request = call_request(self._order, responses, state)
        progress = self._pending.progress
        return await self._turns.take(
            lambda: session.send_request(request, OUTCOME, progress_callback=progress), self._anchor
        )

    async def _send_or_fail(self, responses: types.InputResponses | None = None, state: str | None = None) -> Any:
        try:
            return await self._send(responses, state)
        except MCPError as error:
            raise self._turns.judge(error) from None

    def _pause_to_retry(self, outcome: types.InputRequiredResult) -> Pause:
        asked = outcome.input_requests or {}
        found = questions.read_requests(self._order.where, asked, self._order.server.sampling)
        self._count_round()
        state, requests = outcome.request_state, questions.keep_requests(asked)
        return Pause(found, pack(RetryToken(state=state, requests=requests, round=self._round)))

    def _pause_on_stream(self) -> Pause:
        asked = tuple(waiting.question for waiting in self._pending.open.values())
        first = self._pending.trail.before.get(asked[0].key)
        return Pause(asked, None if first is None else self._stream_token(first))

    def _pages(self, error: MCPError) -> Pause:
        """An older server wants pages to be visited before it is called again."""
        try:
            pages = types.ElicitationRequiredErrorData.model_validate(error.data).elicitations
        except ValidationError:
            raise self._turns.judge(error) from None
        requests = {
            page.elicitation_id or str(number): types.ElicitRequest(params=page) for number, page in enumerate(pages)
        }
        found: tuple[Question, ...] = questions.read_requests(self._order.where, requests, sampling=False)
        if not found:
            raise self._turns.judge(error)
        self._count_round()
        kept = questions.keep_requests(requests)
        return Pause(found, pack(RetryToken(requests=kept, pages=True, round=self._round)))

    def _count_round(self) -> None:
        self._round += 1
        if self._round > MAX_ROUNDS:
            raise PermanentError(f"{self._order.where} asks without end: {MAX_ROUNDS} rounds", code="refused")

    # -- streams -----------------------------------------------------------------------------------------

    def _anchor(self) -> Token | None:
        event = self._pending.trail.last_event
        return None if event is None or self._pending.open else self._stream_token(event)

    def _stream_token(self, event_id: str) -> Token | None:
        known, session_id = self._connection.known, self._connection.exchange.session_id
        if not isinstance(known, types.InitializeResult) or session_id is None:
            return None
        said = known.model_dump(mode="json", by_alias=True, exclude_none=True)
        request_id = self._pending.resumed_id or self._pending.request_id
        return pack(StreamToken(session_id=session_id, event_id=event_id, request_id=request_id, initialized=said))

    async def _unreadable(self, error: MCPError) -> EffectError:
        """The stream was not delivered again. Unless the server was just not there, it never will be."""
        if error.code == ENDED:
            return StreamEnded(self._pending.trail.last_event)
        judged = judge(self._order.where, error, self._connection.secrets)
        if judged.code in ("raised", "too_large", "protocol"):
            return judged
        if judged.code == "not_made" and not isinstance(judged, Forgotten):
            return judged
        await self._link.keep(None)
        self._link.lost("expired")
        return TransientError(f"{self._order.where}: {error.message}; the call may have happened.", code="lost")

    # -- pins --------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        pins = self._pins
        await self._connection.listed()
        if pins is not None and not is_pinned(self._order.tool, self._connection.hashes, pins):
            self._connection.expect_changes()
            await self._connection.listed()
        if pins is not None and not is_pinned(self._order.tool, self._connection.hashes, pins):
            self._link.lost("pins_changed")
            name = self._order.server.name
            raise PermanentError(
                f"{self._order.where} was not called: its server describes it otherwise than it was approved, or not "
                f"at all. See `retinue capabilities diff {name}`, then approve with `retinue capabilities pin {name}`.",
                code="pin_changed",
            )
