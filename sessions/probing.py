"""Probes of remote calls: the question that is asked, and what its answer says.

Pure functions over a probe's declaration. Knows no connection.
"""

from __future__ import annotations

from string import Template

from pydantic_core import from_json, to_json

from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentError
from retinue.sessions.calls import MAX_MESSAGE
from retinue.sessions.connections import RemoteResult
from retinue.sessions.servers import Probe


def placeholders(arguments: Json) -> set[str]:
    """The names that a probe's arguments refer to."""
    if isinstance(arguments, str):
        return set(Template(arguments).get_identifiers())
    parts = arguments.values() if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else ()
    return {name for part in parts for name in placeholders(part)}


def fill(arguments: dict[str, Json], values: dict[str, Json]) -> dict[str, Json]:
    """A probe's arguments for one call. One that is `$name` alone is left out where the call does not have it."""
    return {
        name: _filled(part, values)
        for name, part in arguments.items()
        if not (_alone(part) and _alone(part) not in values)
    }


def found_by(probe: Probe, result: RemoteResult, where: str) -> Json:
    """What a probe found of the call; None when it has not happened. PermanentError when the probe itself failed."""
    if result.is_error:
        raise PermanentError(f"the probe {where} failed: {result.text[:MAX_MESSAGE]}", code="raised")
    if probe.absent is not None and probe.absent in result.text:
        return None
    value = result.structured if result.structured is not None else _read(result.text)
    for name in probe.found.split(".") if probe.found else ():
        value = _part(value, name)
    return value or None


def _alone(part: Json) -> str:
    """The name that a text consists of; empty for any other value."""
    names = Template(part).get_identifiers() if isinstance(part, str) else []
    return names[0] if len(names) == 1 and part in (f"${names[0]}", f"${{{names[0]}}}") else ""


def _filled(part: Json, values: dict[str, Json]) -> Json:
    if isinstance(part, str):
        alone = _alone(part)
        return values[alone] if alone in values else Template(part).safe_substitute(_Texts(values))
    if isinstance(part, list):
        return [_filled(inner, values) for inner in part]
    return {name: _filled(inner, values) for name, inner in part.items()} if isinstance(part, dict) else part


class _Texts(dict[str, Json]):
    """Values as the texts that stand for them; nothing for what is not there."""

    def __getitem__(self, name: str) -> str:
        value = self.get(name, "")
        return value if isinstance(value, str) else to_json(value).decode()


def _read(text: str) -> Json:
    try:
        return from_json(text)
    except ValueError:
        return text


def _part(value: Json, name: str) -> Json:
    if isinstance(value, list):
        return value[int(name)] if name.isdigit() and int(name) < len(value) else None
    return value.get(name) if isinstance(value, dict) else None
