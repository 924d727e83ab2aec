"""Between what a server asks and what a person or a model is asked: questions out of requests, and responses.

Owns the bounds of a question. What a server writes is shown, never obeyed; a form is data for whoever checks it.
Knows no transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import mcp_types as types
from pydantic import TypeAdapter, ValidationError

from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentError
from retinue.runs.sessions import Question, Reply
from retinue.sessions.mcp.texts import clean, clean_json, measure

MAX_MESSAGE = 4000
"""Characters of the text that a person reads."""
MAX_FORM = 65536
"""Bytes of a form's schema, or of a sampling request."""
MAX_URL = 2048
MAX_QUESTIONS = 16
"""Questions of one round."""

_REQUEST: TypeAdapter[types.InputRequest] = TypeAdapter(types.InputRequest)
_SAMPLED: TypeAdapter[types.CreateMessageResult | types.CreateMessageResultWithTools] = TypeAdapter(
    types.CreateMessageResult | types.CreateMessageResultWithTools
)


class Unaskable(ValueError):
    """A request that is not passed on; the message says why, in words that a server may be told."""


def read_request(key: str, request: types.InputRequest, sampling: bool) -> Question:
    """The question in a request. Unaskable for what was not offered, or is out of bounds."""
    if isinstance(request, types.ElicitRequest):
        return _read_elicitation(key, request.params)
    if isinstance(request, types.CreateMessageRequest):
        if not sampling:
            raise Unaskable("sampling is not offered to this server")
        asked = request.params.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meta"})
        return Question(key=key, kind="sampling", message="", asked=_bounded(asked, "sampling request"))
    raise Unaskable(f"{request.method} is not offered")


def read_requests(where: str, requests: Mapping[str, types.InputRequest], sampling: bool) -> tuple[Question, ...]:
    """The questions of one round. PermanentError (`refused`): the server wants what it must not have."""
    try:
        if len(requests) > MAX_QUESTIONS:
            raise Unaskable(f"{len(requests)} questions at once, {MAX_QUESTIONS} are the most")
        return tuple(read_request(key, request, sampling) for key, request in requests.items())
    except Unaskable as error:
        raise PermanentError(
            f"{where} cannot go on: its server asks for what it is refused: {error}", code="refused"
        ) from None


def read_again(requests: Mapping[str, Json]) -> dict[str, types.InputRequest]:
    """Requests out of the JSON that a token keeps."""
    return {key: _REQUEST.validate_python(request, by_name=False) for key, request in requests.items()}


def keep_requests(requests: Mapping[str, types.InputRequest]) -> dict[str, Json]:
    """Requests as the JSON that a token keeps."""
    return {key: request.model_dump(by_alias=True, mode="json", exclude_none=True) for key, request in requests.items()}


def write_responses(requests: Mapping[str, types.InputRequest], replies: Mapping[str, Reply]) -> types.InputResponses:
    """What the server is told. A question without a reply is answered `cancel`."""
    responses: types.InputResponses = {}
    for key, request in requests.items():
        reply = replies.get(key) or Reply(action="cancel")
        responses[key] = (
            write_sampled(reply) if isinstance(request, types.CreateMessageRequest) else write_elicited(reply)
        )
    return responses


def write_elicited(reply: Reply) -> types.ElicitResult:
    """The result of an elicitation."""
    content = reply.content if reply.action == "accept" and isinstance(reply.content, dict) else None
    return types.ElicitResult.model_validate({"action": reply.action, "content": content})


def write_sampled(reply: Reply) -> types.CreateMessageResult | types.CreateMessageResultWithTools:
    """The result of a sampling request: what the model said, as a text or in the protocol's own shape.

    PermanentError (`refused`) when it was declined: 2026-07-28 has no other way to say no.
    """
    if reply.action != "accept":
        raise PermanentError("the call ended: the model that its server asked for was refused", code="refused")
    said = reply.content
    if isinstance(said, dict) and "content" in said:
        body: dict[str, Json] = {"role": "assistant", "model": "unnamed", **said}
    else:
        text = said if isinstance(said, str) else ""
        body = {"role": "assistant", "model": "unnamed", "content": {"type": "text", "text": text}}
    try:
        return _SAMPLED.validate_python(body, by_name=False)
    except ValidationError as error:
        problem = f"what the model said is no sampling result: {error.error_count()} faults"
        raise PermanentError(problem, code="refused") from None


def _read_elicitation(key: str, params: types.ElicitRequestParams) -> Question:
    message = clean(params.message, MAX_MESSAGE)
    if isinstance(params, types.ElicitRequestURLParams):
        asked: dict[str, Json] = {"url": _address(params.url)}
        if params.elicitation_id is not None:
            asked["id"] = clean(params.elicitation_id, 256)
        return Question(key=key, kind="url", message=message, asked=asked)
    return Question(key=key, kind="form", message=message, asked={"schema": _bounded(params.requested_schema, "form")})


def _address(url: str) -> str:
    if len(url) > MAX_URL or clean(url, MAX_URL) != url or any(letter.isspace() for letter in url):
        raise Unaskable("an address that is too long or holds control characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Unaskable("an address that cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise Unaskable("an address that is not http or https, or holds a name and password")
    return url


def _bounded(asked: dict[str, Json], what: str) -> dict[str, Json]:
    if measure(asked, MAX_FORM) > MAX_FORM:
        raise Unaskable(f"a {what} of more than {MAX_FORM:,} bytes")
    try:
        return cast("dict[str, Json]", clean_json(asked, MAX_FORM))
    except ValueError as error:
        raise Unaskable(f"a {what} that cannot be used: {error}") from None
