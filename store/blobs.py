"""Blobs: content too large for a journal row, sealed, addressed by the tenant's keyed hash.

A blob is durable before anything that names it is committed: files of the data folder, or of a place that several
machines share. Knows no entries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from retinue.runs.errors import StoreError
from retinue.store.folders import FolderObjects
from retinue.store.objects import Objects, resolve, split_url
from retinue.store.places import open_objects
from retinue.store.sealing import Vault

INLINE_LIMIT = 64 * 1024
"""Bytes of JSON above which content becomes a blob."""
PATIENCE = 3.0
"""Seconds a shared place may be silent: a lease reads blobs inside its transaction."""


class Blobs(Protocol):
    """Where blobs are kept. Blocking; safe for many writers, since equal content of a tenant has one address.

    Raises StoreError; StoreUnreachable when a shared place does not answer, which may pass.
    """

    def put(self, tenant_id: str, address: str, plain: bytes) -> None:
        """Keep the bytes under the vault's address of them (40 hex digits); durable when this returns."""
        ...

    def get(self, tenant_id: str, address: str) -> bytes | None:
        """The plain bytes; None when the tenant's key was destroyed. StoreError when there is no such blob."""
        ...


def open_blobs(url: str, vault: Vault) -> Blobs:
    """The blobs at `s3://bucket/prefix` or `file:///shared/folder`.

    `${NAME}` in the URL is this process's environment. InvalidInput, ConfigError.
    """
    place, prefix = split_url(resolve(url, "blobs"))
    if place == "file:///":
        return FolderBlobs(Path("/") / prefix, vault)
    return ObjectBlobs(open_objects(place, PATIENCE), prefix, vault)


class ObjectBlobs:
    """Sealed files in a shared place, below a prefix. Implements `Blobs`.

    Two writers of one content may both upload it: either file opens, and the last one stays.
    """

    def __init__(self, objects: Objects, prefix: str, vault: Vault) -> None:
        self._objects = objects
        self._prefix = prefix.strip("/")
        self._vault = vault

    def put(self, tenant_id: str, address: str, plain: bytes) -> None:
        """See Blobs."""
        path = self._path(address)
        if self._objects.head(path) is None:
            self._objects.put(path, self._vault.seal(tenant_id, plain, address.encode()))

    def get(self, tenant_id: str, address: str) -> bytes | None:
        """See Blobs."""
        sealed = self._objects.get(self._path(address))
        if sealed is None:
            raise StoreError(
                f"blob {address} is missing from {self._objects.place}: restore it from the backup that the journal is "
                "from"
            )
        return self._vault.open(tenant_id, sealed, address.encode())

    def _path(self, address: str) -> str:
        return "/".join(part for part in (self._prefix, address[:2], address) if part)


class FolderBlobs(ObjectBlobs):
    """The same in a folder of this machine."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        super().__init__(FolderObjects(folder), "", vault)
