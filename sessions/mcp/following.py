"""A call that its server goes on with as a task: asked about until it has ended, or asks something itself.

Owns the turns of a task. What it can be gone on with is kept before the first question for it. Knows no connection's
making.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError

from retinue.runs.errors import EffectError, PermanentError, TransientError
from retinue.runs.sessions import Pause, Reply
from retinue.sessions.mcp import questions, tasks
from retinue.sessions.mcp.faults import BROKEN, BUSY, MAX_TEXT, UNREACHABLE
from retinue.sessions.mcp.pending import MAX_PROGRESS
from retinue.sessions.mcp.texts import clean, hide, one_line
from retinue.sessions.mcp.tokens import TaskToken, pack
from retinue.sessions.mcp.turns import Turns

TRIES = 5
"""Failures in a row to ask for a task, before it is left to a later execution."""


async def begin_task(turns: Turns, begun: tasks.TaskBegun) -> types.CallToolResult | Pause:
    """Follow a task that has just been made."""
    token = TaskToken(task_id=begun.task_id, poll_ms=begun.poll_interval_ms)
    expires = tasks.TaskState(task_id=begun.task_id, status="working", created_at=begun.created_at, ttl_ms=begun.ttl_ms)
    await turns.link.keep(pack(token, expires_at=expires.expires_at))
    return await _follow(turns, token)


async def resume_task(turns: Turns, token: TaskToken, replies: Mapping[str, Reply]) -> types.CallToolResult | Pause:
    """Go on with a task that was begun before, in whichever process."""
    answered = {key: request for key, request in token.requests.items() if key in replies}
    if answered:
        responses = questions.write_responses(questions.read_again(answered), replies)
        await _ask(turns, lambda: tasks.update_task(turns.connection.session, token.task_id, responses))
        token = token.model_copy(update={"answered": (*token.answered, *answered), "requests": {}})
        await turns.link.keep(pack(token))
    return await _follow(turns, token)


async def stop_task(turns: Turns, task_id: str) -> None:
    """Ask the server to stop it; it need not."""
    await tasks.cancel_task(turns.connection.session, task_id)


async def _follow(turns: Turns, token: TaskToken) -> types.CallToolResult | Pause:
    while True:
        state: tasks.TaskState = await _ask(turns, lambda: tasks.get_task(turns.connection.session, token.task_id))
        if state.status_message:
            turns.link.progress(0.0, None, clean(state.status_message, MAX_PROGRESS))
        if state.status == "input_required":
            asked = {key: value for key, value in (state.input_requests or {}).items() if key not in token.answered}
            if asked:
                return _pause(turns, token, state, asked)
        elif state.status != "working":
            return _ended(turns, state)
        await turns.rest(tasks.pause_of(state.poll_interval_ms or token.poll_ms))


async def _ask(turns: Turns, send: Any) -> Any:
    """A request about the task. What breaks on the way is tried again: the task goes on by itself."""
    for attempt in range(1, TRIES + 1):
        try:
            return await turns.take(send)
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                raise await _expired(turns) from None
            if error.code not in (BROKEN, UNREACHABLE, BUSY) or attempt == TRIES:
                raise _unfollowed(turns, turns.judge(error)) from None
        await turns.rest(0.1 * 2**attempt)
    raise AssertionError("the last try returns or raises")


async def _expired(turns: Turns) -> TransientError:
    await turns.link.keep(None)
    turns.link.lost("expired")
    problem = f"{turns.order.where}: its server does not know the task any more; the call may have happened."
    return TransientError(problem, code="lost")


def _unfollowed(turns: Turns, error: EffectError) -> EffectError:
    """The call was made, so nothing that happens to a question for its task says that it was not."""
    return (
        turns.lost(f"{turns.order.where}: its task cannot be followed: {error}") if error.code == "not_made" else error
    )


def _pause(turns: Turns, token: TaskToken, state: tasks.TaskState, asked: types.InputRequests) -> Pause:
    found = questions.read_requests(turns.order.where, asked, turns.order.server.sampling)
    kept = token.model_copy(update={"requests": questions.keep_requests(asked)})
    return Pause(found, pack(kept, expires_at=state.expires_at))


def _ended(turns: Turns, state: tasks.TaskState) -> types.CallToolResult:
    if state.status == "completed":
        try:
            return types.CallToolResult.model_validate(state.result or {}, by_name=False)
        except ValidationError as error:
            raise turns.judge(error) from None
    said = str((state.error or {}).get("message", "")) or state.status_message or ""
    text = hide(one_line(said, MAX_TEXT), turns.connection.secrets) or "its server does not say why"
    problem = "was cancelled by its server" if state.status == "cancelled" else "failed"
    raise PermanentError(f"{turns.order.where} {problem}: {text}", code="raised")
