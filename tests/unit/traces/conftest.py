"""Fixtures of the trace room: tables that follow a book, and their whole contents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.traces.books import Book

from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces

Contents = dict[str, list[dict[str, Any]]]
Open = Callable[..., Awaitable[Traces]]


@pytest.fixture
async def open_traces(tmp_path: Path) -> AsyncIterator[Open]:
    """Open tables over a book, in the test's folder or another; closed at the end."""
    opened: list[Traces] = []

    async def opener(book: Book, folder: str = "data", **how: Any) -> Traces:
        how.setdefault("redactor", Redactor(["hunter2hunter2"]))
        traces = Traces(tmp_path / folder, book, **how)
        opened.append(traces)
        await traces.open()
        return traces

    yield opener
    for traces in opened:
        await traces.close()


async def drain(traces: Traces, limit: int = 200) -> int:
    """Project all there is; how many frames."""
    total = 0
    while moved := await traces.project(limit):
        total += moved
    return total


async def contents(traces: Traces) -> Contents:
    """Every row of every table but the ledger, in a fixed order."""
    tables = await traces.query("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1")
    return {
        name: (await traces.query(f"SELECT * FROM {name} ORDER BY ALL")).to_pylist()
        for name in tables["table_name"].to_pylist()
        if name != "ingest"
    }
