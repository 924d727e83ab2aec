"""Eyes on a real store: every point that is reached is counted, and at one moment of one point the process is killed.

Wraps the store that a host is given, the store's writer and the writer's connection; what passes through is not
changed. Knows no scenario.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
import psycopg
from tests.crash.outside import OUTSIDE
from tests.crash.points import MEMORY, Finder, operations
from tests.doubles.processes import ROOT

from retinue.host.opening import open_store
from retinue.host.settings import Settings
from retinue.runs.errors import StoreError
from retinue.runs.ownership import LeasedRun
from retinue.store import sqlite, sqlite_pen
from retinue.store.postgres import bulk, pen
from retinue.store.postgres.connection import PostgresConnection, Rows
from retinue.store.store import Store

_TESTS = str(ROOT / "tests")
_PENS = {str(module.__file__) for module in (sqlite_pen, pen, bulk)}


@dataclass(frozen=True, slots=True)
class Kill:
    """Where to die: at the `nth` time that this moment of this point is reached."""

    point: str
    moment: str
    nth: int = 1


class Watch:
    """Counts (point, moment) and kills. `strays` are operations that came from no point."""

    def __init__(self, kill: Kill | None) -> None:
        self.reached: Counter[tuple[str, str]] = Counter()
        self.strays: set[str] = set()
        self._kill = kill
        self._finders = {kind: Finder(kind) for kind in ("port", "facade", "transaction")}

    def find(self, kind: str, frame: FrameType | None) -> str | None:
        """The point that a call came from."""
        point = self._finders[kind].find(frame)
        if point is None and frame is not None and not frame.f_code.co_filename.startswith(_TESTS):
            self.strays.add(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        return point

    def pass_by(self, point: str | None, moment: str) -> None:
        """This moment has come; perhaps it is the last one."""
        if point is None:
            return
        self.reached[point, moment] += 1
        kill = self._kill
        if (
            kill is not None
            and (kill.point, kill.moment) == (point, moment)
            and kill.nth == self.reached[point, moment]
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    def settle(self, point: str | None, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """`after` is the moment a future resolves, before anyone who waits for it goes on."""
        future.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else self.pass_by(point, "after")
        )
        return future


class WatchedStore:
    """The store as a host and a client see it."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._watched = store
        for name in operations():
            method = getattr(store, name)
            wrap = _awaited if inspect.iscoroutinefunction(method) else _submitted
            setattr(self, name, wrap(method, watch))
        self.memories = _WatchedMemories(store.memories, watch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watched, name)


class _WatchedMemories:
    """The store's memories as a host sees them."""

    def __init__(self, memories: Any, watch: Watch) -> None:
        self._memories = memories
        for name in MEMORY:
            setattr(self, name, _awaited(getattr(memories, name), watch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memories, name)


class _WatchedWriter:
    """The writer as the store sees it."""

    def __init__(self, writer: Any, watch: Watch) -> None:
        self._writer = writer
        self._watch = watch

    def submit(self, *arguments: Any, **options: Any) -> asyncio.Future[Any]:
        point = self._watch.find("facade", sys._getframe(1))
        self._watch.pass_by(point, "before")
        return self._watch.settle(point, self._writer.submit(*arguments, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class _WatchedConnection:
    """SQLite's writing connection as the pen sees it; its disk is full when the outside says so."""

    def __init__(self, connection: apsw.Connection, watch: Watch) -> None:
        self._connection = connection
        self._watch = watch

    def execute(self, statement: str, *arguments: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code.co_filename not in _PENS or statement.startswith("PRAGMA"):
            return self._connection.execute(statement, *arguments)
        point = self._watch.find("transaction", caller)
        self._watch.pass_by(point, "before")
        if OUTSIDE.disk_full and statement == "COMMIT":
            raise apsw.FullError("database or disk is full")
        result = self._connection.execute(statement, *arguments)
        self._watch.pass_by(point, "after")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _WatchedPostgres(PostgresConnection):
    """PostgreSQL's writing connection as the pen and its bulk see it; a statement in a pipeline may not be sent yet
    when it is `after` it."""

    def __init__(self, raw: psycopg.Connection[Any], watch: Watch) -> None:
        super().__init__(raw)
        self._watch = watch

    def run(self, statement: str, values: Any = ()) -> Rows:
        point = self._arrive(sys._getframe(1))
        if OUTSIDE.disk_full and statement == "COMMIT":
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")
        result = super().run(statement, values)
        self._watch.pass_by(point, "after")
        return result

    def executemany(self, statement: str, rows: Iterable[Any], /) -> None:
        point = self._arrive(sys._getframe(1))
        super().executemany(statement, rows)
        self._watch.pass_by(point, "after")

    def _arrive(self, caller: FrameType) -> str | None:
        """The point that a statement of the pen comes from; operations have their statements for themselves."""
        if caller.f_code.co_filename not in _PENS:
            return None
        point = self._watch.find("transaction", caller)
        self._watch.pass_by(point, "before")
        return point


def open_watched(settings: Settings, watch: Watch) -> WatchedStore:
    """The store of a project, watched on all three levels. For a process that opens one store and dies."""
    connect, opened = sqlite.connect, []

    def first_is_the_pens(path: Path) -> Any:
        connection = connect(path)
        opened.append(connection)
        return _WatchedConnection(connection, watch) if len(opened) == 1 else connection

    sqlite.connect = first_is_the_pens  # type: ignore[assignment]
    pen.PostgresConnection = partial(_WatchedPostgres, watch=watch)  # type: ignore[assignment, misc]
    try:
        store = open_store(settings)
    finally:
        sqlite.connect = connect
    store._writer = _WatchedWriter(store._writer, watch)  # type: ignore[assignment]
    return WatchedStore(store, watch)


def _submitted(method: Callable[..., asyncio.Future[Any]], watch: Watch) -> Callable[..., asyncio.Future[Any]]:
    def submit(*arguments: Any) -> asyncio.Future[Any]:
        point = watch.find("port", sys._getframe(1))
        watch.pass_by(point, "before")
        future = watch.settle(point, method(*arguments))
        future.add_done_callback(_space_again)
        return future

    return submit


def _space_again(future: asyncio.Future[Any]) -> None:
    """One refused append is enough of a full disk."""
    if not future.cancelled() and future.exception() is not None:
        OUTSIDE.disk_full = False


def _awaited(method: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        point = watch.find("port", sys._getframe(1))
        watch.pass_by(point, "before")
        return _after(method(*arguments, **named), point, watch)

    return call


async def _after(operation: Any, point: str | None, watch: Watch) -> Any:
    result = await operation
    watch.pass_by(point, "after")
    if OUTSIDE.deaf and isinstance(result, list) and result and isinstance(result[0], LeasedRun):
        OUTSIDE.deaf = False
        raise StoreError("the answer to a lease was lost")
    return result
