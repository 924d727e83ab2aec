"""Answers to requests, checked where they are given: a form by its schema, an address by a word, others as they are.

What a server is told is `{"action", "content"}`. Knows no store and no terminal.
"""

from __future__ import annotations

import json
import shlex

from retinue.runs import forms
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput

_DONE = ("done", "yes", "ok")
DECLINED: Json = {"action": "decline"}


def answer_to(request: PendingRequest, value: Json) -> Json:
    """What is kept of an answer. InvalidInput names request, field, value and remedy."""
    if not request.asked or request.status != "open":
        return value
    try:
        if request.asked.get("kind") == "url":
            return _visited(value)
        return {"action": "accept", "content": _filled(request.asked.get("schema"), value)}
    except InvalidInput as error:
        raise InvalidInput(f"request {request.request_id}: {error}; {' or '.join(ways(request))}") from None


def declined(request: PendingRequest) -> Json:
    """What is kept of a refusal. InvalidInput when the question is none that can be refused."""
    if not request.asked:
        raise InvalidInput(
            f"request {request.request_id} is no question of a server and cannot be declined: answer it, or deny it if "
            "it is an approval"
        )
    return DECLINED


def typed(request: PendingRequest, text: str) -> Json:
    """What somebody typed, as it is meant: a form of several fields is typed as a JSON object."""
    if request.asked.get("kind") != "form" or not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not JSON: {error}; {' or '.join(ways(request))}") from None


def ways(request: PendingRequest) -> tuple[str, ...]:
    """What to type to answer a question of a server."""
    verb = f"retinue answer {request.request_id}"
    if request.asked.get("kind") == "url":
        return f"{verb} done", f"{verb} --decline"
    schema = request.asked.get("schema")
    single = len(forms.fields(schema)) == 1
    given = "TEXT" if single else f"--value {shlex.quote(json.dumps(forms.example(schema)))}"
    return f"{verb} {given}", f"{verb} --decline"


def _visited(value: Json) -> Json:
    if str(value).strip().lower() not in _DONE:
        raise InvalidInput(f"the answer {value!r} does not say that it is done: say {_DONE[0]}")
    return {"action": "accept"}


def _filled(schema: Json, value: Json) -> dict[str, Json]:
    return forms.check(schema, forms.from_text(schema, value) if isinstance(value, str) else value)
