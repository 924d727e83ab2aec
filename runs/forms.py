"""Forms that servers and workflows ask people to fill in: whether an answer is one, told field by field. Pure.

The schemas are the flat objects that the protocol allows: texts, numbers, truth values and choices. What a server wants
of an answer beyond that is its own business.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput

_PLAIN = {"string", "number", "integer", "boolean"}
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_SHOWN = 80


def is_form(schema: Json) -> bool:
    """Whether a schema is a form: an object of plain values, choices and lists of them."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return False
    return all(map(_is_field, schema["properties"].values()))


def _is_field(field: Json) -> bool:
    if isinstance(field, dict) and field.get("type") == "array":
        return _is_plain(field.get("items", {"type": "string"}))
    return _is_plain(field)


def _is_plain(field: Json) -> bool:
    if not isinstance(field, dict):
        return False
    return (isinstance(field.get("type"), str) and field["type"] in _PLAIN) or _choices(field) is not None


def fields(schema: Json) -> dict[str, dict[str, Any]]:
    """The fields of a form by name."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return (
        {str(name): each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}
    )


def required(schema: Json) -> list[str]:
    """The fields that must be given."""
    names = schema.get("required") if isinstance(schema, dict) else None
    return [name for name in names if name in fields(schema)] if isinstance(names, list) else []


def example(schema: Json) -> dict[str, Json]:
    """Values of the right kinds for the fields that must be given, or for all where none must."""
    wanted = required(schema) or list(fields(schema))
    return {name: _example(field) for name, field in fields(schema).items() if name in wanted}


def from_text(schema: Json, text: str) -> dict[str, Json]:
    """A form of one field from a text. InvalidInput when it has another number of fields."""
    found = fields(schema)
    wanted = required(schema) if len(required(schema)) == 1 else list(found)
    if len(wanted) != 1:
        names = ", ".join(f"{name} ({describe(field)})" for name, field in found.items())
        raise InvalidInput(f"it asks for a form with the fields {names}: give --value with a JSON object")
    return {wanted[0]: _read(found[wanted[0]], text)}


def check(schema: Json, value: Json) -> dict[str, Json]:
    """The answer, with defaults filled in. InvalidInput names the field, its value and the remedy."""
    found = fields(schema)
    if not isinstance(value, dict):
        raise InvalidInput(f"the answer {_show(value)} is no JSON object: give the fields {', '.join(found)}")
    for name in value:
        if name not in found:
            raise InvalidInput(f"field {name!r} is not asked for: the fields are {', '.join(found) or 'none'}")
    filled = {name: each["default"] for name, each in found.items() if "default" in each} | value
    for name in required(schema):
        if name not in filled:
            raise InvalidInput(f"field {name!r} is missing: give {describe(found[name])}")
    for name, given in filled.items():
        problem = _problem(found[name], given)
        if problem is not None:
            raise InvalidInput(f"field {name!r} is {_show(given)}: {problem}")
    return filled


def describe(field: dict[str, Any]) -> str:
    """What a field takes, in words."""
    choices = _choices(field)
    if choices is not None:
        return f"one of {', '.join(map(str, choices))}"
    if field.get("type") == "array":
        return f"a list, each {describe(field.get('items') or {})}"
    kind = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    said = kind.get(str(field.get("type")), "a value")
    return f"{said} ({field['format']})" if field.get("type") == "string" and "format" in field else said


def _problem(field: dict[str, Any], value: Json) -> str | None:
    choices = _choices(field)
    if choices is not None:
        return None if value in choices else f"give {describe(field)}"
    match field.get("type"):
        case "string":
            return _text_problem(field, value)
        case "integer" | "number":
            return _number_problem(field, value)
        case "boolean":
            return None if isinstance(value, bool) else "give true or false"
        case "array":
            return _list_problem(field, value)
    return None


def _text_problem(field: dict[str, Any], value: Json) -> str | None:
    if not isinstance(value, str):
        return "give a text"
    least, most = field.get("minLength"), field.get("maxLength")
    if isinstance(least, int) and len(value) < least:
        return f"give at least {least} characters"
    if isinstance(most, int) and len(value) > most:
        return f"give at most {most} characters"
    return _format_problem(str(field.get("format", "")), value)


def _format_problem(form: str, value: str) -> str | None:
    try:
        if form == "date":
            date.fromisoformat(value)
        elif form == "date-time":
            datetime.fromisoformat(value)
    except ValueError:
        return "give a date such as 2026-11-21" if form == "date" else "give a time such as 2026-11-21T14:00:00+00:00"
    if form == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        return "give an address such as ana@example.com"
    if form == "uri" and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", value):
        return "give an address such as https://example.com"
    return None


def _number_problem(field: dict[str, Any], value: Json) -> str | None:
    whole = field.get("type") == "integer"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"give {describe(field)}"
    if whole and value != int(value):
        return f"give {describe(field)}"
    least, most = field.get("minimum"), field.get("maximum")
    if isinstance(least, int | float) and value < least:
        return f"give at least {least}"
    if isinstance(most, int | float) and value > most:
        return f"give at most {most}"
    return None


def _list_problem(field: dict[str, Any], value: Json) -> str | None:
    if not isinstance(value, list):
        return f"give {describe(field)}"
    least, most = field.get("minItems"), field.get("maxItems")
    if isinstance(least, int) and len(value) < least:
        return f"give at least {least}"
    if isinstance(most, int) and len(value) > most:
        return f"give at most {most}"
    inner = field.get("items")
    problems = (_problem(inner, each) for each in value) if isinstance(inner, dict) else iter(())
    return next((problem for problem in problems if problem is not None), None)


def _choices(field: dict[str, Any]) -> list[Json] | None:
    """What may be chosen; None where anything of the kind may be given."""
    if isinstance(field.get("enum"), list):
        return list(field["enum"])
    for name in ("oneOf", "anyOf"):
        parts = field.get(name)
        if isinstance(parts, list) and all(isinstance(part, dict) and "const" in part for part in parts):
            return [part["const"] for part in parts]
    return None


def _read(field: dict[str, Any], text: str) -> Json:
    """A text as the value of a field; left as it is when it is none, so that the check tells."""
    kind = field.get("type")
    if kind == "boolean":
        return _WORDS.get(text.strip().lower(), text)
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return text
    return text


def _example(field: dict[str, Any]) -> Json:
    if "default" in field:
        return field["default"]
    choices = _choices(field)
    if choices:
        return choices[0]
    kinds: dict[str, Json] = {"integer": 1, "number": 1.5, "boolean": True, "array": []}
    return kinds.get(str(field.get("type")), "...")


def _show(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
