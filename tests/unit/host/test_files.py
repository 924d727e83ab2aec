"""Files in a bucket or a shared folder as inputs: listed in order, read by ranges, known when they changed."""

from __future__ import annotations

import csv
import io
import json
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retinue.host.files import MOST_SHARDS, names_many, open_file, shards_of, source_of
from retinue.host.rows import RowReader
from retinue.runs.errors import InvalidInput, StoreUnreachable
from retinue.runs.sources import Item, Source
from retinue.store.objects import Found, Objects, split_url
from retinue.store.places import open_objects

pytestmark = [pytest.mark.promise("B5"), pytest.mark.promise("K2")]
ROWS = [{"id": f"r{number}", "text": f"row\n{number}" + "x" * 200} for number in range(1_000)]


@pytest.fixture(params=["file", "s3"])
def shared(request: pytest.FixtureRequest) -> str:
    """A folder of a place, as a URL."""
    if request.param == "file":
        return f"file://{request.getfixturevalue('tmp_path')}/deep/er/"
    return f"{request.getfixturevalue('bucket')}/deep/er/"


def put(url: str, content: bytes) -> None:
    place, path = split_url(url)
    open_objects(place).put(path, content)


def content_of(ending: str, rows: list[dict[str, Any]]) -> bytes:
    """Rows in the format of an ending."""
    if ending == "jsonl":
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if ending == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=64)
    return file.getvalue()


def read_all(source: Source, page: int, reader: RowReader | None = None) -> list[Item]:
    """All items; without a reader each page has a new one, as after a crash."""
    items: list[Item] = []
    cursor: Any = None
    for _ in range(2_000):
        found = (reader or RowReader()).read(source, cursor, page)
        items += found.items
        assert found.rejected == () and len(found.items) <= page
        cursor = json.loads(json.dumps(found.cursor))
        if found.exhausted:
            return items
    raise AssertionError("the source never ends")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_pages_give_every_row_once_with_one_reader_and_with_a_new_one_each(shared: str, ending: str) -> None:
    put(f"{shared}rows.{ending}", content_of(ending, ROWS))
    source = source_of(f"{shared}rows.{ending}")
    for items in (read_all(source, 17, RowReader()), read_all(source, 130)):
        assert [item.value for item in items] == ROWS
        assert [item.input_id for item in items] == [row["id"] for row in ROWS]


def test_a_file_is_fetched_once_however_small_the_pages_are(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{bucket}/rows.jsonl", content_of("jsonl", ROWS))
    asked: list[int] = []
    place, _ = split_url(bucket)
    kind = type(open_objects(place))
    original = kind.range  # type: ignore[attr-defined]

    def counting(self: Objects, found: Found, start: int, length: int) -> bytes:
        asked.append(length)
        data: bytes = original(self, found, start, length)
        return data

    monkeypatch.setattr(kind, "range", counting)
    assert len(read_all(source_of(f"{bucket}/rows.jsonl"), 3, RowReader())) == len(ROWS)
    assert len(asked) <= 2


def test_row_groups_before_the_cursor_are_not_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Random(7)
    rows = [row | {"text": noise.randbytes(1_000).hex()} for row in ROWS]
    content = content_of("parquet", rows)
    put(f"{bucket}/rows.parquet", content)
    source = source_of(f"{bucket}/rows.parquet")
    kind = type(open_objects(bucket))
    starts: list[int] = []
    original = kind.range  # type: ignore[attr-defined]

    def noting(self: Objects, found: Found, start: int, length: int) -> bytes:
        starts.append(start)
        data: bytes = original(self, found, start, length)
        return data

    monkeypatch.setattr(kind, "range", noting)
    page = RowReader().read(source, {"offset": 0, "line": 900, "rows": 900}, 10)
    assert [item.value for item in page.items] == rows[900:910]
    meta = pq.ParquetFile(io.BytesIO(content)).metadata
    first = meta.row_group(900 // 64).column(0)
    assert min(starts) >= (first.dictionary_page_offset or first.data_page_offset)


def test_readers_that_are_left_are_closed(shared: str) -> None:
    reader = RowReader()
    for number in range(70):
        put(f"{shared}{number}.csv", content_of("csv", ROWS[:5]))
        reader.read(source_of(f"{shared}{number}.csv"), None, 2)
    assert len(reader._open) == 64


def test_two_jobs_over_one_file_do_not_share_a_reader(shared: str) -> None:
    put(f"{shared}rows.csv", content_of("csv", ROWS[:6]))
    source, reader = source_of(f"{shared}rows.csv"), RowReader()
    first = reader.read(source, None, 2)
    again = reader.read(source, None, 2)
    pages = [reader.read(source, cursor, 2) for cursor in (first.cursor, again.cursor)]
    assert [[item.input_id for item in page.items] for page in pages] == [["r2", "r3"]] * 2


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_hosts_that_take_turns_read_each_file_once_each(bucket: str, ending: str) -> None:
    noise = Random(7)
    rows = [row | {"text": noise.randbytes(1_000).hex()} for row in ROWS]
    put(f"{bucket}/rows.{ending}", content_of(ending, rows))
    source, hosts = source_of(f"{bucket}/rows.{ending}"), (RowReader(), RowReader(), RowReader())
    kind = type(open_objects(bucket))
    read: list[int] = []
    original = kind.range  # type: ignore[attr-defined]

    def counting(self: Objects, found: Found, start: int, length: int) -> bytes:
        data: bytes = original(self, found, start, length)
        read.append(len(data))
        return data

    items: list[Item] = []
    cursor: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "range", counting)
        for number in range(2_000):
            page = hosts[number % 3].read(source, cursor, 2)
            items, cursor = [*items, *page.items], page.cursor
            if page.exhausted:
                break
    assert [item.value for item in items] == rows
    assert sum(read) <= 3 * int(source.fingerprint.partition("-")[0]) * 1.2


def test_files_are_listed_in_the_order_of_their_names(shared: str) -> None:
    for name in ("b.jsonl", "a.parquet", "sub/c.csv", "_SUCCESS", "_temporary/x.jsonl", ".hidden.jsonl"):
        put(f"{shared}{name}", b"{}\n")
    assert [one.path.removeprefix(shared) for one in shards_of(shared)] == ["a.parquet", "b.jsonl", "sub/c.csv"]
    assert [one.path.removeprefix(shared) for one in shards_of(f"{shared}*.jsonl")] == ["b.jsonl"]
    assert [one.path.removeprefix(shared) for one in shards_of(f"{shared}*/[bc].*")] == ["sub/c.csv"]
    assert [one.format for one in shards_of(f"{shared}?.*")] == ["parquet", "jsonl"]
    assert [one.path for one in shards_of(f"{shared}b.jsonl")] == [f"{shared}b.jsonl"]
    assert names_many(f"{shared}*.jsonl") and not names_many("in/*.jsonl") and not names_many(f"{shared}b.jsonl")


def test_what_names_no_files_to_read_is_refused(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{shared}a.jsonl", b"")
    put(f"{shared}notes.txt", b"x")
    for url, words in (
        (f"{shared}*.csv", "there is no such file"),
        (f"{shared}b.jsonl", "there is no such file"),
        (f"{shared}*.jsonl", "is empty: it needs at least one row"),
        (shared, r"unknown ending '\.txt'; use one of"),
    ):
        with pytest.raises(InvalidInput, match=words):
            shards_of(url)
    assert MOST_SHARDS == 10_000
    monkeypatch.setattr("retinue.host.files.MOST_SHARDS", 1)
    with pytest.raises(InvalidInput, match="2 files, at most 1: name fewer, larger ones"):
        shards_of(shared)


def test_a_file_that_changes_while_it_is_read_is_told(bucket: str) -> None:
    url = f"{bucket}/rows.jsonl"
    put(url, content_of("jsonl", ROWS))
    source = source_of(url)
    first = RowReader().read(source, None, 5)
    put(url, content_of("jsonl", ROWS[:-1]))
    with pytest.raises(InvalidInput, match="changed since the job began"):
        RowReader().read(source, first.cursor, 5)
    with pytest.raises(InvalidInput, match="changed since the job began"):
        RowReader().read(source, None, 5)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_that_is_none_is_told(shared: str, ending: str) -> None:
    put(f"{shared}rows.{ending}", b"\xff\xfe no table")
    with pytest.raises(InvalidInput, match=f"rows.{ending}.*(is not UTF-8|is not Parquet that can be read)"):
        RowReader().read(source_of(f"{shared}rows.{ending}"), None, 5)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_place_that_goes_silent_in_the_middle_is_told_as_that(
    bucket: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{bucket}/rows.{ending}", content_of(ending, ROWS))
    source = source_of(f"{bucket}/rows.{ending}")

    def silent(*_: object) -> bytes:
        raise StoreUnreachable("nobody answers")

    monkeypatch.setattr(type(open_objects(bucket)), "range", silent)
    with pytest.raises(StoreUnreachable, match="nobody answers"):
        RowReader().read(source, {"offset": 0, "line": 0, "rows": 0}, 5)
    with open_file(source) as file, pytest.raises(StoreUnreachable):
        file.read(10)
