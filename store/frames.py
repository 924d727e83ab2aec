"""Entries to bytes and back: plain facts, sealed content, shared messages, blobs.

A frame is what one append stores: the facts of its entries as JSON, and their contents as one sealed JSON
array. A list under `messages` at the top of a content is content-addressed: each element is stored once per
tenant however often a transcript repeats it. Content above the inline limit becomes a blob. Knows no SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic_core import from_json, to_json

from retinue.runs.contracts import Json
from retinue.runs.errors import StoreError
from retinue.runs.journal import ENTRIES, SCHEMA, AnyEntry
from retinue.store.blobs import INLINE_LIMIT, Blobs
from retinue.store.sealing import Vault

_SHARED = "messages"
_PREVIEW = 200


@dataclass(slots=True)
class Encoded:
    """A frame ready to be written, with the shared rows (hash, sealed) and the blobs it refers to."""

    facts: bytes
    sealed: bytes | None
    count: int
    shared: list[tuple[bytes, bytes]] = field(default_factory=list)
    blobs: list[tuple[str, bytes]] = field(default_factory=list)


class FrameCodec:
    """Encodes and decodes frames for any tenant. Thread-safe; encoding touches no disk."""

    def __init__(self, vault: Vault, blobs: Blobs) -> None:
        self._vault = vault
        self._blobs = blobs
        self._known = lru_cache(maxsize=20_000)(self._seal_shared)

    def encode(self, tenant_id: str, bound_to: str, entries: Sequence[AnyEntry]) -> Encoded:
        """`bound_to` names run and position: a frame moved elsewhere does not open."""
        facts = ENTRIES.dump_json(tuple(entries), exclude_defaults=False)
        encoded = Encoded(facts, None, len(entries))
        if any(entry.content is not None for entry in entries):
            contents = [self._stored(tenant_id, entry.content, encoded) for entry in entries]
            encoded.sealed = self._vault.seal(tenant_id, b"[" + b",".join(contents) + b"]", bound_to.encode())
        return encoded

    def decode(
        self,
        tenant_id: str,
        bound_to: str,
        row: tuple[int, bytes, bytes | None],
        fetch: Callable[[bytes], bytes | None],
    ) -> tuple[AnyEntry, ...]:
        """`row` is (schema, facts, sealed); `fetch` reads a sealed shared content by hash.

        Contents are None when the tenant's key was destroyed. SchemaMismatch is the caller's to raise.
        """
        schema, facts, sealed = row
        if schema > SCHEMA:
            raise StoreError(f"entry schema {schema} of {bound_to} is newer than this version knows ({SCHEMA})")
        entries = ENTRIES.validate_json(facts)
        plain = None if sealed is None else self._vault.open(tenant_id, sealed, bound_to.encode())
        if plain is None:
            return entries
        contents = [self._restored(tenant_id, content, fetch) for content in _load(plain)]
        return tuple(
            entry if content is None else entry.model_copy(update={"content": content})
            for entry, content in zip(entries, contents, strict=True)
        )

    def keep(self, tenant_id: str, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Make the blobs of encoded frames durable; must precede the commit that names them. Blocking."""
        for address, plain in blobs:
            self._blobs.put(tenant_id, address, plain)

    def seal(self, tenant_id: str, value: Json, bound_to: str) -> bytes:
        """One value outside a frame: a prompt, an answer, an event."""
        return self._vault.seal(tenant_id, _dump(value), bound_to.encode())

    def open(self, tenant_id: str, sealed: bytes | None, bound_to: str) -> Json:
        """The value that `seal` was given; None when the tenant's key was destroyed."""
        plain = None if sealed is None else self._vault.open(tenant_id, sealed, bound_to.encode())
        return None if plain is None else _load(plain)

    def _stored(self, tenant_id: str, content: Json, encoded: Encoded) -> bytes:
        if content is None:
            return b"null"
        if isinstance(content, dict) and isinstance(content.get(_SHARED), list | tuple):
            rows = [self._known(tenant_id, _dump(part)) for part in content[_SHARED]]
            encoded.shared.extend(rows)
            content = {**content, _SHARED: {"$shared": [row[0].hex() for row in rows]}}
        plain = _dump(content)
        if len(plain) <= INLINE_LIMIT:
            return plain
        address = self._vault.address(tenant_id, plain).hex()
        encoded.blobs.append((address, plain))
        preview = plain[:_PREVIEW].decode(errors="replace")
        return _dump({"$blob": address, "size": len(plain), "type": "application/json", "preview": preview})

    def _seal_shared(self, tenant_id: str, plain: bytes) -> tuple[bytes, bytes]:
        address = self._vault.address(tenant_id, plain)
        return address, self._vault.seal(tenant_id, plain, address)

    def _restored(self, tenant_id: str, content: Json, fetch: Callable[[bytes], bytes | None]) -> Json:
        if not isinstance(content, dict):
            return content
        if "$blob" in content:
            plain = self._blobs.get(tenant_id, content["$blob"])
            content = None if plain is None else _load(plain)
        if isinstance(content, dict) and isinstance(content.get(_SHARED), dict) and "$shared" in content[_SHARED]:
            parts = [self._shared(tenant_id, bytes.fromhex(part), fetch) for part in content[_SHARED]["$shared"]]
            content = {**content, _SHARED: parts}
        return content

    def _shared(self, tenant_id: str, address: bytes, fetch: Callable[[bytes], bytes | None]) -> Json:
        sealed = fetch(address)
        if sealed is None:
            raise StoreError(f"shared content {address.hex()} of tenant {tenant_id!r} is missing from the store")
        plain = self._vault.open(tenant_id, sealed, address)
        return None if plain is None else _load(plain)


def _dump(value: Json) -> bytes:
    """Compact JSON; anything pydantic can serialise is accepted, lone surrogates are kept escaped."""
    try:
        return to_json(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
    except ValueError as error:
        raise StoreError(
            f"a value of type {type(value).__name__} is not JSON and cannot be journaled: {error}"
        ) from None


def _load(plain: bytes) -> Json:
    """What `_dump` made; the strict parser knows neither a lone surrogate nor more than 200 levels."""
    try:
        return from_json(plain)
    except ValueError:
        return json.loads(plain)
