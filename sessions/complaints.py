"""What is said when arguments or a result do not fit their schema: field, value, remedy.

Pure functions from validation errors to sentences a model or a person can act on. Knows no tool and no call.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from retinue.runs.contracts import Json

MAX_COMPLAINTS = 5
"""Problems told of one call; the rest are counted."""

MAX_ARGUMENTS = 30
"""Arguments of a tool that are told of."""


class Fault(Protocol):
    """What is wrong with a part of a value, by the keyword of a schema."""

    @property
    def place(self) -> tuple[str | int, ...]: ...
    @property
    def keyword(self) -> str: ...
    @property
    def wanted(self) -> Json: ...
    @property
    def found(self) -> Json: ...
    @property
    def known(self) -> tuple[str, ...]: ...


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
    more = f", and {len(parts) - MAX_ARGUMENTS} more" if len(parts) > MAX_ARGUMENTS else ""
    return ", ".join(parts[:MAX_ARGUMENTS]) + more if parts else "no arguments"


def _kind(part: Any) -> str:
    if not isinstance(part, dict):
        return "any"
    if "type" in part:
        return " or ".join(part["type"]) if isinstance(part["type"], list) else str(part["type"])
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


# -- of schemas that servers give ------------------------------------------------------------------------


def explain_remote_arguments(name: str, schema: dict[str, Json], problems: Sequence[Fault]) -> str:
    """The same for a tool of a server, whose schema says what it takes."""
    told = [text for problem in problems for text in _explain_problem(problem, "argument ", "the arguments are")]
    return f"tool {name!r}: {_join(list(dict.fromkeys(told)))}. It takes {_describe(schema)}."


def explain_remote_output(name: str, problems: Sequence[Fault]) -> str:
    """Which part of a server's result is not what it says it returns."""
    told = [text for problem in problems for text in _explain_problem(problem, "", "the result is")]
    return f"tool {name!r} returned what its output schema does not allow: {_join(list(dict.fromkeys(told)))}."


def explain_answer(problems: Sequence[Fault]) -> str:
    """Which part of a person's answer is not what the schema of the question wants."""
    told = [text for problem in problems for text in _explain_problem(problem, "field ", "the answer is")]
    return _join(list(dict.fromkeys(told)))


def _explain_problem(problem: Fault, what: str, whole: str) -> Iterator[str]:
    found, wanted = problem.found, problem.wanted
    if problem.keyword == "required" and isinstance(found, dict):
        for name in wanted:
            if name not in found:
                yield f"{what}{_spell((*problem.place, name))!r} is missing"
        return
    if problem.keyword == "additionalProperties" and wanted is False and isinstance(found, dict):
        for name in [name for name in found if name not in problem.known][: MAX_COMPLAINTS + 1]:
            close = difflib.get_close_matches(name, problem.known, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            yield f"there is no {what}{_spell((*problem.place, name))!r}{hint}"
        return
    place = _spell(problem.place)
    begin = f"{what}{place!r} is" if place else whole
    yield f"{begin} {_SHORT.repr(found)}: should {_demand(problem.keyword, wanted)}"


def _demand(keyword: str, wanted: Json) -> str:
    if keyword in _DEMANDS:
        shown = " or ".join(map(str, wanted)) if isinstance(wanted, list) and keyword == "type" else _SHORT.repr(wanted)
        return _DEMANDS[keyword].format(str(wanted) if isinstance(wanted, str) else shown)
    return f"fit what the schema says under {keyword!r}"


_DEMANDS = {
    "type": "be of type {}",
    "enum": "be one of {}",
    "const": "be {}",
    "minimum": "be at least {}",
    "maximum": "be at most {}",
    "exclusiveMinimum": "be more than {}",
    "exclusiveMaximum": "be less than {}",
    "multipleOf": "be a multiple of {}",
    "minLength": "have at least {} characters",
    "maxLength": "have at most {} characters",
    "minItems": "have at least {} items",
    "maxItems": "have at most {} items",
    "uniqueItems": "have no item twice",
    "anyOf": "have one of the forms that the schema allows",
    "oneOf": "have exactly one of the forms that the schema allows",
    "not": "not have a form that the schema forbids",
}
