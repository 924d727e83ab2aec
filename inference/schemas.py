"""JSON Schemas as the endpoints want them: pure rewritings of a schema.

Owns what "strict" asks for and what Anthropic's structured output refuses. The runtime validates every
answer against the unchanged schema, so a keyword dropped here is still held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from retinue.runs.contracts import Json

_REFUSED = frozenset(
    """exclusiveMaximum exclusiveMinimum maxItems maxLength maxProperties maximum minLength minProperties
    minimum multipleOf pattern uniqueItems""".split()
)
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_NESTED = ("items", "anyOf", "allOf", "oneOf", "prefixItems", "not", "additionalProperties")


def is_strict(schema: Json) -> bool:
    """Whether every object of the schema is closed and requires all its properties (OpenAI's `strict`)."""
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or names != set(schema.get("required", ())):
            return False
    return "default" not in schema and all(is_strict(part) for part in _parts(schema))


def close_objects(schema: Json) -> Json:
    """A copy whose objects with named properties refuse others, without keywords that Anthropic refuses."""
    if isinstance(schema, list):
        return [close_objects(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Json] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            closed[key] = {name: close_objects(part) for name, part in value.items()}
        elif key in _NESTED:
            closed[key] = close_objects(value)
        elif key not in _REFUSED and not (key == "minItems" and value not in (0, 1)):
            closed[key] = value
    if "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def schema_prompt(schema: Json) -> str:
    """The instruction that goes along when an endpoint cannot be held to a schema by itself."""
    return (
        "Answer with one JSON object and nothing else. It must satisfy this JSON Schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )


def _parts(schema: dict[str, Json]) -> Iterator[Json]:
    for key in _NAMED:
        yield from schema.get(key, {}).values()
    for key in _NESTED:
        value = schema.get(key)
        yield from value if isinstance(value, list) else [value]
