"""Requests of runs as forms that a client shows its user, and what the user said as an answer.

What a server far away asks a run is passed on as it came: a form, or an address to open. Pure but for `give`, which
resolves. Knows no run but through the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_types import ClientCapabilities, ElicitRequest, ElicitRequestFormParams, ElicitRequestURLParams

from retinue.ingress.answering import schema_of
from retinue.ingress.client import Client
from retinue.ingress.mcp.rights import Rights
from retinue.runs import forms
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput

_ANSWER = "answer"
_APPROVED = "approved"
_WHY = "why"
_IN_DOUBT = ("happened", "absent", "fail")
Reply = tuple[str, dict[str, Json]]
"""What a user did with a form, and what is in it."""


def shown(requests: Iterable[PendingRequest], capabilities: ClientCapabilities | None) -> dict[str, ElicitRequest]:
    """What a client can ask its user, by request id: of these requests those that it has a way to show."""
    can = capabilities.elicitation if capabilities is not None else None
    if can is None:
        return {}
    found: dict[str, ElicitRequest] = {}
    for one in requests:
        if one.asked.get("kind") == "url":
            if can.url is not None:
                address = ElicitRequestURLParams(message=one.prompt, url=str(one.asked.get("url", "")))
                found[one.request_id] = ElicitRequest(params=address)
        elif (can.form is not None or can.url is None) and (schema := _schema(one)) is not None:
            form = ElicitRequestFormParams(message=one.prompt, requested_schema=schema)
            found[one.request_id] = ElicitRequest(params=form)
    return found


def _schema(request: PendingRequest) -> dict[str, Json] | None:
    """What the form asks for; None where only JSON of another shape would do."""
    if "doubt" in request.facts:
        return _object({_ANSWER: {"type": "string", "enum": list(_IN_DOUBT)}}, [_ANSWER])
    if request.kind == "approval":
        return _object({_APPROVED: {"type": "boolean"}, _WHY: {"type": "string"}}, [_APPROVED])
    own = schema_of(request)
    if own is None:
        return _object({_ANSWER: {"type": "string"}}, [_ANSWER])
    return own if forms.is_form(own) else None


def _object(properties: dict[str, Json], required: list[str]) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": required}


async def give(client: Client, rights: Rights, open_ones: Iterable[PendingRequest], said: Mapping[str, Json]) -> None:
    """Resolve those of the open requests that something was said to; what is said of any other is ignored.

    One that somebody else resolved meanwhile is left as it is. A user who declined an approval said no, and who
    declined what a server asks declined it; who did so with a run's own question said nothing, and it stays open.
    """
    for request in open_ones:
        reply = _reply(said.get(request.request_id))
        if reply is None:
            continue
        try:
            await _give(client, rights.principal, request, reply)
        except InvalidInput:
            if any(one.request_id == request.request_id for one in await client.inbox(request.root_run_id)):
                raise


async def _give(client: Client, by: str, request: PendingRequest, reply: Reply) -> None:
    action, content = reply
    if request.kind == "approval":
        await _decide(client, by, request, reply)
    elif action == "accept":
        await client.answer(request.request_id, _value(request, content), by)
    elif action == "decline" and request.asked:
        await client.decline(request.request_id, by)


async def _decide(client: Client, by: str, request: PendingRequest, reply: Reply) -> None:
    action, content = reply
    if action == "accept" and content.get(_APPROVED) is True:
        await client.approve(request.request_id, by)
    elif action == "decline" or (action == "accept" and content.get(_APPROVED) is False):
        await client.deny(request.request_id, by, str(content.get(_WHY) or ""))


def _value(request: PendingRequest, content: dict[str, Json]) -> Json:
    """The answer in a form that was filled; whether it fits is looked at where it is given."""
    if request.asked.get("kind") == "url":
        return "done"
    if "doubt" in request.facts or schema_of(request) is None:
        if _ANSWER not in content:
            raise InvalidInput(f"the reply to request {request.request_id} has no field {_ANSWER!r}: fill the form")
        return content[_ANSWER]
    return content


def _reply(said: Any) -> Reply | None:
    """The action and content of an elicitation's result; None for what is none."""
    if hasattr(said, "model_dump"):
        said = said.model_dump(mode="json", by_alias=True)
    if not isinstance(said, dict) or not isinstance(said.get("action"), str):
        return None
    content = said.get("content")
    return said["action"], content if isinstance(content, dict) else {}
