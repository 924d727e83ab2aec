"""Answers to requests, checked where they are given: by the schema that goes with the question, an address by a word.

Every door (the commands, the keyboard, the client, MCP) comes through here. What a server is told is
`{"action", "content"}`. Knows no store and no terminal.
"""

from __future__ import annotations

import importlib
import json
import shlex

from retinue.runs import forms
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput

_DONE = ("done", "yes", "ok")
DECLINED: Json = {"action": "decline"}


def schema_of(request: PendingRequest) -> dict[str, Json] | None:
    """The JSON Schema of the answer: of a server's form, or the `schema` that a workflow gave with its question."""
    found = request.asked.get("schema") or request.facts.get("schema")
    return found if request.kind == "input" and isinstance(found, dict) else None


def answer_to(request: PendingRequest, value: Json) -> Json:
    """What is kept of an answer. InvalidInput names request, field, value and what the schema wants there."""
    if request.status != "open" or not is_checked(request):
        return value
    try:
        if request.asked.get("kind") == "url":
            return _visited(value)
        if request.asked:
            return {"action": "accept", "content": _filled(request.asked.get("schema"), value)}
        return _fitting(schema_of(request), value)
    except InvalidInput as error:
        raise InvalidInput(f"request {request.request_id}: {error}; {' or '.join(ways(request))}") from None


def is_checked(request: PendingRequest) -> bool:
    """Whether an answer may be wrong: a server asks, or a schema goes with the question. Else any JSON is one."""
    return bool(request.asked) or schema_of(request) is not None


def declined(request: PendingRequest) -> Json:
    """What is kept of a refusal. InvalidInput when the question is none that can be refused."""
    if not request.asked:
        raise InvalidInput(
            f"request {request.request_id} is no question of a server and cannot be declined: answer it, or deny it if "
            "it is an approval"
        )
    return DECLINED


def typed(request: PendingRequest, text: str) -> Json:
    """What somebody typed, as it is meant: where a schema asks for more than one text or number, JSON."""
    schema = schema_of(request)
    if schema is None or not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not JSON: {error}; {' or '.join(ways(request))}") from None


def ways(request: PendingRequest) -> tuple[str, ...]:
    """What to type to answer a question that `is_checked`."""
    verb = f"retinue answer {request.request_id}"
    refusal = (f"{verb} --decline",) if request.asked else ()
    if request.asked.get("kind") == "url":
        return f"{verb} done", *refusal
    schema = schema_of(request)
    if not request.asked and not forms.is_form(schema):
        return (f"{verb} --value JSON",)
    single = len(forms.fields(schema)) == 1
    given = "TEXT" if single else f"--value {shlex.quote(json.dumps(forms.example(schema)))}"
    return f"{verb} {given}", *refusal


def _visited(value: Json) -> Json:
    if str(value).strip().lower() not in _DONE:
        raise InvalidInput(f"the answer {value!r} does not say that it is done: say {_DONE[0]}")
    return {"action": "accept"}


def _filled(schema: Json, value: Json) -> dict[str, Json]:
    return forms.check(schema, forms.from_text(schema, value) if isinstance(value, str) else value)


def _fitting(schema: Json, value: Json) -> Json:
    """An answer by a workflow's schema: a form as it was filled, with its defaults; anything else as it was given."""
    given = _filled(schema, value) if forms.is_form(schema) else value
    check = importlib.import_module("retinue.sessions.answers")  # a validator costs: only what needs it pays
    problem = check.problem_of(schema, given)
    if problem is not None:
        raise InvalidInput(problem)
    return given
