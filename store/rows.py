"""Rows where there must be one."""

from __future__ import annotations

from typing import Any

from retinue.runs.errors import StoreError
from retinue.store.engine import Connection


def one(connection: Connection, query: str, values: Any = ()) -> tuple[Any, ...]:
    """The one row a statement returns; StoreError when there is none, which a correct store never shows."""
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise StoreError(f"the store gave no row where one must be: {query.split(maxsplit=4)[:4]}")
    return row


def many(connection: Connection, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    return connection.execute(query, values).fetchall()
