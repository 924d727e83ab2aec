"""Runs as tasks: the extension `io.modelcontextprotocol/tasks` (2026-07-28) over what the journal keeps.

A task is a run and its id the run's: any replica can tell of it, and none has to remember it. Only the principal that
asked for a run may look at it this way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, RequestParams
from mcp_types.jsonrpc import HEADER_MISMATCH
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from retinue.ingress.client import Client
from retinue.ingress.mcp.questions import give, shown
from retinue.ingress.mcp.telling import iso, told_result
from retinue.ingress.mcp.tools import Face, asks, for_me, seen
from retinue.runs.contracts import Json, PendingRequest, RunRecord, Status
from retinue.runs.errors import InvalidInput, UnknownName

TASKS = "io.modelcontextprotocol/tasks"
_WORKING_MS = 1_000
_WAITING_MS = 5_000
Context = ServerRequestContext[Any, Any]
Shape = Callable[[dict[str, Json], bool], Json]
"""Makes a tool's result of a run's, and of whether that is an error."""


class TaskAsked(RequestParams):
    """What `tasks/get` and `tasks/cancel` take."""

    task_id: str


class TaskUpdate(TaskAsked):
    """What `tasks/update` takes."""

    input_responses: dict[str, Any]


def wants_tasks(context: Context) -> bool:
    """Whether this request's client said that it takes tasks."""
    capabilities = context.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS in (declared or {})


def serve_tasks(server: Server[Any], face: Face, shape: Shape) -> None:
    """Let the server have the extension."""

    async def get(context: Context, asked: TaskAsked) -> Json:
        client, record = await _task(face, context, asked)
        return await told_task(face, client, record, context, shape)

    async def update(context: Context, asked: TaskUpdate) -> Json:
        client, record = await _task(face, context, asked)
        open_ones = for_me(face, await asks(face, client, record))
        await _plainly(give(client, face.rights, open_ones, asked.input_responses))
        return {}

    async def cancel(context: Context, asked: TaskAsked) -> Json:
        client, record = await _task(face, context, asked)
        await client.cancel(record.run_id, face.rights.principal)
        return {}

    server.extensions[TASKS] = {}
    server.add_request_handler("tasks/get", TaskAsked, get)
    server.add_request_handler("tasks/update", TaskUpdate, update)
    server.add_request_handler("tasks/cancel", TaskAsked, cancel)


async def created(face: Face, run_id: str) -> Json:
    """What a call is answered with whose run goes on as a task."""
    client = await face.client()
    record = await client.get(run_id)
    told = _told(record, "working", _WORKING_MS, f"{record.target} is {record.status.value}")
    return {"resultType": "task", **told}


async def told_task(face: Face, client: Client, record: RunRecord, context: Context, shape: Shape) -> Json:
    """The task as it stands, with its result or with what it needs."""
    if record.status is Status.canceled:
        return _told(record, "cancelled", _WORKING_MS, f"canceled by {record.cancel}" if record.cancel else "canceled")
    if record.status.terminal:
        result = told_result(await client.wait(record.run_id))
        told = _told(record, "completed", _WORKING_MS, f"{record.status.value} ({result['stop_reason']})")
        return told | {"result": shape(result, record.status is Status.failed)}
    requests = await asks(face, client, record)
    found = shown(for_me(face, requests), context.session.client_capabilities)
    if found:
        asked = {name: one.model_dump(mode="json", by_alias=True, exclude_none=True) for name, one in found.items()}
        return _told(record, "input_required", _WAITING_MS, "asks for input") | {"inputRequests": asked}
    if requests:
        return _told(record, "working", _WAITING_MS, _waits(requests))
    return _told(record, "working", _WORKING_MS, f"{record.target} is {record.status.value}")


def _waits(requests: list[PendingRequest]) -> str:
    first = requests[0]
    return f"waits for {'an approval' if first.kind == 'approval' else 'an answer'}: {first.prompt}"[:500]


def _told(record: RunRecord, status: str, poll_ms: int, message: str) -> dict[str, Json]:
    """The fields that every task has. The journal keeps a run for as long as the project does: no time to live."""
    newest = record.finished_at or record.started_at or record.created_at
    return {
        "taskId": record.run_id,
        "status": status,
        "statusMessage": message,
        "createdAt": iso(record.created_at),
        "lastUpdatedAt": iso(newest),
        "ttlMs": None,
        "pollIntervalMs": poll_ms,
    }


async def _task(face: Face, context: Context, asked: TaskAsked) -> tuple[Client, RunRecord]:
    """The run behind a task, for whoever asked for it. MCPError as the extension says."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", context.method)
    require_client_extension(context, TASKS)
    _check_route(context, asked.task_id)
    client = await face.client()
    return client, await _plainly(_owned(face, client, asked.task_id))


async def _owned(face: Face, client: Client, task_id: str) -> RunRecord:
    record = await seen(face, client, task_id)
    if record.run_id != task_id or (await client.accepted(task_id)).principal_id != face.rights.principal:
        raise UnknownName(f"there is no task {task_id!r}")
    return record


async def _plainly(work: Awaitable[Any]) -> Any:
    """Errors of the caller's as the protocol has them."""
    try:
        return await work
    except InvalidInput as error:
        raise MCPError(INVALID_PARAMS, str(error)) from None


def _check_route(context: Context, task_id: str) -> None:
    """Over HTTP the header that balancers route by has to name the task."""
    if context.request is None:
        return
    named = decode_header_value(context.request.headers.get(MCP_NAME_HEADER))
    if named != task_id:
        raise MCPError(
            HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter"
        )
