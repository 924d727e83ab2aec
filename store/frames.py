"""Entries to bytes and back: plain facts, sealed content, shared messages, blobs.

A frame is what one append stores: the facts of its entries as JSON, and their contents as one sealed JSON
array. What an error says may quote content, so its words are sealed too; its code is a fact. A list under
`messages` at the top of a content is content-addressed: each element is stored once per tenant however often a
transcript repeats it. Content above the inline limit becomes a blob. Knows no SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic_core import PydanticSerializationError, to_json

from retinue.runs.capabilities import FULL_OUTPUT
from retinue.runs.contracts import Json
from retinue.runs.errors import StoreError
from retinue.runs.journal import ENTRIES, SCHEMA, AnyEntry, Attempt, Finished, Outcome, Record
from retinue.runs.piecewise import dump, load
from retinue.store.blobs import INLINE_LIMIT, Blobs
from retinue.store.sealing import Vault

_NULL = b"null"
_SHARED = "messages"
_PREVIEW = 200
_SAID = "$said"
_PLAIN = "$plain"
_REFERENCES = "$shared"
_BLOB = "$blob"
_MARKS = frozenset({_SAID, _PLAIN, _BLOB})
_MAY_QUOTE = (Outcome, Attempt, Finished)
_ERASED: dict[str, Json] = {"message": "(content erased)"}


@dataclass(slots=True)
class Encoded:
    """A frame ready to be written, with the shared rows (hash, sealed) and the blobs it refers to."""

    facts: bytes
    sealed: bytes | None
    count: int
    shared: list[tuple[bytes, bytes]] = field(default_factory=list)
    blobs: list[tuple[str, bytes]] = field(default_factory=list)


def bound_to(run_id: str, position: int) -> str:
    """What a frame is sealed to: a frame moved to another place does not open."""
    return f"{run_id}:{position}"


class FrameCodec:
    """Encodes and decodes frames for any tenant. Thread-safe; encoding touches no disk."""

    def __init__(self, vault: Vault, blobs: Blobs) -> None:
        self.vault = vault
        self._blobs = blobs
        self._known = lru_cache(maxsize=20_000)(self._seal_shared)

    @property
    def stale(self) -> bool:
        """Whether it is time to `refresh`."""
        return self.vault.stale

    def refresh(self) -> None:
        """Forget what was sealed with keys that were destroyed by other processes. Blocking."""
        if self.vault.refresh():
            self._known.cache_clear()

    def lacks(self, tenant_ids: Iterable[str]) -> list[str]:
        """The tenants whose keys are not in hand."""
        return [tenant_id for tenant_id in set(tenant_ids) if not self.vault.knows(tenant_id)]

    def prepare(self, tenant_ids: Iterable[str], make: bool) -> None:
        """Take keys in hand, so that to encode for these tenants waits for nothing. Blocking."""
        for tenant_id in tenant_ids:
            self.vault.prepare(tenant_id, make)

    def encode(self, tenant_id: str, bound_to: str, entries: Sequence[AnyEntry]) -> Encoded:
        """`bound_to` names run and position: a frame moved elsewhere does not open."""
        encoded = Encoded(b"", None, len(entries))
        facts: list[bytes] = []
        contents: list[bytes] = []
        for entry in entries:
            said = _words(entry)
            stored = _dump(entry.content) if _waits_apart(entry) else self._stored(tenant_id, entry.content, encoded)
            contents.append(_beside(said, stored))
            facts.append(_facts(entry if said is None else _spoken(entry, {})))
        encoded.facts = b"[" + b",".join(facts) + b"]"
        if any(content is not _NULL for content in contents):
            encoded.sealed = self.vault.seal(tenant_id, b"[" + b",".join(contents) + b"]", bound_to.encode())
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
        plain = None if sealed is None else self.vault.open(tenant_id, sealed, bound_to.encode())
        if plain is None:
            return entries if sealed is None else tuple(_spoken(entry, _ERASED) for entry in entries)
        return tuple(
            entry if content is None else self._opened(tenant_id, entry, content, fetch)
            for entry, content in zip(entries, load(plain), strict=True)
        )

    def erased(self, tenant_id: str, bound_to: str, sealed: bytes | None, entries: Sequence[AnyEntry]) -> bool:
        """Whether entries that were decoded of a frame have no contents because the key to these was destroyed."""
        if sealed is None or any(entry.content is not None for entry in entries):
            return False
        return self.vault.open(tenant_id, sealed, bound_to.encode()) is None

    def keep(self, tenant_id: str, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Make the blobs of encoded frames durable; must precede the commit that names them. Blocking."""
        for address, plain in blobs:
            self._blobs.put(tenant_id, address, plain)

    def address(self, tenant_id: str, text: str) -> str:
        """A keyed hash of a text: equal for equal texts of the tenant, meaningless without its key."""
        return self.vault.address(tenant_id, text.encode("utf-8", "surrogatepass")).hex()

    def seal(self, tenant_id: str, value: Json, bound_to: str) -> bytes:
        """One value outside a frame: a prompt, an answer, an event."""
        return self.vault.seal(tenant_id, _dump(value), bound_to.encode())

    def open(self, tenant_id: str, sealed: bytes | None, bound_to: str) -> Json:
        """The value that `seal` was given; None when the tenant's key was destroyed."""
        plain = None if sealed is None else self.vault.open(tenant_id, sealed, bound_to.encode())
        return None if plain is None else load(plain)

    def _stored(self, tenant_id: str, content: Json, encoded: Encoded) -> bytes:
        if content is None:
            return _NULL
        if isinstance(content, dict) and _looks_marked(content):
            content = {_PLAIN: content}
        elif isinstance(content, dict) and isinstance(content.get(_SHARED), list | tuple):
            rows = [self._known(tenant_id, _dump(part)) for part in content[_SHARED]]
            encoded.shared.extend(rows)
            content = {**content, _SHARED: {_REFERENCES: [row[0].hex() for row in rows]}}
        plain = _dump(content)
        if len(plain) <= INLINE_LIMIT:
            return plain
        address = self.vault.address(tenant_id, plain).hex()
        encoded.blobs.append((address, plain))
        preview = plain[:_PREVIEW].decode(errors="replace")
        return _dump({_BLOB: address, "size": len(plain), "type": "application/json", "preview": preview})

    def _seal_shared(self, tenant_id: str, plain: bytes) -> tuple[bytes, bytes]:
        address = self.vault.address(tenant_id, plain)
        return address, self.vault.seal(tenant_id, plain, address)

    def _opened(
        self, tenant_id: str, entry: AnyEntry, content: Json, fetch: Callable[[bytes], bytes | None]
    ) -> AnyEntry:
        if isinstance(content, dict) and _SAID in content:
            entry, content = _spoken(entry, content[_SAID]), content["content"]
        opened = entry.model_copy(update={"content": content})
        if _waits_apart(opened):
            return opened
        return entry.model_copy(update={"content": self._restored(tenant_id, content, fetch)})

    def fetched(self, tenant_id: str, content: Json) -> Json:
        """The content of an entry that waits apart. Blocking; None when the tenant's key was destroyed."""
        return self._restored(tenant_id, content, lambda _: None)

    def _restored(self, tenant_id: str, content: Json, fetch: Callable[[bytes], bytes | None]) -> Json:
        if not isinstance(content, dict):
            return content
        if _BLOB in content:
            plain = self._blobs.get(tenant_id, content[_BLOB])
            content = None if plain is None else load(plain)
        if isinstance(content, dict) and _PLAIN in content:
            return content[_PLAIN]
        if isinstance(content, dict) and isinstance(content.get(_SHARED), dict) and _REFERENCES in content[_SHARED]:
            parts = [self._shared(tenant_id, bytes.fromhex(part), fetch) for part in content[_SHARED][_REFERENCES]]
            content = {**content, _SHARED: parts}
        return content

    def _shared(self, tenant_id: str, address: bytes, fetch: Callable[[bytes], bytes | None]) -> Json:
        sealed = fetch(address)
        if sealed is None:
            raise StoreError(f"shared content {address.hex()} of tenant {tenant_id!r} is missing from the store")
        plain = self.vault.open(tenant_id, sealed, address)
        return None if plain is None else load(plain)


def _facts(entry: AnyEntry) -> bytes:
    """What `ENTRIES` reads. Each class writes its own: finding the member of the union costs as much again. A fact is
    plain: a name of a file that is no text is told as it can be printed."""
    try:
        return entry.__pydantic_serializer__.to_json(entry)
    except PydanticSerializationError:
        return to_json(_printable(entry.model_dump()))


def _printable(value: Json) -> Json:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(name): _printable(part) for name, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list | tuple) else value


def _looks_marked(content: dict[str, Json]) -> bool:
    """A content of the user's that could be taken for one of the codec's own marks."""
    inner = content.get(_SHARED)
    return not _MARKS.isdisjoint(content) or (isinstance(inner, dict) and _REFERENCES in inner)


def _waits_apart(entry: AnyEntry) -> bool:
    """Whether an entry's content is a reference to a blob that is only read when somebody asks for it: tens of
    megabytes that neither replay nor traces need."""
    return (
        isinstance(entry, Record)
        and entry.topic == FULL_OUTPUT
        and isinstance(entry.content, dict)
        and _BLOB in entry.content
    )


def _words(entry: AnyEntry) -> dict[str, Json] | None:
    """What an entry says that may quote content: the message of its error, or the errors of a validation."""
    if isinstance(entry, Record):
        errors = entry.facts.get("errors")
        return {"errors": errors} if errors else None
    if isinstance(entry, _MAY_QUOTE) and entry.error is not None:
        return {"message": entry.error.message}
    return None


def _beside(said: dict[str, Json] | None, content: bytes) -> bytes:
    return content if said is None else b'{"$said":' + _dump(said) + b',"content":' + content + b"}"


def _spoken(entry: AnyEntry, said: dict[str, Json]) -> AnyEntry:
    """The entry with these words in place of its own."""
    if isinstance(entry, Record) and "errors" in entry.facts:
        return entry.model_copy(update={"facts": {**entry.facts, "errors": said.get("errors", [])}})
    if isinstance(entry, _MAY_QUOTE) and entry.error is not None:
        error = entry.error.model_copy(update={"message": said.get("message", "")})
        return entry.model_copy(update={"error": error})
    return entry


def _dump(value: Json) -> bytes:
    """Compact JSON; anything pydantic can serialise is accepted, lone surrogates are kept escaped."""
    try:
        return dump(value)
    except ValueError as error:
        raise StoreError(
            f"a value of type {type(value).__name__} is not JSON and cannot be journaled: {error}"
        ) from None
