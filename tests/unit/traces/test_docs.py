"""docs/traces.md: its questions are answered, and it lists every table, view and column as they are."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest
from tests.unit.traces.books import Book
from tests.unit.traces.conftest import Open, drain
from tests.unit.traces.journeys import tale

from retinue.traces.file import PARTS, SCHEMA, create

TEXT = (Path(__file__).parents[3] / "docs" / "traces.md").read_text("utf-8")
QUESTIONS = re.findall(r"(?s)```sql\n(.*?)```", TEXT)


@pytest.fixture
def schema() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    create(connection)
    return connection


@pytest.fixture
def this_week() -> Book:
    """Runs of the last minutes."""
    book = Book()
    book.now = duckdb.execute("SELECT epoch_ns(now())").fetchall()[0][0] - 60_000_000_000
    return tale(20, book=book)


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10


@pytest.mark.promise("I4")
@pytest.mark.parametrize("sql", QUESTIONS)
async def test_every_question_has_an_answer(sql: str, this_week: Book, open_traces: Open) -> None:
    traces = await open_traces(this_week)
    await drain(traces)
    assert (await traces.query(sql)).num_rows > 0


async def test_the_amounts_and_the_decision_are_the_ones_that_happened(this_week: Book, open_traces: Open) -> None:
    traces = await open_traces(this_week)
    await drain(traces)
    assert (await traces.query(QUESTIONS[0]))["agent"].to_pylist() == ["researcher"]
    children = (await traces.query(QUESTIONS[2])).to_pylist()
    assert {(child["actor_id"], child["pid"], child["node"]) for child in children} == {
        ("actor-1", 4001, "node-b"),
        ("actor-2", 4002, "node-a"),
    }
    (decision,) = (await traces.query(QUESTIONS[7])).to_pylist()
    assert decision["prompt"] == "research/v3"
    assert decision["omitted"] == 1
    assert decision["calls"][0]["tool"] in decision["tools"]
    assert decision["gates"][0]["rules"] == ["reads"]
    assert decision["messages"] is not None
    assert decision["raw"] is not None


TABLE = r"(?m)^#### `(\w+)`\n\n.+\n\n\| column \| type \| holds \|\n\|---\|---\|---\|\n((?:\|.+\n)+)"
COLUMN = r"\| `(\w+)` \| ([^|]+) \| (.+) \|"


def test_every_table_and_column_is_listed_with_its_type(schema: duckdb.DuckDBPyConnection) -> None:
    found = {
        (table, column, kind)
        for table, lines in re.findall(TABLE, TEXT)
        for column, kind, _ in re.findall(COLUMN, lines)
    }
    spelled = "replace(data_type, 'TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ')"
    columns = f"SELECT table_name, column_name, {spelled} FROM duckdb_columns()"
    assert found == set(schema.execute(f"{columns} SEMI JOIN duckdb_tables() USING (table_name)").fetchall())


def test_what_columns_hold_is_said_as_in_the_definitions() -> None:
    texts = [(SCHEMA / f"{part}.sql").read_text("utf-8") for part in PARTS]
    defined = {line for text in texts for line in re.findall(r",? +-- (.+)", text)}
    said = {holds for _, lines in re.findall(TABLE, TEXT) for _, _, holds in re.findall(COLUMN, lines)}
    assert said
    assert said <= defined


def test_every_view_is_listed_with_its_columns(schema: duckdb.DuckDBPyConnection) -> None:
    listed = dict(re.findall(r"(?m)^#### `(\w+)`\n\n.+\n\n((?:`\w+`(?:, )?)+)$", TEXT))
    sql = "SELECT view_name FROM duckdb_views() WHERE NOT internal"
    views = [name for (name,) in schema.execute(sql).fetchall()]
    assert {name: re.findall(r"`(\w+)`", columns) for name, columns in listed.items()} == {
        name: [line[0] for line in schema.execute(f"DESCRIBE {name}").fetchall()] for name in views
    }
