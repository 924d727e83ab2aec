"""Analysts' SQL: one statement that reads, bounded, while rows are written; and the event loop stays free."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pytest
from tests.doubles.processes import python
from tests.unit.traces.conftest import Open, drain
from tests.unit.traces.journeys import tale

from retinue.runs.errors import InvalidInput
from retinue.traces.query import TRUNCATED, Query, QueryTimeout, ask_file
from retinue.traces.room import Traces

ENDLESS = "SELECT count(*) FROM range(100000) AS a, range(100000) AS b WHERE a.range * b.range % 7 = 3"


@pytest.fixture
async def traces(open_traces: Open) -> Traces:
    filled = await open_traces(tale(6))
    await drain(filled)
    return filled


REFUSED = [
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
    "DELETE FROM spans",
    "INSERT INTO events SELECT * FROM events",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "DROP VIEW runs",
    "COMMIT",
    "CHECKPOINT",
    "ATTACH 'other.duckdb'",
    "COPY runs TO 'runs.csv'",
    "SET threads = 1",
    "SET lock_configuration = false",
    "PRAGMA disable_checkpoint_on_shutdown",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE 'everything'",
    "WITH gone AS (DELETE FROM spans RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM spans",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM 'journal.db'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM traces",
]
READ = ["FROM runs", "DESCRIBE runs", "SUMMARIZE spans", "EXPLAIN FROM runs", "SHOW TABLES", "VALUES (1);"]


async def test_whatever_does_more_than_read_the_tables_is_refused(traces: Traces) -> None:
    for sql in REFUSED:
        with pytest.raises(InvalidInput):
            await traces.query(sql)
        assert (await traces.query("SELECT count(*) > 0 AS kept FROM spans"))["kept"].to_pylist() == [True], sql


async def test_every_way_to_read_is_welcome(traces: Traces) -> None:
    for sql in READ:
        assert (await traces.query(sql)).num_rows > 0, sql


async def test_errors_are_shown_in_duckdbs_words(traces: Traces) -> None:
    with pytest.raises(InvalidInput, match=r"(?s)not SQL .*syntax error.*FORM"):
        await traces.query("SELECT * FORM runs")
    with pytest.raises(InvalidInput, match=r"(?s)statuss.*Candidate bindings.*status"):
        await traces.query("SELECT statuss FROM runs")
    with pytest.raises(InvalidInput, match="2 statements; give exactly one"):
        await traces.query("SELECT 1; SELECT 2")
    with pytest.raises(InvalidInput, match="read only, and this is a DELETE statement"):
        await traces.query("DELETE FROM runs")


async def test_a_query_stops_at_its_time_limit(traces: Traces) -> None:
    with pytest.raises(QueryTimeout, match=r"stopped after 0\.2 seconds; narrow it"):
        await traces.query(ENDLESS, timeout=0.2)


async def test_a_cancelled_caller_stops_its_query(traces: Traces) -> None:
    query = asyncio.create_task(traces.query(ENDLESS, timeout=100))
    for _ in range(3):
        await traces.query("SELECT 1")
    query.cancel()
    done, _ = await asyncio.wait([query], timeout=20)
    assert done
    assert query.cancelled()


async def test_closing_stops_running_queries(open_traces: Open) -> None:
    traces = await open_traces(tale(1))
    query = asyncio.create_task(traces.query(ENDLESS, timeout=100))
    await traces.query("SELECT 1")
    await traces.close()
    done, _ = await asyncio.wait([query], timeout=20)
    assert isinstance(done.pop().exception(), QueryTimeout)


async def test_the_row_cap_says_that_it_cut(traces: Traces) -> None:
    cut = await traces.query("FROM spans", rows=3)
    assert (cut.num_rows, cut.schema.metadata) == (3, {TRUNCATED: b"true"})
    whole = await traces.query("FROM spans LIMIT 3", rows=3)
    assert (whole.num_rows, whole.schema.metadata) == (3, None)


async def test_variants_arrive_as_json_also_nested_and_under_one_name(traces: Traces) -> None:
    found = await traces.query(
        'SELECT arguments AS v, value AS v, {\'a\': arguments} AS s, [value] AS l, tool AS "my ""tool" '
        "FROM tool_calls WHERE tool = 'search' AND result = 'ok' LIMIT 1"
    )
    assert found.schema.types == [pa.string()] * 5
    values = [column.to_pylist()[0] for column in found.columns]
    assert values == [
        '{"k":5,"query":"since"}',
        '[{"document":"doc-1","quote":"since 2019"}]',
        '{"a":{"k":5,"query":"since"}}',
        '[[{"document":"doc-1","quote":"since 2019"}]]',
        "search",
    ]
    assert found.column_names[-1] == 'my "tool'


async def test_days_and_times_are_utc_whatever_the_machine_says(traces: Traces) -> None:
    zone = await traces.query("SELECT current_setting('TimeZone') AS zone, min(time) AS first FROM run_requests")
    assert zone["zone"].to_pylist() == ["UTC"]
    assert zone.schema.field("first").type == pa.timestamp("us", tz="UTC")


@pytest.mark.promise("I4")
async def test_queries_answer_while_rows_are_written_and_the_loop_stays_free(open_traces: Open) -> None:
    book = tale(150)
    traces = await open_traces(book)
    gaps: list[float] = []
    answers: list[int] = []

    async def beat() -> None:
        last = perf_counter()
        while len(answers) < 1 or traces.lag().seq < len(book.frames):
            await asyncio.sleep(0.001)
            gaps.append(perf_counter() - last)
            last = perf_counter()

    async def ask() -> None:
        while traces.lag().seq < len(book.frames):
            counted = await traces.query("SELECT coalesce(max(seq), 0) AS seq FROM spans")
            answers.extend(counted["seq"].to_pylist())

    await asyncio.gather(beat(), ask(), drain(traces, 400))
    assert answers == sorted(answers)
    assert len(set(answers)) > 2
    assert sorted(gaps)[len(gaps) * 19 // 20] < 0.05


async def test_without_a_runtime_the_file_answers(tmp_path: Path, open_traces: Open) -> None:
    folder = tmp_path / "data"
    with pytest.raises(InvalidInput, match="there are no traces in"):
        ask_file(folder, Query("SELECT 1"))
    traces = await open_traces(tale(3))
    await drain(traces)
    await traces.close()
    found = ask_file(folder, Query("SELECT count(*) AS runs FROM runs"))
    assert found["runs"].to_pylist() == [3]
    with pytest.raises(InvalidInput):
        ask_file(folder, Query("DELETE FROM spans"))


async def test_while_a_runtime_has_it_the_file_names_the_remedy(tmp_path: Path, traces: Traces) -> None:
    lines = [
        "import sys",
        "from pathlib import Path",
        "from retinue.runs.errors import StoreBusy",
        "from retinue.traces.query import Query, ask_file",
        "try: ask_file(Path(sys.argv[1]), Query('SELECT 1'))",
        "except StoreBusy as error: print(error)",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path / "data")]
    asked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert "query them through the running runtime" in asked.stdout


BARS = """
import sys
from pathlib import Path
from retinue.traces import archive, archived, file
here = Path(sys.argv[1])
settings = file.FileSettings()
connections = file.connect(here / "t.duckdb", settings), archived._instance(here, settings), archive._copier(here)
for one in connections:
    print("bar", one.execute("SELECT current_setting('enable_progress_bar')").fetchone()[0])
"""


def test_duckdb_draws_nothing_between_our_lines(tmp_path: Path) -> None:
    """It would, where Python runs no script: as here."""
    with python(BARS, tmp_path) as other:
        assert [other.wait_for("bar") for _ in range(3)] == ["bar False"] * 3
