"""Sandboxes of a process, put together: the room over the project's settings, the node's folder and the tenants' keys.

Owns what only a host knows: the node, the data folder, the store, the environment. Knows no Ray and no run.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.sandbox.packing import Cipher
from retinue.store.sealing import Vault


@dataclass(frozen=True, slots=True)
class TenantCipher:
    """The key of one tenant, for its snapshots."""

    vault: Vault
    tenant_id: str

    def seal(self, plain: bytes) -> bytes:
        """See packing.Cipher."""
        return self.vault.seal(self.tenant_id, plain)

    def open(self, sealed: bytes) -> bytes | None:
        """See packing.Cipher."""
        return self.vault.open(self.tenant_id, sealed)

    def address(self, plain: bytes) -> bytes:
        """See packing.Cipher."""
        return self.vault.address(self.tenant_id, plain)


@dataclass(frozen=True, slots=True)
class TenantCiphers:
    """The keys of all tenants of a store, for their snapshots."""

    vault: Vault

    def of(self, tenant: str, make: bool) -> Cipher | None:
        """See packing.Ciphers."""
        self.vault.prepare(tenant, make)
        return TenantCipher(self.vault, tenant) if self.vault.knows(tenant) else None
