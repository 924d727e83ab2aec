"""Rows of a file: paged by cursor, every bad one set aside with its line, none lost and none twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.host.rows import RowReader, source_of
from retinue.runs.errors import InvalidInput
from retinue.runs.ownership import DeadLetter
from retinue.runs.sources import Item, Source

pytestmark = pytest.mark.promise("B5")


def read_all(source: Source, page: int) -> tuple[list[Item], list[DeadLetter]]:
    """Everything, a page at a time, through cursors that went through JSON."""
    items: list[Item] = []
    letters: list[DeadLetter] = []
    cursor: Any = None
    for _ in range(1_000):
        found = RowReader().read(source, cursor, page)
        assert len(found.items) <= page
        items += found.items
        letters += found.rejected
        cursor = json.loads(json.dumps(found.cursor))
        if found.exhausted:
            return items, letters
    raise AssertionError("the source never ends")


def write(folder: Path, *lines: bytes, name: str = "rows.jsonl") -> Source:
    path = folder / name
    path.write_bytes(b"\n".join(lines))
    return source_of(path)


@pytest.mark.parametrize("page", [1, 2, 100])
def test_bad_rows_are_set_aside_with_line_and_reason(tmp_path: Path, page: int) -> None:
    source = write(
        tmp_path, b'\xef\xbb\xbf{"id": "a"}', b"", b"{half", b'{"id": "b"}', b'{"id": "\xff"}', b'{"n": 1}', b""
    )
    items, letters = read_all(source, page)
    assert [(item.input_id, item.value) for item in items] == [
        ("a", {"id": "a"}),
        ("b", {"id": "b"}),
        ("6", {"n": 1}),
    ]
    assert [(letter.line, letter.reason) for letter in letters] == [(3, "not_json"), (5, "not_utf8")]
    assert all(str(tmp_path) in letter.message and f"line {letter.line}" in letter.message for letter in letters)


def test_a_row_of_ten_megabytes_is_a_row_and_a_larger_one_than_allowed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = json.dumps({"id": "big", "text": "x" * 10_000_000}).encode()
    items, letters = read_all(write(tmp_path, b'{"id": "a"}', big, b'{"id": "z"}'), 2)
    assert [item.input_id for item in items] == ["a", "big", "z"] and letters == []
    monkeypatch.setattr("retinue.host.rows.MOST_BYTES", 1_000_000)
    items, letters = read_all(write(tmp_path, b'{"id": "a"}', big, b'{"id": "z"}'), 2)
    assert [item.input_id for item in items] == ["a", "z"]
    assert [(letter.line, letter.reason) for letter in letters] == [(2, "too_large")]


@pytest.mark.parametrize("page", [1, 3, 100])
def test_csv_and_parquet_give_the_same_rows(tmp_path: Path, page: int) -> None:
    rows = [{"id": f"r{n}", "text": f"line\n{n}"} for n in range(7)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=2)
    for name in ("rows.csv", "rows.parquet"):
        items, letters = read_all(source_of(tmp_path / name), page)
        assert [item.value for item in items] == rows and letters == []
        assert [item.input_id for item in items] == [row["id"] for row in rows]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_limit_counts_rows(tmp_path: Path, name: str) -> None:
    text = "id\na\nb\nc\n" if name.endswith("csv") else '{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n'
    (tmp_path / name).write_text(text)
    items, _ = read_all(source_of(tmp_path / name, limit=2), 1)
    assert [item.input_id for item in items] == ["a", "b"]


def test_what_cannot_be_a_source_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"unknown ending '\.txt'; use one of \.jsonl"):
        source_of(tmp_path / "rows.txt")
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        source_of(tmp_path / "rows.jsonl")


def test_a_file_that_changed_is_refused_at_its_beginning(tmp_path: Path) -> None:
    source = write(tmp_path, b'{"id": "a"}')
    write(tmp_path, b'{"id": "b"}')
    with pytest.raises(InvalidInput, match="changed since the job began"):
        RowReader().read(source, None, 1)


lines = st.lists(
    st.one_of(st.just(b""), st.integers(0, 99).map(lambda n: b'{"id": %d}' % n), st.just(b"{")), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(lines, st.integers(1, 5))
def test_pages_of_any_size_lose_nothing_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, given_lines: list[bytes], page: int
) -> None:
    source = write(tmp_path_factory.mktemp("rows"), *given_lines)
    items, letters = read_all(source, page)
    assert [str(item.value["id"]).encode() for item in items] == [line[7:-1] for line in given_lines if len(line) > 1]
    assert [letter.line for letter in letters] == [n for n, line in enumerate(given_lines, 1) if line == b"{"]
