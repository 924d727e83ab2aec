"""The server itself: tools, tasks and questions as the protocol has them, in both of its eras.

Owns how results and errors look on the wire. Knows no transport.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from retinue.ingress.mcp.questions import give, shown
from retinue.ingress.mcp.targets import TargetTool
from retinue.ingress.mcp.tasks import created, serve_tasks, wants_tasks
from retinue.ingress.mcp.telling import told_result
from retinue.ingress.mcp.tools import (
    Face,
    Offer,
    SubmitRun,
    WaitRun,
    asks,
    for_me,
    offered,
    own,
    seen,
    standing,
    submit,
    until_news,
)
from retinue.runs.contracts import Json, RunRecord, Status
from retinue.runs.errors import InvalidInput, RetinueError

NAME = "retinue"
_NONE: Mapping[str, TargetTool] = {}
_LOG = logging.getLogger("retinue.ingress")
_KEY = "retinue/idempotencyKey"
_INSTRUCTIONS = (
    "Durable runs of agents and workflows. list_targets tells what there is; submit_run begins a run, which goes on by "
    "itself; wait_run waits for its result, or for a question that you can answer. What a run asks a person for is in "
    "list_requests."
)
_SOON, _LATE = 0.5, 60.0
"""Seconds that a run called as a tool is waited for: before it becomes a task, and where there are none."""
Context = ServerRequestContext[Any, Any]


def make_server(face: Face, keys: Sequence[str] = (), targets: Mapping[str, TargetTool] = _NONE) -> Server[Any]:
    """A server for whoever `face` serves, with some targets as tools of their own. With `keys` (the first seals, all
    open) several replicas are one server to a client that answers questions; without, the state of a question is good
    in this process only."""
    security = RequestStateSecurity(keys=list(keys)) if keys else RequestStateSecurity.ephemeral()
    offers = offered(face.rights)
    tools = [*map(_target_tool, targets.values()), *(_tool(name, offer) for name, offer in offers.items())]
    schemas = {tool.name: tool.input_schema for tool in tools}

    async def list_tools(context: Context, asked: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(context: Context, asked: CallToolRequestParams) -> BaseModel | Json:
        if asked.name not in schemas:
            raise MCPError(INVALID_PARAMS, f"there is no tool {asked.name!r}: there are {', '.join(schemas)}")
        try:
            if asked.name in targets:
                return await _call_target(face, context, targets[asked.name], asked)
            return await _call(face, context, offers[asked.name], asked)
        except RetinueError as error:
            return _failed(error)

    server: Server[Any] = Server(
        NAME,
        version=version("retinue"),
        title="Retinue",
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
    )
    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    server.middleware.append(RequestStateBoundary(security, default_audience=NAME))
    serve_tasks(server, face, shape_result)
    return server


def _target_tool(target: TargetTool) -> Tool:
    return Tool(name=target.name, description=target.description, input_schema=target.schema)


def _tool(name: str, offer: Offer) -> Tool:
    hints = ToolAnnotations(
        read_only_hint="read_only" in offer.hints,
        destructive_hint="destructive" in offer.hints,
        idempotent_hint="idempotent" in offer.hints,
        open_world_hint=False,
    )
    return Tool(
        name=name,
        description=offer.description,
        input_schema=offer.takes.model_json_schema(),
        annotations=hints,
    )


async def _call(face: Face, context: Context, offer: Offer, asked: CallToolRequestParams) -> BaseModel | Json:
    """The tool's result; a task, or a question, where the client takes one."""
    given = _parsed(offer.takes, asked, context)
    if isinstance(given, SubmitRun) and wants_tasks(context):
        return await created(face, await submit(face, await face.client(), given))
    if not isinstance(given, WaitRun):
        return shape(await offer.does(face, given))
    record = await seen(face, await face.client(), given.run_id)
    if asked.input_responses:
        if asked.request_state != record.run_id:
            raise InvalidInput("the replies belong to another wait_run: ask again without them")
        await _answered(face, record, asked)
    told = await offer.does(face, given)
    return await _question(face, record, context) or shape(told)


async def _call_target(
    face: Face, context: Context, target: TargetTool, asked: CallToolRequestParams
) -> BaseModel | Json:
    """The answer of a run of it; when that takes longer, a task, a question, or how to wait for it."""
    client = await face.client()
    if asked.request_state is not None:
        record = await own(face, client, asked.request_state, "answer")
        await _answered(face, record, asked)
    else:
        given = SubmitRun(
            target=target.name, input=target.input_of(dict(asked.arguments or {})), idempotency_key=_key_of(context)
        )
        record = await client.get(await submit(face, client, given))
    takes_tasks = wants_tasks(context)
    await until_news(face, client, record, _SOON if takes_tasks else _LATE)
    record = await client.get(record.run_id)
    if record.status.terminal:
        return shape_result(told_result(await client.wait(record.run_id)), record.status is not Status.completed)
    if takes_tasks:
        return await created(face, record.run_id)
    return await _question(face, record, context) or shape(await standing(face, client, record))


def _parsed(takes: type[BaseModel], asked: CallToolRequestParams, context: Context) -> BaseModel:
    """The arguments as the tool takes them. InvalidInput names field, value and remedy."""
    arguments = dict(asked.arguments or {})
    if takes is SubmitRun and (key := _key_of(context)) is not None:
        arguments.setdefault("idempotency_key", key)
    try:
        return takes.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the arguments"
        known = ", ".join(takes.model_fields) or "none"
        got = "" if first["type"] == "missing" else f" (got {json.dumps(first['input'], default=str)[:100]})"
        raise InvalidInput(f"{asked.name}: {place}: {first['msg']}{got}; its arguments are {known}") from None


def _key_of(context: Context) -> str | None:
    """The idempotency key that came beside the arguments."""
    key = (context.meta or {}).get(_KEY)
    return key if isinstance(key, str) and key else None


async def _answered(face: Face, record: RunRecord, asked: CallToolRequestParams) -> None:
    """Take what the client's user said to the questions of the round before."""
    client = await face.client()
    await give(client, face.rights, for_me(face, await asks(face, client, record)), dict(asked.input_responses or {}))


async def _question(face: Face, record: RunRecord, context: Context) -> InputRequiredResult | None:
    """What the run asks, for the client's user, where the client can show it."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return None
    requests = for_me(face, await asks(face, await face.client(), record))
    found = shown(requests, context.session.client_capabilities)
    return InputRequiredResult(input_requests=dict(found), request_state=record.run_id) if found else None


def shape_result(told: dict[str, Json], is_error: bool = False) -> Json:
    """How a run ended as a tool's result: in words its answer, or what went wrong."""
    said = told["error"]["message"] if is_error and told["error"] else told["output"]
    return _result(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False), told, is_error)


def shape(told: Json) -> Json:
    """A tool's result: the value, and its JSON as text for clients that read no other."""
    return _result(json.dumps(told, ensure_ascii=False), told)


def _failed(error: RetinueError) -> Json:
    """An error of Retinue's own words as a tool error; the agent can read what helps."""
    told: dict[str, Json] = {"kind": type(error).__name__, "message": str(error)}
    told |= {name: value for name in ("reason", "run_id") if (value := getattr(error, name, None))}
    return _result(str(error), {"error": told}, is_error=True)


def _result(text: str, told: Json, is_error: bool = False) -> Json:
    result = CallToolResult(content=[TextContent(type="text", text=text)], structured_content=told, is_error=is_error)
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
