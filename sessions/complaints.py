"""What is said when arguments or a result do not fit their schema: field, value, remedy.

Pure functions from validation errors to sentences a model or a person can act on. Knows no tool and no call.
"""

from __future__ import annotations

import difflib
import reprlib
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from retinue.runs.contracts import Json

MAX_COMPLAINTS = 5
"""Problems told of one call; the rest are counted."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def explain_arguments(name: str, schema: dict[str, Json], error: ValidationError) -> str:
    """Why the arguments of a call were refused, and what the tool takes."""
    known = list(schema.get("properties", {}))
    told = [_explain_argument(detail, known) for detail in error.errors(include_url=False)]
    return f"tool {name!r}: {_join(told)}. It takes {_describe(schema)}."


def explain_output(name: str, error: ValidationError) -> str:
    """Which part of a result is not what the tool's return type says."""
    told = [
        f"{_spell(detail['loc']) or 'the result'} is {_SHORT.repr(detail['input'])}: {detail['msg']}"
        for detail in error.errors(include_url=False)
    ]
    return f"tool {name!r} returned what its return type does not allow: {_join(told)}."


def _explain_argument(detail: ErrorDetails, known: list[str]) -> str:
    field = _spell(detail["loc"])
    if not field:
        return f"the arguments are {_SHORT.repr(detail['input'])}: {detail['msg']}"
    if detail["type"] == "missing":
        return f"argument {field!r} is missing"
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, known, 1)
        return f"there is no argument {field!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    return f"argument {field!r} is {_SHORT.repr(detail['input'])}: {detail['msg']}"


def _describe(schema: dict[str, Json]) -> str:
    required = set(schema.get("required", []))
    parts = [
        f"{name} ({_kind(part)}{', required' if name in required else ''})"
        for name, part in schema.get("properties", {}).items()
    ]
    return ", ".join(parts) if parts else "no arguments"


def _kind(part: Any) -> str:
    if "type" in part:
        return str(part["type"])
    if "anyOf" in part:
        return " or ".join(_kind(option) for option in part["anyOf"])
    if "enum" in part:
        return " or ".join(repr(value) for value in part["enum"])
    return "object" if "$ref" in part else "any"


def _spell(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)


def _join(told: list[str]) -> str:
    more = len(told) - MAX_COMPLAINTS
    shown = "; ".join(told[:MAX_COMPLAINTS])
    return f"{shown}; and {more} more" if more > 0 else shown
