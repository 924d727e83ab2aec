"""The extension for tasks: a call that the server goes on with by itself, and that is asked about until it has ended.

Owns the shapes of the extension and its three requests, and how often is asked. Knows no run and no token.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import mcp_types as types
from mcp.client import ClientSession
from mcp.client.extension import ClaimContext, ResultClaim
from mcp_types import CallToolResult, InputRequests, InputResponses, RequestParams, Result
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

EXTENSION = "io.modelcontextprotocol/tasks"

POLL_LEAST, POLL_MOST, POLL_USUAL = 0.05, 30.0, 1.0
"""Seconds between two questions for a task: bounds on what a server proposes, and what holds without a proposal."""

Status = Literal["working", "input_required", "completed", "cancelled", "failed"]


class TaskState(Result):
    """How a task stands. `ttl_ms` counts from `created_at` (ISO 8601)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    task_id: str = Field(min_length=1, max_length=1024)
    status: Status
    status_message: str | None = None
    created_at: str = ""
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    input_requests: InputRequests | None = None

    @property
    def expires_at(self) -> int | None:
        """Unix ns after which the server may forget it, where it says so."""
        try:
            created = datetime.fromisoformat(self.created_at)
        except ValueError:
            return None
        if self.ttl_ms is None or created.tzinfo is None:
            return None
        return int(created.timestamp() * 1000 + self.ttl_ms) * 1_000_000


class TaskBegun(Result):
    """Instead of the result of a call: the task that makes it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    result_type: Literal["task"] = "task"
    task_id: str = Field(min_length=1, max_length=1024)
    created_at: str = ""
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None


class TaskParams(RequestParams):
    """Which task; for `tasks/update` also the replies."""

    task_id: str
    input_responses: InputResponses | None = None


class GetTask(types.Request[TaskParams, Literal["tasks/get"]]):
    """How a task stands."""

    method: Literal["tasks/get"] = "tasks/get"
    name_param: ClassVar[str | None] = "taskId"
    params: TaskParams


class UpdateTask(types.Request[TaskParams, Literal["tasks/update"]]):
    """Tell a task the replies to its questions."""

    method: Literal["tasks/update"] = "tasks/update"
    name_param: ClassVar[str | None] = "taskId"
    params: TaskParams


class CancelTask(types.Request[TaskParams, Literal["tasks/cancel"]]):
    """Ask a task to stop; it need not."""

    method: Literal["tasks/cancel"] = "tasks/cancel"
    name_param: ClassVar[str | None] = "taskId"
    params: TaskParams


async def get_task(session: ClientSession, task_id: str) -> TaskState:
    """How the task stands now. MCPError -32602: the server does not know it."""
    return await session.send_request(GetTask(params=TaskParams(task_id=task_id)), TaskState)


async def update_task(session: ClientSession, task_id: str, responses: InputResponses) -> None:
    """Tell it the replies."""
    await session.send_request(UpdateTask(params=TaskParams(task_id=task_id, input_responses=responses)), types.Result)


async def cancel_task(session: ClientSession, task_id: str) -> None:
    """Ask it to stop."""
    await session.send_request(CancelTask(params=TaskParams(task_id=task_id)), types.Result)


def pause_of(poll_ms: int | None) -> float:
    """Seconds to wait before the next question for a task."""
    return POLL_USUAL if poll_ms is None else min(POLL_MOST, max(POLL_LEAST, poll_ms / 1000))


def claims() -> dict[str, tuple[ResultClaim[TaskBegun], ...]]:
    """What the session is told to accept as the result of a call."""
    return {EXTENSION: (ResultClaim(result_type="task", model=TaskBegun, resolve=_unresolved),)}


async def _unresolved(begun: TaskBegun, context: ClaimContext) -> CallToolResult:
    raise NotImplementedError(f"task {begun.task_id} of {context.tool_name} is followed by its caller, not by the SDK")
