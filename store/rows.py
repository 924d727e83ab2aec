"""Rows as they are asked for: one where there must be one, those that meet conditions, the one of a part of an id.

Owns how conditions become a clause. Knows no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retinue.runs.errors import StoreError, UnknownName
from retinue.store.engine import Connection

_LEAST = 4
"""Characters that a part of an id must have."""


def one(connection: Connection, query: str, values: Any = ()) -> tuple[Any, ...]:
    """The one row a statement returns; StoreError when there is none, which a correct store never shows."""
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise StoreError(f"the store gave no row where one must be: {query.split(maxsplit=4)[:4]}")
    return row


def many(connection: Connection, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    return connection.execute(query, values).fetchall()


def clause_of(wanted: Mapping[str, Any], *others: str) -> tuple[str, list[Any]]:
    """The WHERE of conditions whose value is not None, and of `others`, which take none; the values in order."""
    given = {condition: value for condition, value in wanted.items() if value is not None}
    conditions = (*given, *others)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), list(given.values())


def with_id(connection: Connection, query: str, column: str, text: str) -> list[tuple[Any, ...]]:
    """The row of an id, else those whose id begins or ends with the text: two at most."""
    rows = many(connection, f"{query} WHERE {column} = ?", (text,))
    if rows:
        return rows
    return many(connection, f"{query} WHERE {column} LIKE ? || '%' OR {column} LIKE '%' || ? LIMIT 2", (text, text))


def only_with_id(connection: Connection, query: str, column: str, text: str, told: tuple[str, str]) -> tuple[Any, ...]:
    """The one row of an id, or of a part of it that is long enough. UnknownName with what it is and what lists them."""
    exact = len(text) < _LEAST
    rows = (
        many(connection, f"{query} WHERE {column} = ?", (text,)) if exact else with_id(connection, query, column, text)
    )
    if len(rows) == 1:
        return rows[0]
    thing, lists = told
    what = f"there is no {thing}" if not rows else f"more than one {thing} matches"
    raise UnknownName(f"{what} {text!r}: `{lists}` lists them")
