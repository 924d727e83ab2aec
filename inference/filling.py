"""An output schema filled with quotes: what the built-in model can say, and a clear refusal of the rest.

Owns the mapping from JSON Schema to material (answer, quotes, parts, confidence). Knows no messages and
ranks nothing. A required field that quotes cannot fill is PermanentModelError("schema_not_extractive").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retinue.inference.quotes import Quote
from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentModelError

_DOCUMENT = frozenset({"document", "document_id", "doc_id", "source", "id"})
_QUOTE = frozenset({"quote", "text", "passage", "snippet"})
_CITATION = _DOCUMENT | _QUOTE | {"title", "start", "end", "score"}
_QUESTION = frozenset({"question", "query"})
_DEPTH = 8
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to say. `parts` are strings for arrays of strings; quotes are best first."""

    question: str
    answer: str
    quotes: Sequence[Quote]
    parts: Sequence[str]
    confidence: float


def fill_schema(schema: dict[str, Json], material: Material) -> Json:
    """A value for the schema. Optional fields that quotes cannot fill are left out."""
    return _Filler(schema, material).fill_required(schema, "answer", "the answer")


class _Filler:
    def __init__(self, root: dict[str, Json], material: Material) -> None:
        self._root = root
        self._material = material

    def fill_required(self, schema: Json, name: str, path: str) -> Json:
        value = self._fill(schema, name, path, 0)
        if value is _MISSING:
            raise _refuse(path, self._resolve(schema))
        return value

    def _fill(self, schema: Json, name: str, path: str, depth: int) -> Json:
        schema = self._resolve(schema)
        if depth > _DEPTH or not isinstance(schema, dict):
            return _MISSING
        if "const" in schema:
            return schema["const"]
        if "anyOf" in schema or "oneOf" in schema:
            return self._fill_any(schema, name, path, depth)
        kind = schema.get("type")
        if kind == "string":
            return self._fill_string(schema, name)
        if kind == "array":
            return self._fill_array(schema, name, path)
        if kind == "number" and name == "confidence":
            return self._material.confidence
        if kind == "object" and schema.get("properties"):
            return self._fill_object(schema, path, depth)
        return None if kind == "null" else _MISSING

    def _fill_any(self, schema: dict[str, Json], name: str, path: str, depth: int) -> Json:
        branches = [self._resolve(branch) for branch in schema.get("anyOf") or schema["oneOf"]]
        branches.sort(key=lambda branch: isinstance(branch, dict) and branch.get("type") == "null")
        for branch in branches:
            value = self._fill(branch, name, path, depth + 1)
            if value is not _MISSING:
                return value
        return _MISSING

    def _fill_string(self, schema: dict[str, Json], name: str) -> Json:
        if "enum" in schema or "format" in schema or "pattern" in schema:
            return _MISSING
        material = self._material
        if name in _QUESTION:
            text = material.question
        elif name == "title" or name in _DOCUMENT:
            best = material.quotes[0] if material.quotes else None
            text = "" if best is None else best.title if name == "title" else best.document
        else:
            text = material.answer
        longest = schema.get("maxLength")
        return text[:longest] if isinstance(longest, int) else text

    def _fill_array(self, schema: dict[str, Json], name: str, path: str) -> Json:
        items = self._resolve(schema.get("items"))
        if not isinstance(items, dict):
            return _MISSING
        if items.get("type") == "string" and not {"enum", "format", "pattern"} & items.keys():
            values = self._strings(name)
        elif items.get("type") == "object" and _CITATION & items.get("properties", {}).keys():
            values = [self._cite(items, quote, path) for quote in self._material.quotes]
        else:
            return _MISSING
        most = schema.get("maxItems")
        return values[:most] if isinstance(most, int) else values

    def _strings(self, name: str) -> list[Json]:
        singular = name.removesuffix("s")
        if singular in _DOCUMENT:
            return list(dict.fromkeys(quote.document for quote in self._material.quotes))
        if singular == "title":
            return list(dict.fromkeys(quote.title for quote in self._material.quotes))
        return list(self._material.parts)

    def _cite(self, items: dict[str, Json], quote: Quote, path: str) -> Json:
        known: dict[str, Json] = dict.fromkeys(_DOCUMENT, quote.document) | dict.fromkeys(_QUOTE, quote.text)
        known |= {"title": quote.title, "start": quote.start, "end": quote.end, "score": quote.score}
        required = set(items.get("required", ()))
        cited: dict[str, Json] = {}
        for name, schema in items["properties"].items():
            if name in known:
                cited[name] = known[name]
            elif name in required:
                cited[name] = self.fill_required(schema, name, f"{path}[].{name}")
        return cited

    def _fill_object(self, schema: dict[str, Json], path: str, depth: int) -> Json:
        properties = schema["properties"]
        if depth > 0 and {"start", "end"} <= properties.keys() and self._material.quotes:
            return self._cite(schema, self._material.quotes[0], path)
        required = set(schema.get("required", ()))
        filled: dict[str, Json] = {}
        for name, part in properties.items():
            here = f"{path}.{name}"
            value = self._fill(part, name, here, depth + 1)
            if value is not _MISSING:
                filled[name] = value
            elif name in required:
                raise _refuse(here, self._resolve(part))
        return filled

    def _resolve(self, schema: Json) -> Json:
        for _ in range(_DEPTH):
            if not isinstance(schema, dict) or not str(schema.get("$ref", "")).startswith("#/"):
                return schema
            target: Json = self._root
            for step in schema["$ref"][2:].split("/"):
                target = target.get(step, {}) if isinstance(target, dict) else {}
            schema = target
        return schema


def _refuse(path: str, schema: Json) -> PermanentModelError:
    kind = schema.get("type", "any") if isinstance(schema, dict) else "any"
    if isinstance(schema, dict) and "enum" in schema:
        kind = f"{kind} enum"
    if isinstance(schema, dict) and isinstance(schema.get("items"), dict):
        kind = f"{kind} of {schema['items'].get('type', 'any')}"
    return PermanentModelError(
        f"the output schema requires {path} of type {kind}, which quotes and citations cannot fill; "
        "builtin:extractive only quotes: make the field optional, or use another model "
        "(openai:NAME, anthropic:NAME or http://host/v1#NAME)",
        code="schema_not_extractive",
    )
