"""Where rows are gathered while a batch of frames is read: one entry at a time, tables by name.

Owns the columns that all rows of an entry share. Knows neither entries' meanings nor DuckDB.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from retinue.runs.contracts import Usage
from retinue.traces.file import Row
from retinue.traces.states import RunState

Rows = defaultdict[str, list[Row]]
"""Rows by table."""


class Page:
    """One entry's rows: `state` is its run, `at` its time in Unix ns."""

    __slots__ = ("at", "rows", "shared", "state")

    def __init__(self, state: RunState, rows: Rows, at: int, place: tuple[int, int]) -> None:
        self.state = state
        self.rows = rows
        self.at = at
        self.shared = {"seq": place[0], "ordinal": place[1], "time": at // 1000, **state.who}

    def add(self, table: str, row: Row) -> None:
        """Add a row; what all rows of the entry share is filled in."""
        self.rows[table].append({**self.shared, **row})


def micros(at: Any) -> int | None:
    """Unix ns as Unix µs; None for what is no time."""
    return at // 1000 if isinstance(at, int) else None


def spent(usage: Usage) -> Row:
    """The columns of what was spent; money in micro-dollars, as rows carry it."""
    return {
        "steps": usage.steps,
        "hops": usage.hops,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.micros,
    }


def names(value: Any) -> list[str] | None:
    """Names out of a list of names or of things that have one; None when it is no list."""
    if not isinstance(value, list | tuple):
        return None
    return [str(part.get("name", "")) if isinstance(part, dict) else str(part) for part in value]


def member(value: Any, name: str) -> Any:
    """A member of a JSON object; None when there is none, or no object."""
    return value.get(name) if isinstance(value, dict) else None
