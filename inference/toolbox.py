"""Which of the disclosed tools search and which read on, told from their names, descriptions and schemas.

Pure. A tool qualifies when its one required argument is a string of a known name, so that a call can be made
of it without guessing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retinue.runs.messages import ToolSpec

_QUERY = ("query", "q", "question", "text")
_DOCUMENT = ("document_id", "document", "doc_id", "id", "page", "path", "title")
_COUNTS = ("k", "limit", "top_k", "max_results", "count")
MOST = 10
"""Passages asked for in one search, when the tool lets its caller say so."""
_SEARCHES = re.compile(r"search|find|retrieve|look ?up", re.IGNORECASE)
_READS = re.compile(r"read|fetch|open|get|load", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that can be called with one string; `count` names its optional number of results, if it has one."""

    name: str
    argument: str
    count: str = ""


def find_search(tools: tuple[ToolSpec, ...]) -> Tool | None:
    """The tool that searches; one whose name says so comes before one whose description does."""
    return _find(tools, _SEARCHES, _QUERY)


def find_reader(tools: tuple[ToolSpec, ...]) -> Tool | None:
    """The tool that reads one document by its id."""
    return _find(tools, _READS, _DOCUMENT)


def _find(tools: tuple[ToolSpec, ...], says: re.Pattern[str], arguments: tuple[str, ...]) -> Tool | None:
    callable_tools = [
        (spec, argument) for spec in tools if not spec.control and (argument := _argument(spec, arguments))
    ]
    named = [(spec, argument) for spec, argument in callable_tools if says.search(spec.name)]
    told = [(spec, argument) for spec, argument in callable_tools if says.search(spec.description)]
    for spec, argument in named + told:
        return Tool(spec.name, argument, _count(spec))
    return None


def _argument(spec: ToolSpec, names: tuple[str, ...]) -> str:
    properties = spec.input_schema.get("properties")
    required = spec.input_schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list) or len(required) != 1:
        return ""
    name = required[0]
    shape = properties.get(name)
    return name if name in names and isinstance(shape, dict) and shape.get("type") == "string" else ""


def _count(spec: ToolSpec) -> str:
    properties = spec.input_schema["properties"]
    for name in _COUNTS:
        shape = properties.get(name)
        if isinstance(shape, dict) and shape.get("type") == "integer" and shape.get("maximum", MOST) >= MOST:
            return name
    return ""
