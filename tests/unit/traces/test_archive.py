"""The archive holds every row of the tables, once, by table and day; whole, and the same by whoever writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from tests.doubles.s3 import bucket as bucket
from tests.unit.traces.books import Book
from tests.unit.traces.conftest import Open, contents, drain
from tests.unit.traces.journeys import tale
from tests.unit.traces.test_recovery import start

from retinue.runs.errors import ConfigError, StoreError, StoreUnreachable
from retinue.store.folders import FolderObjects
from retinue.store.objects import Found
from retinue.store.places import open_objects
from retinue.traces.archive import NOTE, ArchiveSettings, read_note
from retinue.traces.room import Traces

DAY = 24 * 3_600_000
PART = 25


class Watched(FolderObjects):
    """A folder that remembers what was put there, and refuses when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.puts: list[str] = []
        self.refuses: str | None = None

    def put(self, path: str, content: bytes) -> None:
        self._note(path)
        super().put(path, content)

    def upload(self, path: str, file: Path) -> None:
        self._note(path)
        super().upload(path, file)

    def _note(self, path: str) -> None:
        if self.refuses is not None and self.refuses in path:
            raise StoreUnreachable(f"{path}: away")
        self.puts.append(path)


@pytest.fixture
def shelf(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "shelf")


@pytest.fixture
def kept(shelf: Watched) -> ArchiveSettings:
    """An archive whose parts are small."""
    return ArchiveSettings(shelf, "deep/traces", rows=PART)


@pytest.fixture
def book() -> Book:
    """Runs of three days."""
    made = tale(5)
    for seed in (2, 3):
        made.tick(DAY)
        tale(5, seed, made)
    return made


def archived(folder: Path, table: str, prefix: str = "deep/traces") -> list[dict[str, Any]]:
    """The rows of a table as the documented line reads them, by a DuckDB that is not Retinue's."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = f"{folder}/{prefix}/table={table}/**/*.parquet"
        rows = connection.sql(
            f"SELECT * EXCLUDE (\"table\", day) FROM read_parquet('{files}', hive_partitioning = true)"
        )
        kinds = zip(rows.columns, rows.types, strict=True)
        columns = ", ".join(
            f'"{name}"::JSON AS "{name}"' if str(kind) == "VARIANT" else f'"{name}"' for name, kind in kinds
        )
        return rows.project(columns).order("ALL").to_arrow_table().to_pylist()


def parts(shelf: Watched) -> list[str]:
    found = [path for path in shelf.puts if path.endswith(".parquet")]
    shelf.puts.clear()
    return found


async def test_every_row_stands_in_the_archive_by_table_and_day_as_in_the_tables(
    tmp_path: Path, open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    assert await traces.archive() > 10
    there = await contents(traces)
    for table, rows in there.items():
        if rows:
            assert archived(tmp_path / "shelf", table) == rows, table
    days = {path.split("/")[3] for path in shelf.puts if "table=spans" in path}
    assert days == {"day=2026-09-21", "day=2026-09-22", "day=2026-09-23"}
    with duckdb.connect() as connection:
        line = (
            f"FROM read_parquet('{tmp_path}/shelf/deep/traces/table=tool_calls/**/*.parquet', hive_partitioning = true)"
        )
        own = (await traces.query("DESCRIBE tool_calls")).to_pylist()
        read = connection.sql(f'DESCRIBE SELECT * EXCLUDE ("table", day) {line}').to_arrow_table().to_pylist()
        assert [(row["column_name"], row["column_type"]) for row in read] == [
            (row["column_name"], row["column_type"]) for row in own
        ]
    for path in (tmp_path / "shelf").rglob("table=spans/**/*.parquet"):
        numbers = pyarrow.parquet.ParquetFile(path).read(columns=["seq"])["seq"].to_pylist()
        assert numbers == sorted(numbers), "in the journal's order"
    text = b"".join(path.read_bytes() for path in (tmp_path / "shelf").rglob("*.parquet"))
    assert b"hunter2hunter2" not in text


async def test_only_what_has_grown_is_written_again_and_full_parts_never(
    open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    await traces.archive()
    first = parts(shelf)
    assert len(first) == len(set(first)) and any("part-00001" in path for path in first), "some days have many parts"
    assert await traces.archive() == 0 and shelf.puts == []
    tale(2, 4, book)
    await drain(traces)
    await traces.archive()
    grown = parts(shelf)
    assert grown and all("day=2026-09-23" in path for path in grown), "other days are finished"
    full = {path for path in first if path.replace("part-00000", "part-00001") in first and "part-00000" in path}
    assert full and not full & set(grown)
    assert shelf.puts == []


async def test_what_counts_a_part_is_written_after_it_and_a_refused_part_costs_nothing(
    tmp_path: Path, open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    shelf.refuses = "table=spans"
    with pytest.raises(StoreError, match="away"):
        await traces.archive()
    assert read_note(kept) is None
    shelf.refuses = None
    await traces.archive()
    assert shelf.puts[-1] == f"deep/traces/{NOTE}"
    assert archived(tmp_path / "shelf", "spans") == (await contents(traces))["spans"]


async def test_another_node_goes_on_with_it_and_writes_nothing_while_it_is_behind(
    tmp_path: Path, open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    first = await open_traces(book, "first", archive=kept)
    await drain(first)
    await first.archive()
    shelf.puts.clear()
    second = await open_traces(book, "second", archive=kept)
    await second.project(30)
    assert await second.archive() == 0 and shelf.puts == []
    await drain(second)
    assert await second.archive() == 0 and shelf.puts == []
    tale(2, 4, book)
    await drain(second)
    assert await second.archive() > 0
    assert await first.archive() == 0, "the one that was left behind adds nothing"
    assert archived(tmp_path / "shelf", "spans") == (await contents(second))["spans"]


async def test_a_file_that_one_left_behind_wrote_over_is_written_again(
    tmp_path: Path, open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    await traces.archive()
    lost = next(path for path in parts(shelf) if "table=spans" in path)
    shelf.put(lost, b"of somebody who knew less")
    assert await traces.archive() == 1
    assert archived(tmp_path / "shelf", "spans") == (await contents(traces))["spans"]


async def test_an_archive_made_in_another_way_is_made_anew_and_nothing_of_it_is_left(
    tmp_path: Path, open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    first = await open_traces(book, "first", archive=kept)
    await drain(first)
    await first.archive()
    many = set(parts(shelf))
    second = await open_traces(book, "second", archive=replace(kept, rows=1_000))
    await drain(second)
    await second.archive()
    few = set(parts(shelf))
    assert len(few) < len(many)
    left = {str(path.relative_to(tmp_path / "shelf")) for path in (tmp_path / "shelf").rglob("*.parquet")}
    assert left == few
    assert archived(tmp_path / "shelf", "spans") == (await contents(second))["spans"]


async def test_the_archive_of_another_store_is_not_mixed_with(
    open_traces: Open, kept: ArchiveSettings, book: Book
) -> None:
    first = await open_traces(book, "first", archive=kept)
    await drain(first)
    await first.archive()
    restored = await open_traces(tale(3, book=Book("store-2")), "second", archive=kept)
    await drain(restored)
    with pytest.raises(
        ConfigError, match=r"deep/traces/archive.json belongs to another store \(store-1.*another prefix"
    ):
        await restored.archive()


async def test_a_damaged_note_is_refused_with_the_remedy(
    open_traces: Open, shelf: Watched, kept: ArchiveSettings, book: Book
) -> None:
    shelf.put(f"deep/traces/{NOTE}", b"{")
    traces = await open_traces(book, archive=kept)
    await drain(traces)
    with pytest.raises(StoreError, match=r"no note of an archive.*remove it"):
        await traces.archive()


async def test_it_is_kept_in_a_bucket(tmp_path: Path, open_traces: Open, bucket: str, book: Book) -> None:
    objects = open_objects(bucket)
    traces = await open_traces(book, archive=ArchiveSettings(objects, "deep/traces"))
    await drain(traces)
    written = await traces.archive()
    found: list[Found] = list(objects.list("deep/traces"))
    assert len(found) == written + 1
    for each in found:
        local = tmp_path / "copy" / each.path
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(objects.get(each.path) or b"")
    assert archived(tmp_path / "copy", "spans") == (await contents(traces))["spans"]
    await traces.close()


def killed_after(files: int, folder: Path) -> bool:
    """Archive in a process that is killed after so many files; whether it had ended by itself."""
    with start("archiving.py", folder, 12) as process:
        assert process.stdout is not None
        for _ in range(files):
            if not process.stdout.readline():
                return process.wait() == 0
        process.kill()
    return False


@pytest.mark.promise("I3")
async def test_an_archive_whose_writer_is_killed_again_and_again_is_that_of_an_undisturbed_one(
    tmp_path: Path, open_traces: Open
) -> None:
    kills = 0
    while not await asyncio.to_thread(killed_after, 15 + 9 * kills, tmp_path):
        kills += 1
        assert kills < 30, "no progress"
    assert kills >= 3
    traces = await open_traces(tale(12), "undisturbed")
    await drain(traces)
    for table, rows in (await contents(traces)).items():
        if rows:
            assert archived(tmp_path / "shelf", table, "traces") == rows, table


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """Nothing that was staged stays behind."""
    yield
    assert not list(tmp_path.rglob("archive-*"))


async def test_tables_without_an_archive_have_nothing_to_write(open_traces: Open, book: Book) -> None:
    traces: Traces = await open_traces(book)
    assert (traces.archives_every, await traces.archive()) == (None, 0)
