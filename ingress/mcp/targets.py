"""Agents and workflows as tools of their own: a call is a run, its result the run's answer. Pure.

Knows no run and no wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from retinue.ingress.mcp.telling import told_target
from retinue.ingress.mcp.tools import OFFERS
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.registry import Registry

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class TargetTool:
    """How a target is called. `wrapped`: its input is no object, and stands in the argument `input`."""

    name: str
    description: str
    schema: dict[str, Json]
    wrapped: bool

    def input_of(self, arguments: dict[str, Json]) -> Json:
        """What the run is given. InvalidInput when the argument is not there."""
        if not self.wrapped:
            return arguments
        if set(arguments) != {"input"}:
            raise InvalidInput(
                f"{self.name} takes one argument, `input` (got {', '.join(sorted(arguments)) or 'none'})"
            )
        return arguments["input"]


def target_tools(registry: Registry, names: Iterable[str]) -> dict[str, TargetTool]:
    """These targets as tools. UnknownName for one that is not there, InvalidInput for a name no tool can have."""
    return {name: _tool(registry, name) for name in names}


def _tool(registry: Registry, name: str) -> TargetTool:
    told = told_target(registry.get(name))
    if name in OFFERS or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"--tool {name}: a tool needs a name of letters, digits, `_`, `.` and `-` that no other tool has; "
            "`submit_run` begins this one"
        )
    schema: dict[str, Json] = dict(told["input_schema"] or {})
    described = f"{told['about'].removesuffix('.')}. A call is a durable run of the {told['kind']} {name!r}."
    if schema.get("type") == "object":
        return TargetTool(name, described, schema, wrapped=False)
    parts = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    whole = {"type": "object", "properties": {"input": schema}, "required": ["input"], "additionalProperties": False}
    return TargetTool(name, described, whole | parts, wrapped=True)
