"""The memories of the double: the real ones, over a database of their own in memory, with keys that nobody else has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from retinue.store.blobs import FolderBlobs
from retinue.store.frames import FrameCodec
from retinue.store.memories import StoreMemories
from retinue.store.sealing import KEY_BYTES, Vault
from retinue.store.statements import migrations

OWNER = "SELECT 1 FROM runs WHERE run_id = ? AND tenant_id = ? AND epoch = ?"


class _Keys:
    """Keys that end with the process."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self._erased: set[str] = set()

    def load(self, tenant_id: str) -> bytes | None:
        return self._kept.get(tenant_id)

    def create(self, tenant_id: str) -> bytes:
        return self._kept.setdefault(tenant_id, os.urandom(KEY_BYTES))

    def destroy(self, tenant_id: str) -> bool:
        self._erased |= {tenant_id} & self._kept.keys()
        return self._kept.pop(tenant_id, None) is not None

    def erased(self, tenant_id: str) -> bool:
        return tenant_id in self._erased

    def remember(self, tenant_id: str) -> None:
        self._erased.add(tenant_id)

    def tenants(self) -> Iterator[str]:
        return iter(self._kept.keys() | self._erased)

    def keep(self, tenant_id: str, key: bytes) -> bytes:
        return self._kept.setdefault(tenant_id, key)


class _Connection:
    """The statements of memories; who owns a run is asked of the double."""

    def __init__(self, owns: Callable[[str, str, int], bool]) -> None:
        self._raw = apsw.Connection(":memory:")
        for step in migrations():
            self._raw.execute(step)
        self._owns = owns

    def execute(self, statement: str, values: Any = ()) -> Any:
        if statement == OWNER:
            return self._raw.execute("SELECT 1 WHERE ?", (self._owns(*values),))
        return self._raw.execute(statement, values)

    def executemany(self, statement: str, rows: Any) -> object:
        return self._raw.executemany(statement, rows)


def memory_memories(owns: Callable[[str, str, int], bool]) -> StoreMemories:
    """Memories that nobody else sees; `owns` tells whether a run of a tenant has an epoch."""
    connection = _Connection(owns)
    vault = Vault(_Keys())

    async def submit(operation: Callable[[Any], Any]) -> Any:
        return operation(connection)

    return StoreMemories(submit, submit, FrameCodec(vault, FolderBlobs(Path(os.devnull), vault)))
