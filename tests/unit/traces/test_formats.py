"""Answers as text and bytes: aligned, exact, and readable again."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from retinue.runs.errors import InvalidInput
from retinue.traces.formats import as_csv, as_json, as_parquet, as_text, render

TABLE = pa.table(
    {
        "agent": ["researcher", None, "日本"],
        "cost": pa.array([Decimal("0.001250"), Decimal("12.000000"), None], pa.decimal128(18, 6)),
        "calls": [1, 20, 300],
        "ratio": [0.5, float("nan"), 1234567.0],
        "time": pa.array([datetime(2026, 11, 21, 4, 5, 6, 789, UTC)] * 3, pa.timestamp("us", tz="UTC")),
        "tools": [["search", "read"], [], None],
        "ok": [True, False, None],
    }
)


def test_text_is_aligned_and_counts_rows() -> None:
    lines = as_text(TABLE.select(["agent", "cost", "calls", "ok"])).splitlines()
    assert lines == [
        "agent            cost  calls  ok",
        "----------  ---------  -----  -----",
        "researcher   0.001250      1  true",
        "            12.000000     20  false",
        "日本                     300",
        "(3 rows)",
    ]


def test_text_cuts_long_cells_and_control_characters() -> None:
    text = as_text(pa.table({"t": ["a\nb\tc\x1b[31m" + "x" * 100]}), width=12)
    assert text.splitlines()[2] == "a b c [31mx…"


def test_json_loses_no_cent_and_reads_back() -> None:
    first, second, third = json.loads(as_json(TABLE))
    assert first == {
        "agent": "researcher",
        "cost": "0.001250",
        "calls": 1,
        "ratio": 0.5,
        "time": "2026-11-21T04:05:06.000789Z",
        "tools": ["search", "read"],
        "ok": True,
    }
    assert second["ratio"] == "nan"
    assert third["agent"] == "日本"


def test_two_columns_of_one_name_are_both_kept() -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "a_2"])
    assert json.loads(as_json(table)) == [{"a": 1, "a_2": 2, "a_2_2": 3}]
    assert as_csv(table).splitlines()[0] == '"a","a_2","a_2_2"'
    assert pyarrow.parquet.read_table(io.BytesIO(as_parquet(table))).num_columns == 3


def test_csv_writes_lists_as_json() -> None:
    assert as_csv(TABLE.select(["agent", "tools"])).splitlines() == [
        '"agent","tools"',
        '"researcher","[""search"", ""read""]"',
        ',"[]"',
        '"日本",',
    ]


def test_parquet_reads_back_the_same() -> None:
    assert pyarrow.parquet.read_table(io.BytesIO(as_parquet(TABLE.drop(["ratio"])))) == TABLE.drop(["ratio"])


@pytest.mark.parametrize("how", ["table", "json", "csv", "parquet"])
def test_an_empty_answer_has_every_format(how: str) -> None:
    assert render(TABLE.slice(0, 0), how)
    assert render(pa.table({}), how) is not None


def test_nanosecond_times_are_shown() -> None:
    table = pa.table({"t": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))})
    assert json.loads(as_json(table)) == [{"t": "2023-11-14T22:13:20.123456"}]


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="'xml' is not known; use one of table, json, csv, parquet"):
        render(TABLE, "xml")
