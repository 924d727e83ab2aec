"""Queries over an archive give what the tables give, on a machine that has neither the tables nor the runtime."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from tests.unit.traces.books import Book
from tests.unit.traces.conftest import Open, drain
from tests.unit.traces.journeys import tale

from retinue.runs.errors import InvalidInput, StoreError
from retinue.store.folders import FolderObjects
from retinue.traces.archive import ArchiveSettings
from retinue.traces.archived import Days, ask_archive, named_in
from retinue.traces.file import FileSettings
from retinue.traces.query import Query

SMALL = FileSettings(memory="256MB")
QUERIES = [
    "SELECT * FROM runs ORDER BY ALL",
    "SELECT agent, status, count(*) AS n FROM Runs GROUP BY ALL ORDER BY ALL",
    "FROM tool_calls SELECT tool, try_cast(arguments.amount AS DOUBLE) AS amount ORDER BY ALL",
    "SELECT * FROM decision_record ORDER BY ALL",
    "SELECT * FROM handoffs",
]


@pytest.fixture
def book() -> Book:
    """Runs of two days."""
    made = tale(6)
    made.tick(24 * 3_600_000)
    return tale(6, 2, made)


@pytest.fixture
def kept(tmp_path: Path) -> ArchiveSettings:
    return ArchiveSettings(FolderObjects(tmp_path / "shelf"), "traces", rows=60)


@pytest.mark.promise("I4")
async def test_the_same_queries_have_the_same_answers(open_traces: Open, kept: ArchiveSettings, book: Book) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    await traces.archive()
    for query in QUERIES:
        assert ask_archive(kept, Query(query), Days(), SMALL).to_pylist() == (await traces.query(query)).to_pylist()


async def test_only_the_days_that_are_asked_about_are_read(
    tmp_path: Path, open_traces: Open, kept: ArchiveSettings, book: Book
) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    await traces.archive()
    day = "SELECT count(*) AS n FROM spans WHERE time::DATE = DATE '2026-09-22'"
    everything = "SELECT count(*) AS n FROM spans"
    for path in (tmp_path / "shelf").rglob("day=2026-09-21/*.parquet"):
        path.write_bytes(b"not to be read")
    of_day = (await traces.query(day)).to_pylist()
    assert ask_archive(kept, Query(everything), Days(since=date(2026, 9, 22)), SMALL).to_pylist() == of_day
    none = ask_archive(kept, Query(everything), Days(until=date(2026, 9, 20)), SMALL)
    assert none.to_pylist() == [{"n": 0}]


async def test_what_cannot_be_answered_says_why(
    tmp_path: Path, open_traces: Open, kept: ArchiveSettings, book: Book
) -> None:
    with pytest.raises(InvalidInput, match=r"no archive of traces in .*shelf/traces yet"):
        ask_archive(kept, Query("SELECT 1"), Days(), SMALL)
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    await traces.archive()
    for query in (f"SELECT * FROM read_text('{__file__}')", "DROP TABLE intents", "SELECT 1; SELECT 2"):
        with pytest.raises(InvalidInput):
            ask_archive(kept, Query(query), Days(), SMALL)
    next((tmp_path / "shelf").rglob("table=spans/**/*.parquet")).unlink()
    with pytest.raises(StoreError, match=r"counts traces/table=spans/.*and it is not there: remove its archive.json"):
        ask_archive(kept, Query("SELECT count(*) FROM spans"), Days(), SMALL)


def test_a_query_needs_what_its_views_need() -> None:
    assert {"ends", "run_results", "run_requests"} <= named_in("SELECT * FROM RUNS")
    assert "spans" not in named_in("SELECT count(*) FROM intents")
