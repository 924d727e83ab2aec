"""Ciphers for snapshots in tests: real keys in a folder, by tenant, as the host composes them from a vault."""

from __future__ import annotations

from pathlib import Path

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.shelves import OBJECTS, TREES
from retinue.store.sealing import KeyFolder, Vault


class TenantCipher:
    """The Cipher of one tenant."""

    def __init__(self, vault: Vault, tenant: str) -> None:
        self._vault = vault
        self._tenant = tenant

    def seal(self, plain: bytes) -> bytes:
        return self._vault.seal(self._tenant, plain)

    def open(self, sealed: bytes) -> bytes | None:
        return self._vault.open(self._tenant, sealed)

    def address(self, plain: bytes) -> bytes:
        return self._vault.address(self._tenant, plain)


class FolderCiphers:
    """The Ciphers of all tenants, with a key file each."""

    def __init__(self, folder: Path) -> None:
        self.vault = Vault(KeyFolder(folder))

    def of(self, tenant: str, make: bool) -> TenantCipher | None:
        self.vault.prepare(tenant, make)
        return TenantCipher(self.vault, tenant) if self.vault.knows(tenant) else None


def kept_keys(objects: LocalObjects, tenant: str) -> list[str]:
    """Keys of all objects and heads of a tenant."""
    return sorted(held.key for folder in (OBJECTS, TREES) for held in objects.list(tenant, folder))
