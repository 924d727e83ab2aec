"""Tenants' keys and large contents in tables of the store itself, for all its nodes.

A key is wrapped with the store's own key (`store_key`) when there is one, so that who has the database alone cannot
open what is in it. Knows no entries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retinue.runs.errors import StoreError
from retinue.store.postgres.pool import Pool
from retinue.store.sealing import KEY_BYTES, Vault

_NONCE = 12
_PLAIN, _WRAPPED, _AFTER = 0, 1, 2
"""What the first byte of a row says: how the key is kept, and (added to that) that one before it was destroyed. A row
that ends after it has no key."""


class KeyTable:
    """Implements `sealing.Keys`. Blocking; each call is short and bounded."""

    def __init__(self, pool: Pool, store_key: str | None) -> None:
        self._pool = pool
        digest = blake2b((store_key or "").encode(), digest_size=32, person=b"retinue-store").digest()
        self._cipher = None if store_key is None else AESGCM(digest)

    def __str__(self) -> str:
        return "the table `keys`"

    def load(self, tenant_id: str) -> bytes | None:
        """See Keys."""
        found = self._row(tenant_id)
        return None if found is None or len(found) == 1 else self._unwrapped(tenant_id, found)

    def create(self, tenant_id: str) -> bytes:
        """See Keys."""
        return self.keep(tenant_id, os.urandom(KEY_BYTES))

    def keep(self, tenant_id: str, key: bytes) -> bytes:
        """See Keys."""
        made, after = (self._wrapped(tenant_id, key, more) for more in (0, _AFTER))
        query = (
            "INSERT INTO keys VALUES (%s, %s) ON CONFLICT (tenant_id) DO UPDATE SET wrapped = %s"
            " WHERE length(keys.wrapped) = 1 RETURNING wrapped"
        )
        _run(self._pool, query, (tenant_id, made, after))
        kept = self.load(tenant_id)
        if kept is None:
            raise StoreError(f"the key of tenant {tenant_id!r} vanished from {self} while it was made")
        return kept

    def tenants(self) -> Iterator[str]:
        """See Keys. Read in pages."""
        query = "SELECT tenant_id FROM keys WHERE tenant_id > %s ORDER BY tenant_id LIMIT 1000"
        last = ""
        while page := self._names(query, last):
            yield from page
            last = page[-1]

    def destroy(self, tenant_id: str) -> bool:
        """See Keys."""
        query = "UPDATE keys SET wrapped = %s WHERE tenant_id = %s AND length(wrapped) > 1 RETURNING tenant_id"
        return _run(self._pool, query, (bytes([_AFTER]), tenant_id)) is not None

    def erased(self, tenant_id: str) -> bool:
        """See Keys."""
        found = self._row(tenant_id)
        return found is not None and bool(found[0] & _AFTER)

    def remember(self, tenant_id: str) -> None:
        """See Keys."""
        query = (
            "INSERT INTO keys VALUES (%s, %s) ON CONFLICT (tenant_id) DO UPDATE"
            " SET wrapped = set_byte(keys.wrapped, 0, get_byte(keys.wrapped, 0) | %s) RETURNING tenant_id"
        )
        _run(self._pool, query, (tenant_id, bytes([_AFTER]), _AFTER))

    def _row(self, tenant_id: str) -> bytes | None:
        return _run(self._pool, "SELECT wrapped FROM keys WHERE tenant_id = %s", (tenant_id,))

    def _names(self, query: str, after: str) -> list[str]:
        return self._pool.use(lambda c: [name for (name,) in c.cursor(binary=True).execute(query, (after,))])

    def _wrapped(self, tenant_id: str, key: bytes, more: int) -> bytes:
        if self._cipher is None:
            return bytes([_PLAIN | more]) + key
        nonce = os.urandom(_NONCE)
        return bytes([_WRAPPED | more]) + nonce + self._cipher.encrypt(nonce, key, tenant_id.encode())

    def _unwrapped(self, tenant_id: str, found: bytes) -> bytes:
        if not found[0] & _WRAPPED:
            return found[1:]
        if self._cipher is None:
            raise StoreError("the keys of this store are wrapped: give `store_key` the key they were made with")
        try:
            return self._cipher.decrypt(found[1 : 1 + _NONCE], found[1 + _NONCE :], tenant_id.encode())
        except InvalidTag:
            raise StoreError(
                f"the key of tenant {tenant_id!r} does not open with `store_key`: give the key it was made with"
            ) from None


class BlobTable:
    """Large contents beside the journal, where no other place is named. Implements `blobs.Blobs`."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    def put(self, tenant_id: str, address: str, plain: bytes) -> None:
        """See Blobs."""
        query = "INSERT INTO blobs VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING sealed"
        if _run(self._pool, "SELECT sealed FROM blobs WHERE address = %s", (address,)) is None:
            _run(self._pool, query, (address, self._vault.seal(tenant_id, plain, address.encode())))

    def get(self, tenant_id: str, address: str) -> bytes | None:
        """See Blobs."""
        sealed = _run(self._pool, "SELECT sealed FROM blobs WHERE address = %s", (address,))
        if sealed is None:
            raise StoreError(f"blob {address} is not in the store: restore it from a backup")
        return self._vault.open(tenant_id, sealed, address.encode())


def _run(pool: Pool, query: str, values: tuple[Any, ...]) -> bytes | None:
    """The first column of the row that a statement gives; in a transaction of its own."""
    row = pool.use(lambda connection: connection.cursor(binary=True).execute(query, values).fetchone())
    return None if row is None else row[0]
