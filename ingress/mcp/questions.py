"""Requests of runs as forms that a client shows its user, and what the user said as an answer.

Pure but for `give`, which resolves. Knows no run but through the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_types import ClientCapabilities, ElicitRequest, ElicitRequestFormParams

from retinue.ingress.client import Client
from retinue.ingress.mcp.rights import Rights
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput

_ANSWER = "answer"
_APPROVED = "approved"
_WHY = "why"
_IN_DOUBT = ("happened", "absent", "fail")
_PLAIN = {"string", "number", "integer", "boolean"}


def shows_forms(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client can ask its user with a form; one that names no mode means forms."""
    asked = capabilities.elicitation if capabilities is not None else None
    return asked is not None and (asked.form is not None or asked.url is None)


def forms(requests: Iterable[PendingRequest]) -> dict[str, ElicitRequest]:
    """A form for each request that can be asked with one, by request id."""
    return {one.request_id: _form(one, schema) for one in requests if (schema := _schema(one)) is not None}


def _form(request: PendingRequest, schema: dict[str, Json]) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestFormParams(message=request.prompt, requested_schema=schema))


def _schema(request: PendingRequest) -> dict[str, Json] | None:
    """What the form asks for; None where only JSON of another shape would do."""
    if "doubt" in request.facts:
        return _object({_ANSWER: {"type": "string", "enum": list(_IN_DOUBT)}}, [_ANSWER])
    if request.kind == "approval":
        return _object({_APPROVED: {"type": "boolean"}, _WHY: {"type": "string"}}, [_APPROVED])
    own = request.facts.get("schema")
    if own is None:
        return _object({_ANSWER: {"type": "string"}}, [_ANSWER])
    return own if _is_flat(own) else None


def _object(properties: dict[str, Json], required: list[str]) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": required}


def _is_flat(schema: Json) -> bool:
    """Whether a form can ask for it: an object of plain values (or a list of choices)."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or schema.get("type") != "object":
        return False
    return all(isinstance(one, dict) and (one.get("type") in _PLAIN | {"array"}) for one in properties.values())


async def give(client: Client, rights: Rights, open_ones: Iterable[PendingRequest], said: Mapping[str, Json]) -> None:
    """Resolve those of the open requests that something was said to; what is said of any other is ignored.

    One that somebody else resolved meanwhile is left as it is. A user who declined an approval said no; who declined or
    closed any other form said nothing, and the request stays open.
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


async def _give(client: Client, by: str, request: PendingRequest, reply: tuple[str, dict[str, Json]]) -> None:
    action, content = reply
    if request.kind == "approval":
        if action == "accept" and content.get(_APPROVED) is True:
            await client.approve(request.request_id, by)
        elif action == "decline" or (action == "accept" and content.get(_APPROVED) is False):
            await client.deny(request.request_id, by, str(content.get(_WHY) or ""))
    elif action == "accept":
        own = request.facts.get("schema") is not None and "doubt" not in request.facts
        if not own and _ANSWER not in content:
            raise InvalidInput(f"the reply to request {request.request_id} has no field {_ANSWER!r}: fill the form")
        await client.answer(request.request_id, content if own else content[_ANSWER], by)


def _reply(said: Any) -> tuple[str, dict[str, Json]] | None:
    """(action, content) of an elicitation's result; None for what is none."""
    if hasattr(said, "model_dump"):
        said = said.model_dump(mode="json", by_alias=True)
    if not isinstance(said, dict) or not isinstance(said.get("action"), str):
        return None
    content = said.get("content")
    return said["action"], content if isinstance(content, dict) else {}
