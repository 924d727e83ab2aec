"""Objects as they stand in a store: compressed where that pays, then sealed with the tenant's key.

Owns the one byte that says how an object was packed, and the names of objects. Knows neither trees nor places.
"""

from __future__ import annotations

import threading
from typing import Protocol

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, frame_content_size

from retinue.runs.errors import StoreError

_RAW, _ZSTD = b"\0", b"\1"
_LEVEL = 1
_WORTH = 256
"""Bytes from which compressing is tried."""
_PAYS = 0.95
"""Compressed content is kept when it is smaller than this part of the plain."""


class Cipher(Protocol):
    """The key of one tenant. Safe for several threads."""

    def seal(self, plain: bytes) -> bytes:
        """What only this key opens."""
        ...

    def open(self, sealed: bytes) -> bytes | None:
        """The plain bytes; None when the key is gone: the tenant was erased. StoreError or ValueError when this
        is not what was sealed."""
        ...

    def address(self, plain: bytes) -> bytes:
        """A keyed hash: the same for the same bytes of this tenant, and nothing to anyone else."""
        ...


class Ciphers(Protocol):
    """The keys of all tenants. Blocking; safe for several threads."""

    def of(self, tenant: str, make: bool) -> Cipher | None:
        """A tenant's key; None when there is none, because it was erased or never was, and none may be made."""
        ...


class Damaged(Exception):
    """An object is not what was packed; the message says how."""


class Erased(Exception):
    """The key of the tenant is gone, and with it the content."""


class Packer:
    """Packs and names the objects of one tenant. Safe for several threads."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher
        self._mine = threading.local()

    def name(self, text: str) -> str:
        """The name of what has this sha256 or id."""
        return self._cipher.address(text.encode("ascii")).hex()

    def pack(self, plain: bytes) -> bytes:
        """As a store keeps it."""
        if len(plain) >= _WORTH:
            packed: bytes = self._compressor().compress(plain)
            if len(packed) < len(plain) * _PAYS:
                return self._cipher.seal(_ZSTD + packed)
        return self._cipher.seal(_RAW + plain)

    def unpack(self, packed: bytes, most: int) -> bytes:
        """The plain bytes, `most` of them at most; Damaged or Erased."""
        try:
            opened = self._cipher.open(packed)
        except (StoreError, ValueError) as error:
            raise Damaged(str(error)) from None
        if opened is None:
            raise Erased
        kind, body = opened[:1], opened[1:]
        if kind == _RAW:
            plain = body
        elif kind == _ZSTD:
            plain = self._expand(body, most)
        else:
            raise Damaged("it is packed in a way that this version does not know")
        if len(plain) > most:
            raise Damaged(f"it holds more than {most} bytes")
        return plain

    def _expand(self, body: bytes, most: int) -> bytes:
        try:
            if not 0 <= frame_content_size(body) <= most:
                raise Damaged(f"it says that it holds more than {most} bytes")
            plain: bytes = self._decompressor().decompress(body)
        except ZstdError as error:
            raise Damaged(f"it cannot be expanded: {error}") from None
        return plain

    def _compressor(self) -> ZstdCompressor:
        if not hasattr(self._mine, "compressor"):
            self._mine.compressor = ZstdCompressor(level=_LEVEL)
        found: ZstdCompressor = self._mine.compressor
        return found

    def _decompressor(self) -> ZstdDecompressor:
        if not hasattr(self._mine, "decompressor"):
            self._mine.decompressor = ZstdDecompressor()
        found: ZstdDecompressor = self._mine.decompressor
        return found
