"""The server itself: tools, tasks and questions as the protocol has them, in both of its eras.

Owns how results and errors look on the wire. Knows no transport.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
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

from retinue.ingress.mcp.questions import forms, give, shows_forms
from retinue.ingress.mcp.tasks import created, serve_tasks, wants_tasks
from retinue.ingress.mcp.tools import Face, Offer, SubmitRun, WaitRun, asks, for_me, offered, seen, submit
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, RetinueError

NAME = "retinue"
_LOG = logging.getLogger("retinue.ingress")
_KEY = "retinue/idempotencyKey"
_INSTRUCTIONS = (
    "Durable runs of agents and workflows. list_targets tells what there is; submit_run begins a run, which goes on by "
    "itself; wait_run waits for its result, or for a question that you can answer. What a run asks a person for is in "
    "list_requests."
)
Context = ServerRequestContext[Any, Any]


def make_server(face: Face, keys: Sequence[str] = ()) -> Server[Any]:
    """A server for whoever `face` serves. With `keys` (the first seals, all open) several replicas are one server to a
    client that answers questions; without, the state of a question is good in this process only."""
    security = RequestStateSecurity(keys=list(keys)) if keys else RequestStateSecurity.ephemeral()
    offers = offered(face.rights)
    tools = [_tool(name, offer) for name, offer in offers.items()]
    schemas = {tool.name: tool.input_schema for tool in tools}

    async def list_tools(context: Context, asked: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(context: Context, asked: CallToolRequestParams) -> BaseModel | Json:
        if asked.name not in offers:
            raise MCPError(INVALID_PARAMS, f"there is no tool {asked.name!r}: there are {', '.join(offers)}")
        try:
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
    serve_tasks(server, face, shape)
    return server


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
    if isinstance(given, WaitRun) and asked.input_responses:
        await _answered(face, given, asked)
    told = await offer.does(face, given)
    if isinstance(given, WaitRun) and (question := await _question(face, given, context)) is not None:
        return question
    return shape(told)


def _parsed(takes: type[BaseModel], asked: CallToolRequestParams, context: Context) -> BaseModel:
    """The arguments as the tool takes them. InvalidInput names field, value and remedy."""
    arguments = dict(asked.arguments or {})
    key = (context.meta or {}).get(_KEY)
    if takes is SubmitRun and isinstance(key, str) and key:
        arguments.setdefault("idempotency_key", key)
    try:
        return takes.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the arguments"
        known = ", ".join(takes.model_fields) or "none"
        got = "" if first["type"] == "missing" else f" (got {json.dumps(first['input'], default=str)[:100]})"
        raise InvalidInput(f"{asked.name}: {place}: {first['msg']}{got}; its arguments are {known}") from None


async def _answered(face: Face, given: WaitRun, asked: CallToolRequestParams) -> None:
    """Take what the client's user said to the questions of the round before."""
    client = await face.client()
    record = await seen(face, client, given.run_id)
    if asked.request_state != record.run_id:
        raise InvalidInput("the replies belong to another wait_run: ask again without them")
    await give(client, face.rights, for_me(face, await asks(face, client, record)), dict(asked.input_responses or {}))


async def _question(face: Face, given: WaitRun, context: Context) -> InputRequiredResult | None:
    """What the run asks, for the client's user, where the client can show it."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS or not shows_forms(context.session.client_capabilities):
        return None
    client = await face.client()
    record = await seen(face, client, given.run_id)
    shown = forms(for_me(face, await asks(face, client, record)))
    return InputRequiredResult(input_requests=dict(shown), request_state=record.run_id) if shown else None


def shape(told: Json, is_error: bool = False) -> Json:
    """A tool's result: the value, and its JSON as text for clients that read no other."""
    text = json.dumps(told, ensure_ascii=False)
    result = CallToolResult(content=[TextContent(type="text", text=text)], structured_content=told, is_error=is_error)
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def _failed(error: RetinueError) -> Json:
    """An error of Retinue's own words as a tool error; the agent can read what helps."""
    told: dict[str, Json] = {"kind": type(error).__name__, "message": str(error)}
    told |= {name: value for name in ("reason", "run_id") if (value := getattr(error, name, None))}
    text = TextContent(type="text", text=str(error))
    result = CallToolResult(content=[text], structured_content={"error": told}, is_error=True)
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
