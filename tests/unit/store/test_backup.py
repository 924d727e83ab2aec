"""Backups taken while runs are written, restored as another incarnation with everything open held."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.doubles.shapes import child_of, entries_of, host, new_run, own, said

from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, StoreBusy
from retinue.runs.ownership import Spawn
from retinue.store import opening, sqlite
from retinue.store.backup import back_up, restore
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.rule("R16"), pytest.mark.rule("R7")]


async def test_a_backup_is_whole_while_runs_are_written(tmp_path: Path) -> None:
    """No acknowledged entry that was there before is missing, no position has a gap, and writing goes on after."""
    store = SqliteStore(tmp_path / "data")
    await store.register(host("h1"))
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("big", "x" * 200_000), spawn=Spawn("g", (child_of("top", "g", 0),)))
    stopping = asyncio.Event()

    async def write() -> int:
        number = 0
        while not stopping.is_set():
            number += 1
            await owner.append(said(f"s{number}", "y" * 500))
        return number

    writing = asyncio.create_task(write())
    counts = await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "copy")
    stopping.set()
    written = await writing
    assert written > 0 and counts["runs"] == 2 and counts["blobs"] >= 1
    await owner.append(said("after"))
    before = await entries_of(store, "top")
    await store.close()

    assert await asyncio.to_thread(restore, tmp_path / "copy", tmp_path / "again") == 2
    again = SqliteStore(tmp_path / "again")
    try:
        kept = await entries_of(again, "top")
        assert 2 <= len(kept) < len(before) and kept == before[: len(kept)]
        assert await again.incarnation() != counts.get("incarnation")
        records = await again.list_runs(RunQuery())
        assert all(record.held and record.status is Status.queued for record in records)
        await again.register(host("h2"))
        assert await again.lease(host("h2"), "runs", 10, 0) == []
        await again.hold("top", False)
        [leased] = await again.lease(host("h2"), "runs", 10, 0)
        assert leased.position == len(kept)
    finally:
        await again.close()


async def test_the_incarnation_is_another(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data")
    first = await store.incarnation()
    await store.close()
    back_up(tmp_path / "data", tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "again")
    again = SqliteStore(tmp_path / "again")
    assert await again.incarnation() != first
    await again.close()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no store"):
        back_up(tmp_path, tmp_path / "copy")
    asyncio.run(SqliteStore(tmp_path / "data").close())
    back_up(tmp_path / "data", tmp_path / "copy")
    with pytest.raises(InvalidInput, match="exists: name a folder that does not"):
        back_up(tmp_path / "data", tmp_path / "copy")
    with pytest.raises(InvalidInput, match="restore into one that has none"):
        restore(tmp_path / "copy", tmp_path / "data")
    with pytest.raises(InvalidInput, match="is no backup"):
        restore(tmp_path / "data", tmp_path / "new")


@pytest.mark.rule("R15")
async def test_a_read_without_an_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LONGEST_READ", 0.05)
    store = SqliteStore(tmp_path / "data")
    endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreBusy, match="readers keep the log from being cut: ask for less at once"):
        await store._read(lambda connection: connection.execute(endless).fetchone())
    assert await store.newest() == 0
    await store.close()


@pytest.mark.rule("R15")
async def test_a_log_that_grows_is_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "LOG_BYTES", 1_000)
    store = SqliteStore(tmp_path / "data")
    await store.register(host("h1"))
    await store.submit([new_run("top")])
    await store.tend(host("h1"), 0, 10.0)
    assert "a process holds a read of the store open" in caplog.text
    await store.close()


async def test_a_blob_that_is_being_written_is_no_part_of_a_backup(tmp_path: Path) -> None:
    """It has another name a moment later, and no entry names it yet."""
    store = SqliteStore(tmp_path / "data")
    await store.register(host("h1"))
    await store.submit([new_run("top", "x" * 200_000)])
    await store.close()
    [blob] = [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    blob.with_suffix(".77.0badcafe").symlink_to(tmp_path / "renamed already")
    counts = await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "copy")
    assert counts["blobs"] == 1
