"""The beginning of a connection: which protocol is spoken, and what the server lists.

Owns the choice between the two worlds and the bounds of a listing. Every wait inside is bounded by the caller's time;
the probe of `auto` has a share of it, for a server that answers nothing would otherwise use it up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hashlib import sha256

import mcp_types as types
from mcp import MCPError
from mcp.client import ClientSession
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentError
from retinue.sessions.connections import Listing, ToolDefinition
from retinue.sessions.mcp.faults import OURS
from retinue.sessions.mcp.texts import clean, clean_json, measure
from retinue.sessions.pins import digest_definition

PROBE = 10.0
"""Seconds for the probe of `auto`, and at most this share of the time for the connection:"""
PROBE_SHARE = 0.4

MAX_PAGES = 200
MAX_TOOLS = 2000
MAX_TOOL = 262_144
"""Bytes of one tool's definition."""
MAX_LISTING = 8 * 1024 * 1024
"""Bytes of all definitions."""
MAX_DESCRIPTION = 16_384
"""Characters of a tool's description, and of a text in its schemas."""

Known = types.DiscoverResult | types.InitializeResult
"""What a server said at the beginning of an earlier connection: adopted without traffic."""


async def negotiate(session: ClientSession, protocol: str, known: Known | None, seconds: float) -> None:
    """Agree on a protocol version. PermanentError (`protocol`) when there is none in common; MCPError otherwise."""
    if known is not None:
        session.adopt(known)
        return
    try:
        if protocol == "legacy":
            await session.initialize()
        elif protocol == "auto":
            await _negotiate_either(session, min(PROBE, seconds * PROBE_SHARE))
        else:
            await session.discover()
    except RuntimeError as error:
        raise PermanentError(f"no protocol version in common: {error}", code="protocol") from None


async def _negotiate_either(session: ClientSession, patience: float) -> None:
    version = LATEST_MODERN_VERSION
    for last in (False, True):
        found = await _probe(session, version, patience)
        if isinstance(found, types.DiscoverResult):
            session.adopt(found)
            return
        if found and not last:
            version = found
            continue
        try:
            await session.initialize()
        except MCPError as error:
            version = _common(error) if error.code == UNSUPPORTED_PROTOCOL_VERSION else ""
            if last or not version:
                raise
            continue
        return


async def _probe(session: ClientSession, version: str, patience: float) -> types.DiscoverResult | str:
    """What `server/discover` says; a version to ask with instead; or nothing, for a server of the older world."""
    try:
        async with asyncio.timeout(patience):
            found = types.DiscoverResult.model_validate(await session.send_discover(version))
    except (TimeoutError, ValidationError):
        return ""
    except MCPError as error:
        if error.code in OURS:
            raise
        if error.code == UNSUPPORTED_PROTOCOL_VERSION:
            common, offered = _common(error), _offered(error)
            if not common and offered and not set(offered) & set(HANDSHAKE_PROTOCOL_VERSIONS):
                raise
            return common
        return ""
    return found if set(found.supported_versions) & set(MODERN_PROTOCOL_VERSIONS) else ""


def _offered(error: MCPError) -> list[str]:
    try:
        return types.UnsupportedProtocolVersionErrorData.model_validate(error.data).supported
    except ValidationError:
        return []


def _common(error: MCPError) -> str:
    """The newest version of 2026-07-28 and later that both sides have."""
    offered = _offered(error)
    return next((version for version in reversed(MODERN_PROTOCOL_VERSIONS) if version in offered), "")


async def list_all(session: ClientSession) -> Listing:
    """Everything the server lists, cleaned. PermanentError (`protocol`) for a listing beyond all bounds.

    A tool whose definition is too large or nested too deep is left out: nobody could have pinned it.
    """
    tools: dict[str, ToolDefinition] = {}
    cursor, size = None, 0
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            weight = measure(tool.model_dump(mode="json", by_alias=True, exclude_none=True), MAX_TOOL)
            size += weight
            if (definition := _define(tool, weight)) is not None:
                tools.setdefault(definition.name, definition)
        if len(tools) > MAX_TOOLS or size > MAX_LISTING:
            raise PermanentError(
                f"its list is out of bounds: more than {MAX_TOOLS:,} tools or {MAX_LISTING:,} bytes", code="protocol"
            )
        cursor = page.next_cursor
        if not cursor:
            return Listing(
                tools=tuple(tools.values()),
                protocol=session.protocol_version or "",
                server_info=_dump(session.server_info),
                capabilities=_dump(session.server_capabilities),
            )
    raise PermanentError(f"its list does not end: more than {MAX_PAGES} pages", code="protocol")


@dataclass(frozen=True, slots=True)
class Hashes:
    """The hashes of a list: of each tool's definition by its name, and of all of them."""

    listing: Listing
    tools: dict[str, str]
    whole: str


def hashes_of(listing: Listing) -> Hashes:
    """Made once for each list: a call looks at them, and a list may be long."""
    tools = {tool.name: digest_definition(tool) for tool in listing.tools}
    whole = sha256("".join(tools[name] for name in sorted(tools)).encode()).hexdigest()
    return Hashes(listing, tools, whole)


def _define(tool: types.Tool, weight: int) -> ToolDefinition | None:
    if weight > MAX_TOOL:
        return None
    try:
        return ToolDefinition(
            name=clean(tool.name, 256),
            description=clean(tool.description or "", MAX_DESCRIPTION),
            input_schema=_clean_object(tool.input_schema),
            output_schema=None if tool.output_schema is None else _clean_object(tool.output_schema),
            annotations=_clean_object(_dump(tool.annotations)),
        )
    except ValueError:
        return None


def _clean_object(value: dict[str, Json]) -> dict[str, Json]:
    cleaned = clean_json(value, MAX_DESCRIPTION)
    return cleaned if isinstance(cleaned, dict) else {}


def _dump(value: types.Implementation | types.ServerCapabilities | types.ToolAnnotations | None) -> dict[str, Json]:
    dumped = {} if value is None else value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _clean_object(dumped)
