"""The lock file of remote capabilities: what was approved of each server, by whom, and what differs from it now.

It is the catalog: a project loads from it without a connection to anything. Owns the hashes of definitions and the
names of remote capabilities. Knows no server in use and no terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_core import from_json

from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import ConfigError, InvalidInput
from retinue.runs.lock_files import read_lock_file, write_lock_file
from retinue.sessions.connections import Listing, Pinned, ToolDefinition
from retinue.sessions.servers import Server

FILE = "capabilities.lock"
"""Beside retinue.yaml, and under version with it."""

MOST_TOOLS = 1_000
"""Tools of one server that can be pinned."""

LARGEST = 256 * 1024
"""Bytes of a definition that can be pinned."""

_LONGEST_NAME = 64
_MARK = 9
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class PinnedTool(Frozen):
    """A tool as it was approved. `sha256` is the hash of its definition as its server gave it."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    description: str
    input_schema: dict[str, Json]
    output_schema: dict[str, Json] | None = None
    annotations: dict[str, Json] = {}

    def definition(self, name: str) -> ToolDefinition:
        """As its server gave it."""
        return ToolDefinition(name, self.description, self.input_schema, self.output_schema, self.annotations)


class PinnedServer(Frozen):
    """What was approved of a server: `by` whom, `at` what time (UTC), what Retinue said it can (`client`), since the
    list depends on that, and the tools. `names` is the hash of all names; `left_out` says why a tool is not here."""

    by: str
    at: str
    protocol: str
    server: dict[str, Json] = {}
    client: tuple[str, ...]
    names: str
    left_out: dict[str, str] = {}
    tools: dict[str, PinnedTool]

    @property
    def pinned(self) -> Pinned:
        """What a connection compares the server's list with."""
        return Pinned({name: tool.sha256 for name, tool in self.tools.items()}, self.names)


class Lock(Frozen):
    """The whole file."""

    version: Literal[1] = 1
    servers: dict[str, PinnedServer] = {}


class Change(Frozen):
    """One tool that is not what was pinned. `fields` are paths of what changed, each with both sides; None: absent."""

    kind: Literal["added", "removed", "changed", "renamed"]
    tool: str
    before: str | None = None
    fields: tuple[tuple[str, Json, Json], ...] = ()


# -- names and hashes ------------------------------------------------------------------------------------


def capability_name(server: str, tool: str) -> str:
    """`server__tool`, safe for every model: other characters are `_`, what is too long ends in a hash of it."""
    name = f"{server}__{_UNSAFE.sub('_', tool)}"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = sha256(tool.encode(errors="surrogatepass")).hexdigest()[: _MARK - 1]
    return f"{name[: _LONGEST_NAME - _MARK]}_{mark}"


def digest_definition(tool: ToolDefinition) -> str:
    """SHA-256 (hex) of a definition as canonical JSON; empty, and so equal to no pin, for what has no such form."""
    text = _canonical(_as_json(tool))
    return "" if text is None else sha256(text).hexdigest()


def digest_names(names: Iterable[str]) -> str:
    """SHA-256 (hex) of a set of names, in whatever order they were listed."""
    text = "\n".join(json.dumps(name) for name in sorted(set(names)))
    return sha256(text.encode()).hexdigest()


def client_capabilities(server: Server) -> tuple[str, ...]:
    """What Retinue tells a server that it can."""
    return ("elicitation.form", "elicitation.url", *(("sampling",) if server.sampling else ()), "tasks")


def _as_json(tool: ToolDefinition) -> dict[str, Json]:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
        "annotations": tool.annotations,
    }


def _canonical(value: Json) -> bytes | None:
    try:
        return _CANONICAL.encode(value).encode(errors="surrogatepass")
    except (ValueError, TypeError, RecursionError):
        return None


# -- pinning ---------------------------------------------------------------------------------------------


def pin(server: Server, listing: Listing, by: str, at: str) -> PinnedServer:
    """What an approval of a listing is written as.

    InvalidInput: too many tools, or two that would be called the same. A single one that cannot be used is left out.
    """
    names = [tool.name for tool in listing.tools]
    if len(names) > MOST_TOOLS:
        raise InvalidInput(f"server {server.name!r} lists {len(names):,} tools; at most {MOST_TOOLS:,} can be pinned")
    _refuse_clashes(server, names)
    tools: dict[str, PinnedTool] = {}
    left_out: dict[str, str] = {}
    for tool in listing.tools:
        reason = _unusable(tool)
        if reason:
            left_out[tool.name] = reason
            continue
        tools[tool.name] = PinnedTool(
            sha256=digest_definition(tool),
            description=tool.description,
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=tool.annotations,
        )
    return PinnedServer(
        by=by,
        at=at,
        protocol=listing.protocol,
        server=listing.server_info,
        client=client_capabilities(server),
        names=digest_names(names),
        left_out=left_out,
        tools=tools,
    )


def _refuse_clashes(server: Server, names: list[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        called = capability_name(server.name, name)
        other = known.setdefault(called, name)
        if other != name or names.count(name) > 1:
            raise InvalidInput(
                f"server {server.name!r} lists the tools {other!r} and {name!r}, which would both be called "
                f"{called!r}: nothing of it is pinned"
            )


def _unusable(tool: ToolDefinition) -> str:
    text = _canonical(_as_json(tool))
    if not tool.name or len(tool.name) > 256 or not tool.name.isprintable():
        return "its name is empty, too long or holds characters that cannot be shown"
    if text is None or not _readable(tool):
        return "its definition is not JSON, or nested too deeply"
    if len(text) > LARGEST:
        return f"its definition has {len(text):,} bytes, more than {LARGEST:,}"
    return ""


def _readable(tool: ToolDefinition) -> bool:
    """Whether it can be read back from the file."""
    try:
        return bool(from_json(json.dumps(_as_json(tool))))
    except (ValueError, RecursionError):
        return False


# -- what differs ----------------------------------------------------------------------------------------


def changes(before: PinnedServer | None, after: PinnedServer) -> list[Change]:
    """What an approval of `after` would change, in the order of the tools' names."""
    old = before.tools if before is not None else {}
    gone = {name: tool for name, tool in old.items() if name not in after.tools}
    found: list[Change] = []
    for name, tool in after.tools.items():
        if name in old:
            if old[name].sha256 != tool.sha256:
                found.append(Change(kind="changed", tool=name, fields=tuple(_fields(old[name], tool))))
            continue
        same = next((other for other, known in gone.items() if _said(known) == _said(tool)), None)
        if same is None:
            found.append(Change(kind="added", tool=name))
        else:
            gone.pop(same)
            found.append(Change(kind="renamed", tool=name, before=same))
    found += [Change(kind="removed", tool=name) for name in gone]
    return sorted(found, key=lambda change: (change.tool, change.kind))


def _said(tool: PinnedTool) -> Json:
    return tool.model_dump(exclude={"sha256"})


def _fields(before: PinnedTool, after: PinnedTool) -> Iterable[tuple[str, Json, Json]]:
    old, new = (dict(_leaves(_said(tool), "")) for tool in (before, after))
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path) or (path in old) != (path in new):
            yield path, old.get(path), new.get(path)


def _leaves(value: Json, path: str) -> Iterable[tuple[str, Json]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


# -- the file --------------------------------------------------------------------------------------------


def read_lock(folder: Path) -> Lock:
    """The lock of a project's folder; an empty one where there is none.

    ConfigError when it is no lock, or holds a definition that does not fit its hash.
    """
    lock = _read(folder)
    for server, pinned in lock.servers.items():
        for name in pinned.tools.keys() - _intact(pinned).keys():
            raise ConfigError(
                f"{folder / FILE}: {server}.{name} is not what was approved: its definition does not fit its hash; "
                f"run `retinue capabilities pin {server}`"
            )
    return lock


def read_intact(folder: Path) -> Lock:
    """The same without what does not fit its hash: what may be pinned anew. ConfigError when it is no lock."""
    lock = _read(folder)
    kept = {name: pins.model_copy(update={"tools": _intact(pins)}) for name, pins in lock.servers.items()}
    return Lock(servers=kept)


def _intact(pinned: PinnedServer) -> dict[str, PinnedTool]:
    return {
        name: tool for name, tool in pinned.tools.items() if digest_definition(tool.definition(name)) == tool.sha256
    }


def _read(folder: Path) -> Lock:
    return read_lock_file(folder / FILE, Lock)


def write_lock(folder: Path, server: str, pinned: PinnedServer | None) -> None:
    """Put one server's pins into a folder's lock, or take them out; the file is replaced as a whole. ConfigError."""
    others = {name: other for name, other in _read(folder).servers.items() if name != server}
    kept = others if pinned is None else {**others, server: pinned}
    write_lock_file(folder / FILE, Lock(servers=kept))
