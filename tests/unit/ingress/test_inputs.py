"""The look at an input file: what is refused outright, and what is left to be a dead letter."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retinue.host.rows import MOST_BYTES, source_of
from retinue.ingress.inputs import InputCheck, check_input
from retinue.runs.errors import InvalidInput


def look(path: Path, content: bytes, column: str | None = None, limit: int | None = None) -> InputCheck:
    """Check a file that holds this."""
    path.write_bytes(content)
    return check_input(source_of(path, column or "id", limit), id_given=column is not None)


def lines(*rows: object) -> bytes:
    """Rows as JSONL."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_good_rows_are_counted(tmp_path: Path) -> None:
    assert look(tmp_path / "a.jsonl", lines({"id": 1}, {"id": "x"}, {"question": "?"})) == InputCheck(3, 3)
    assert look(tmp_path / "a.csv", b"id,question\n1,a\n2,b\n") == InputCheck(2, 2)


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert look(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines({"id": 1}) + b"\n  \n") == InputCheck(1, 1)
    assert look(tmp_path / "a.csv", b"\xef\xbb\xbfid,question\n1,a\n", "id") == InputCheck(1, 1)


def test_bad_rows_are_left_for_the_dead_letters(tmp_path: Path) -> None:
    content = lines({"id": 1}) + b'{"id": 2, "que\n' + b"\xff\xfe\n" + lines({"id": 3})
    assert look(tmp_path / "a.jsonl", content) == InputCheck(4, 2)


def test_a_row_above_the_bound_is_not_read_into_memory_as_one(tmp_path: Path) -> None:
    content = b'{"id": 1, "pad": "' + b"x" * (MOST_BYTES + 1) + b'"}\n' + lines({"id": 2})
    assert look(tmp_path / "a.jsonl", content) == InputCheck(2, 1)


def test_a_row_of_ten_megabytes_is_good(tmp_path: Path) -> None:
    assert look(tmp_path / "a.jsonl", lines({"id": 1, "pad": "x" * 10_000_000})) == InputCheck(1, 1)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"a.jsonl is empty: it needs at least one row"):
        look(tmp_path / "a.jsonl", content)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        look(tmp_path / "a.csv", b"id,question\n")


def test_a_file_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none of its 2 rows can be read; line 1: not JSON"):
        look(tmp_path / "a.jsonl", b"once\nupon\n")
    with pytest.raises(InvalidInput, match=r"byte 13 is not UTF-8: convert the file"):
        look(tmp_path / "a.csv", b"id,question\n1\xff,2\n")
    with pytest.raises(InvalidInput, match="is not Parquet that can be read"):
        look(tmp_path / "a.parquet", b"id,question\n")


def test_ids_that_occur_twice_are_named_with_their_lines(tmp_path: Path) -> None:
    content = lines({"id": "a"}, {"id": "b"}, {"id": "a"}, {"id": 7}, {"id": "7"}, {"id": "a"})
    with pytest.raises(InvalidInput) as caught:
        look(tmp_path / "a.jsonl", content)
    assert "3 ids in column 'id' occur more than once (lines 1 and 3, lines 4 and 5, lines 1 and 6)" in str(
        caught.value
    )
    assert "make them unique, or name another column with --id" in str(caught.value)


def test_many_ids_are_told_apart(tmp_path: Path) -> None:
    rows = b"".join(b'{"id": "row-%d"}\n' % number for number in range(50_000))
    assert look(tmp_path / "a.jsonl", rows) == InputCheck(50_000, 50_000)
    with pytest.raises(InvalidInput, match=r"1 ids .* \(lines 123 and 50001\)"):
        look(tmp_path / "a.jsonl", rows + b'{"id": "row-122"}\n')


def test_rows_behind_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    content = lines({"id": "a"}, {"id": "b"}, {"id": "a"})
    assert look(tmp_path / "a.jsonl", content, limit=2) == InputCheck(2, 2)


def test_a_column_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a.jsonl line 2: there is no column 'key'; correct --id or the row"):
        look(tmp_path / "a.jsonl", lines({"key": 1}, {"id": 2}), "key")
    with pytest.raises(InvalidInput, match=r"there is no column 'key' for --id; there are: id, question"):
        look(tmp_path / "a.csv", b"id,question\n1,a\n", "key")


def test_parquet_is_looked_at_by_its_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "a"], "question": ["x", "y", "z"]}), path)
    with pytest.raises(InvalidInput, match="lines 1 and 3"):
        check_input(source_of(path), id_given=False)
    assert check_input(source_of(path, "question"), id_given=True) == InputCheck(3, 3)
    with pytest.raises(InvalidInput, match="there is no column 'key' for --id; there are: id, question"):
        check_input(source_of(path, "key"), id_given=True)
    assert check_input(source_of(path, "key"), id_given=False) == InputCheck(3, 3)
