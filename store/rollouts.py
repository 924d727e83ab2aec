"""Rollouts in the store, so that all hosts see the same ones. Implements the port `runs.rollouts.Rollouts`.

A change is a row, and the newest holds; one that a person makes is a run of its own besides, over in the same
transaction, so that the journal and the traces have who, when and why. Looking is shared by all steps of a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from retinue.runs.contracts import Status, StopReason
from retinue.runs.journal import Finished
from retinue.runs.ownership import NewRun
from retinue.runs.rollouts import NOTHING_MOVED, Rollout, Table
from retinue.store.encoding import encode_new
from retinue.store.engine import Connection
from retinue.store.frames import Encoded, FrameCodec
from retinue.store.looks import SharedLook
from retinue.store.owning import insert_runs
from retinue.store.rows import many, one
from retinue.store.settling import end_unowned

_MOMENT = 1.0
_COLUMNS = "kind, name, version, stage, share, at, by, reason"
_NEWEST = f"SELECT {_COLUMNS} FROM rollouts WHERE num IN (SELECT max(num) FROM rollouts GROUP BY kind, name, version)"

Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Has an operation applied to a connection of the store."""


class StoreRollouts:
    """`peek` is for looks at a few rows; `submit` is the way to the writer."""

    def __init__(self, peek: Apply, submit: Apply, codec: FrameCodec) -> None:
        self._peek = peek
        self._submit = submit
        self._codec = codec
        self._shared = SharedLook(self._read, _MOMENT)
        self.table: Table = NOTHING_MOVED

    async def look(self) -> Table:
        """See Rollouts."""
        self.table = await self._shared.get()
        return self.table

    async def listed(self) -> list[Rollout]:
        """Where each version stands that was ever moved, by name."""
        rows: list[Any] = await self._peek(lambda c: many(c, f"{_NEWEST} ORDER BY kind, name, version"))
        return [_rollout(row) for row in rows]

    async def history(self, name: str | None, most: int) -> list[Rollout]:
        """The changes of a name, or of all, newest first."""
        query = f"SELECT {_COLUMNS} FROM rollouts WHERE ? IN ('', name) ORDER BY num DESC LIMIT ?"
        rows: list[Any] = await self._peek(lambda connection: many(connection, query, (name or "", most)))
        return [_rollout(row) for row in rows]

    async def stop(self, wanted: Rollout) -> bool:
        """See Rollouts."""
        stopped: bool = await self._submit(lambda connection: change(connection, wanted, only_new=True))
        self._shared.forget()
        return stopped

    async def move(self, wanted: Rollout, told: NewRun) -> None:
        """Record a change with the run that tells of it."""
        frames = encode_new(self._codec, told)

        def write(connection: Connection) -> None:
            change(connection, wanted)
            tell(connection, self._codec, told, frames)

        await self._submit(write)
        self._shared.forget()

    async def _read(self) -> Table:
        return Table(await self.listed())


def change(connection: Connection, wanted: Rollout, only_new: bool = False) -> bool:
    """Add a row; False when it is `only_new` that is wanted and the version stands there already."""
    key = (wanted.kind, wanted.name, wanted.version)
    query = "SELECT stage FROM rollouts WHERE kind = ? AND name = ? AND version = ? ORDER BY num DESC LIMIT 1"
    if only_new and many(connection, query, key) == [(wanted.stage,)]:
        return False
    values = (*key, wanted.stage, wanted.share, wanted.at, wanted.by, wanted.reason)
    connection.execute(f"INSERT INTO rollouts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values).fetchall()
    return True


def tell(connection: Connection, codec: FrameCodec, told: NewRun, frames: tuple[Encoded, ...]) -> None:
    """Accept a run that is over with what it tells."""
    request = told.request
    insert_runs(connection, [(told, frames)])
    num, position = one(connection, "SELECT num, position FROM runs WHERE run_id = ?", (request.run_id,))
    entry = Finished(at=told.at, status=Status.completed, reason=StopReason.success)
    end_unowned(connection, codec, (num, request.run_id, request.tenant_id, 0, position), entry)


def stopped(connection: Connection, most: int) -> tuple[Rollout, ...]:
    """Versions that stand stopped."""
    rows = many(connection, f"{_NEWEST} AND stage = 'stopped' ORDER BY num DESC LIMIT ?", (most,))
    return tuple(map(_rollout, rows))


def _rollout(row: tuple[Any, ...]) -> Rollout:
    kind, name, version, stage, share, at, by, reason = row
    return Rollout(kind=kind, name=name, version=version, stage=stage, share=share, at=at, by=by, reason=reason)
