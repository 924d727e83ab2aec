"""What the store knows of tenants as such: which of their runs go on, and that the content of one was erased.

An erasure is told by runs of their own, over as soon as they are accepted, so that the journal and the traces have who,
when and why. They hold no content: no key is needed for them, and none is made. Destroys nothing itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from retinue.runs.errors import InvalidInput
from retinue.runs.ownership import NewRun
from retinue.store.encoding import encode_new
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec
from retinue.store.rollouts import tell
from retinue.store.rows import many

_OPEN = "SELECT count(*), min(run_id), max(run_id) FROM runs WHERE tenant_id = ? AND final IS NULL"
_BY_TENANT = "SELECT tenant_id, count(*), sum(CASE WHEN final IS NULL THEN 1 ELSE 0 END) FROM runs GROUP BY tenant_id"
Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Reads through the store's reader, or applies in a transaction of its writer."""


class StoreTenants:
    """Made by the store. `read` is for short reads; `submit` is the way to the writer."""

    def __init__(self, read: Apply, submit: Apply, codec: FrameCodec) -> None:
        self._read = read
        self._submit = submit
        self._codec = codec

    async def counts(self) -> dict[str, tuple[int, int]]:
        """How many runs each tenant has, and how many of them have not ended."""
        rows: list[Any] = await self._read(lambda connection: many(connection, _BY_TENANT))
        return {tenant_id: (total, open_) for tenant_id, total, open_ in rows}

    async def refuse_open(self, tenant_id: str) -> None:
        """InvalidInput, with the remedy, for a tenant of whom runs have not ended."""
        await self._read(lambda connection: _refuse_open(connection, tenant_id))

    async def tell(self, told: NewRun, of: str | None) -> None:
        """Accept a run that is over with what it tells; not, as `refuse_open`, while runs of the tenant `of` go on."""
        frames = encode_new(self._codec, told)

        def write(connection: Connection) -> None:
            if of is not None:
                _refuse_open(connection, of)
            tell(connection, self._codec, told, frames)

        await self._submit(write)


def _refuse_open(connection: Connection, tenant_id: str) -> None:
    [(count, one, other)] = many(connection, _OPEN, (tenant_id,))
    if count:
        named = ", ".join(sorted({one, other}))
        which = f"run {named} of it has" if count == 1 else f"{count} runs of it have ({named}, ...)"
        raise InvalidInput(
            f"tenant {tenant_id!r} is in use: {which} not ended; `retinue cancel RUN` ends a run and all below it, "
            f"`retinue ps --tenant {tenant_id}` lists them; then erase again"
        )
