"""JSON against the schemas that servers give: bounded work, whatever a schema says.

Schemas come from elsewhere, and a regular expression or a web of references can take for ever: expressions are never
run, references never leave the schema, and every step is counted. The only module that knows jsonschema.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from retinue.runs.contracts import Json

MOST_PROBLEMS = 6
"""Problems that are looked for in one value."""

_STEPS = 4_000
_STEPS_PER_PART = 20
_SHARE = 16
_DEEPEST = 60
_TYPES = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_INNER = frozenset(
    "items contains additionalProperties propertyNames not if then else unevaluatedItems unevaluatedProperties".split()
)
_COUNTS = frozenset("minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains".split())
_PLAIN = _COUNTS | frozenset("enum const required dependentRequired minimum maximum multipleOf uniqueItems".split())
_LOOSE = frozenset({"additionalProperties", "unevaluatedProperties"})


class TooMuchWork(Exception):
    """A value cannot be judged by this schema within the bound."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a part of a value: where, which keyword says so, what that asks for, what was found.

    `known` are the names of properties there.
    """

    place: tuple[str | int, ...]
    keyword: str
    wanted: Json
    found: Json
    known: tuple[str, ...] = ()


class Schema:
    """A schema ready to judge values, in any thread. `judged` is what it judges by: of the given one what has a meaning
    and an end.
    """

    def __init__(self, given: dict[str, Json]) -> None:
        cleaned = _without_harm(given)
        self.judged: dict[str, Json] = cleaned if isinstance(cleaned, dict) else {}
        self._validator = _counting()(cleaned)

    def problems(self, value: Json) -> list[Problem]:
        """The first problems of a value, none when it fits. TooMuchWork."""
        _STEPS_LEFT.number = _STEPS + _STEPS_PER_PART * _parts(value)
        try:
            found = list(islice(self._validator.iter_errors(value), MOST_PROBLEMS))
        except (RecursionError, ArithmeticError) as error:
            raise TooMuchWork(type(error).__name__) from None
        return [_problem(error) for error in found]


_STEPS_LEFT = threading.local()
"""Of the one judgement that a thread makes at a time."""


@cache
def _counting() -> Any:
    """The library's validator, each of its rules counted."""
    return extend(Draft202012Validator, {name: _counted(rule) for name, rule in _RULES.items()})


def _counted(rule: Callable[..., Iterable[ValidationError] | None]) -> Callable[..., Any]:
    def judge(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(1 + (_length(wanted) + _length(instance)) // _SHARE)
        for error in rule(validator, wanted, instance, schema) or ():
            _spend(_parts(instance) // _SHARE)
            yield error

    return judge


def _spend(steps: int) -> None:
    _STEPS_LEFT.number -= steps
    if _STEPS_LEFT.number < 0:
        raise TooMuchWork("too many steps")


def _problem(error: ValidationError) -> Problem:
    schema = error.schema if isinstance(error.schema, dict) else {}
    place, keyword = tuple(error.absolute_path), str(error.validator or "")
    return Problem(place, keyword, error.validator_value, error.instance, tuple(schema.get("properties", {})))


def _unique(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The library compares each with each; this looks each up."""
    if wanted and isinstance(instance, list):
        seen = {json.dumps(part, sort_keys=True) for part in instance}
        if len(seen) < len(instance):
            yield ValidationError("not unique")


_RULES: dict[str, Callable[..., Any]] = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique}


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | dict | str) else 0


def _parts(value: Json) -> int:
    """How many values there are in a value, long texts counted as several."""
    total = 0
    pending = [value]
    while pending:
        part = pending.pop()
        total += 1 + (len(part) // 1_000 if isinstance(part, str) else 0)
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return total


# -- what is taken of a schema ---------------------------------------------------------------------------


def _without_harm(given: Json) -> Json:
    """The part of a schema that is judged by: older dialects turned into today's, what could do harm left out.

    A reference stays where it leads to a schema within this one; what is nested too deeply judges nothing.
    """
    places: set[str] = set()
    cleaned = _cleaned(given, "", places)
    pending = [cleaned]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str) and unquote(part["$ref"]) not in places:
                del part["$ref"]
            pending.extend(value for keyword, value in part.items() if keyword not in _PLAIN)
        elif isinstance(part, list):
            pending.extend(part)
    return cleaned


def _cleaned(schema: Json, place: str, places: set[str]) -> Json:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict) or place.count("/") > _DEEPEST:
        return {}
    places.add(f"#{place}")
    kept: dict[str, Json] = {}
    for keyword, value in schema.items():
        if _is_taken(keyword, value):
            kept[keyword] = value
        elif keyword in _NAMED and isinstance(value, dict):
            kept[keyword] = {name: _cleaned(part, _below(place, keyword, name), places) for name, part in value.items()}
        elif keyword in _LISTED and isinstance(value, list) and value:
            kept[keyword] = _cleaned_list(value, _below(place, keyword), places)
        elif keyword in _INNER and isinstance(value, dict | bool):
            kept[keyword] = _cleaned(value, _below(place, keyword), places)
    loose = _LOOSE if "patternProperties" in schema else frozenset()
    kept = {keyword: value for keyword, value in kept.items() if keyword not in loose}
    if isinstance(schema.get("items"), list) and schema["items"]:
        kept["prefixItems"] = _cleaned_list(schema["items"], _below(place, "prefixItems"), places)
        kept["items"] = _cleaned(schema.get("additionalItems", True), _below(place, "items"), places)
    return kept | _edges(kept, schema)


def _is_taken(keyword: str, value: Json) -> bool:
    """Whether a keyword without schemas in it counts, with this value."""
    if keyword in _COUNTS:
        return _is_number(value) and value >= 0
    match keyword:
        case "type":
            kinds = value if isinstance(value, list) else [value]
            return all(isinstance(kind, str) and kind in _TYPES for kind in kinds)
        case "minimum" | "maximum":
            return _is_number(value)
        case "multipleOf":
            return _is_number(value) and value > 0
        case "required":
            return _is_names(value)
        case "dependentRequired":
            return isinstance(value, dict) and all(map(_is_names, value.values()))
        case "enum":
            return isinstance(value, list)
        case "$ref":
            return isinstance(value, str)
        case "uniqueItems":
            return isinstance(value, bool)
        case _:
            return keyword == "const"


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_names(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _cleaned_list(parts: list[Json], place: str, places: set[str]) -> list[Json]:
    return [_cleaned(part, _below(place, str(index)), places) for index, part in enumerate(parts)]


def _below(place: str, *names: str) -> str:
    return "/".join((place, *(name.replace("~", "~0").replace("/", "~1") for name in names)))


def _edges(kept: dict[str, Json], schema: dict[str, Json]) -> dict[str, Json]:
    """Open limits; `exclusiveMinimum: true` is the oldest dialect's way to say that `minimum` is one."""
    found: dict[str, Json] = {}
    for edge, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        value = schema.get(edge)
        if value is True:
            value = kept.pop(limit, None)
        if _is_number(value):
            found[edge] = value
    return found
