"""Backups of a project: store and snapshots of one moment, whatever is collected meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.doubles.shapes import START, host, new_run, own, said

from retinue.host import backups
from retinue.host.backups import back_up_project, restore_project
from retinue.host.opening import open_store
from retinue.host.sandbox_keeping import Keeping, collect_snapshots
from retinue.host.sandboxes import open_snapshots
from retinue.host.settings import Settings, load_settings
from retinue.runs.errors import InvalidInput, StoreError, TransientError
from retinue.runs.sandboxes import SandboxRow, SandboxState
from retinue.sandbox.snapshots import objects
from retinue.sandbox.snapshots.copying import copy_out
from retinue.sandbox.snapshots.store import Snapshots
from retinue.store.store import Store

pytestmark = [pytest.mark.promise("E3"), pytest.mark.rule("R16", "R5")]
FUTURE = START + 10**18


def project(folder: Path, extra: str = "") -> Settings:
    folder.mkdir(exist_ok=True)
    (folder / "retinue.yaml").write_text(f"principal: bob\n{extra}")
    return load_settings(folder)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Store, Snapshots]]:
    store = open_store(settings)
    try:
        yield store, open_snapshots(settings, store)
    finally:
        await store.close()


async def kept(snapshots: Snapshots, work: Path, text: str) -> str:
    await asyncio.to_thread(work.mkdir, exist_ok=True)
    (work / "a").write_text(text)
    return (await snapshots.take(work, "acme")).snapshot_id


def row(head: str) -> SandboxRow:
    state = SandboxState(
        sandbox_id="box",
        name="box",
        manifest="coder",
        manifest_version="m1",
        profile="strict",
        profile_digest="p1",
        head_snapshot_id=head,
        node="here",
        changed_at=START,
    )
    return SandboxRow(state, "t" * 32)


async def test_what_the_copied_journal_names_is_there_though_nobody_needs_it_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the journal was copied its run ends, and all that was kept for it would be collected at once."""
    monkeypatch.setattr(objects, "_PATIENCE", 0.1)
    settings = project(tmp_path / "one")
    refused = []
    async with opened(settings) as (store, snapshots):
        await store.register(host())
        head = await kept(snapshots, tmp_path / "work", "as of the checkpoint")
        await store.submit([new_run("first")])
        owner = await own(store, "first")
        await owner.append(said("kept"), sandboxes=(row(head),))
        loop = asyncio.get_running_loop()

        async def end_and_collect() -> None:
            await owner.finish()
            await collect_snapshots(Keeping(store, snapshots, FUTURE, FUTURE), "acme")

        def late(*places: Path) -> object:
            with pytest.raises(TransientError) as caught:
                asyncio.run_coroutine_threadsafe(end_and_collect(), loop).result(30)
            refused.append(caught.value.code)
            return copy_out(*places)

        monkeypatch.setattr(backups, "copy_out", late)
        counts, copied = await asyncio.to_thread(back_up_project, settings, tmp_path / "copy")
        assert refused == ["snapshots_busy"]
        assert counts["runs"] == 1 and copied is not None and copied.snapshots == 1
        await collect_snapshots(Keeping(store, snapshots, FUTURE, FUTURE), "acme")
        assert not await snapshots.exists(head, "acme"), "the backup holds nothing back when it has ended"
    other = project(tmp_path / "two")
    done = await asyncio.to_thread(restore_project, other, tmp_path / "copy")
    assert (done.runs, done.copied, done.place) == (1, copied, None)
    async with opened(other) as (store, snapshots):
        [record] = await store.sandbox_records.in_use("acme", START)
        assert record == head
        await snapshots.restore(head, "acme", tmp_path / "back")
    assert (tmp_path / "back" / "a").read_text() == "as of the checkpoint"


async def test_snapshots_in_a_place_stay_there_and_the_backup_says_so(tmp_path: Path) -> None:
    place = f"file://{tmp_path}/shared"
    settings = project(tmp_path / "one", f"sandbox: {{snapshots: '{place}'}}\n")
    async with opened(settings) as (_, snapshots):
        head = await kept(snapshots, tmp_path / "work", "far")
    _, copied = await asyncio.to_thread(back_up_project, settings, tmp_path / "copy")
    assert copied is None and not (tmp_path / "copy" / "snapshots").exists()
    assert not (settings.data_folder / "sandboxes" / "snapshots").exists()
    other = project(tmp_path / "two", f"sandbox: {{snapshots: '{place}'}}\n")
    done = await asyncio.to_thread(restore_project, other, tmp_path / "copy")
    assert (done.copied, done.place) == (None, place)
    async with opened(other) as (_, snapshots):
        assert await snapshots.exists(head, "acme")


async def test_a_damaged_snapshot_keeps_the_store_from_being_there(tmp_path: Path) -> None:
    settings = project(tmp_path / "one")
    async with opened(settings) as (_, snapshots):
        await kept(snapshots, tmp_path / "work", "1")
    back_up_project(settings, tmp_path / "copy")
    file = next(path for path in (tmp_path / "copy" / "snapshots").rglob("*") if path.is_file())
    file.write_bytes(b"")
    other = project(tmp_path / "two")
    with pytest.raises(StoreError, match="is not what was copied there"):
        restore_project(other, tmp_path / "copy")
    assert not (other.data_folder / "store.db").exists()
    assert restore_project(other, tmp_path / "copy", snapshots=False).copied is None
    assert (other.data_folder / "store.db").exists()


async def test_snapshots_of_another_store_are_not_mixed_with_those_of_the_backup(tmp_path: Path) -> None:
    settings = project(tmp_path / "one")
    async with opened(settings) as (_, snapshots):
        await kept(snapshots, tmp_path / "work", "1")
    back_up_project(settings, tmp_path / "copy")
    (settings.data_folder / "store.db").unlink()
    with pytest.raises(InvalidInput, match="has snapshots of another store"):
        restore_project(settings, tmp_path / "copy")


def test_nothing_is_made_where_there_is_no_store(tmp_path: Path) -> None:
    settings = project(tmp_path / "one")
    with pytest.raises(InvalidInput, match="has no store"):
        back_up_project(settings, tmp_path / "copy")
    assert not settings.data_folder.exists() and not (tmp_path / "copy").exists()
