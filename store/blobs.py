"""Blobs: content too large for a journal row, as sealed files addressed by the tenant's keyed hash.

A blob and its folder are on disk before anything that names it is committed. Knows no entries.
"""

from __future__ import annotations

import os
from pathlib import Path

from retinue.store.sealing import Vault, sync_folder

INLINE_LIMIT = 64 * 1024
"""Bytes of JSON above which content becomes a blob."""


class Blobs:
    """Sealed files under one folder. Safe for many processes: equal content has one name."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._folder = folder
        self._vault = vault

    def put(self, tenant_id: str, address: str, plain: bytes) -> None:
        """Store durably under the vault's address of the bytes (40 hex digits). Blocking."""
        path = self._path(address)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}")
        with draft.open("xb") as file:
            file.write(self._vault.seal(tenant_id, plain, address.encode()))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_folder(path.parent)
        sync_folder(self._folder)

    def get(self, tenant_id: str, address: str) -> bytes | None:
        """The plain bytes; None when the tenant's key was destroyed. FileNotFoundError when it never was."""
        return self._vault.open(tenant_id, self._path(address).read_bytes(), address.encode())

    def _path(self, address: str) -> Path:
        return self._folder / address[:2] / address
