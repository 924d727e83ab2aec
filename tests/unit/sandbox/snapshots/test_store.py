"""The store of snapshots: what is kept once, in which order it becomes durable, and who may be in it at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.doubles.sealed import kept_keys
from tests.doubles.trees import names

from retinue.runs.errors import TransientError
from retinue.sandbox.snapshots import objects as objects_module
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.shelves import Shelf
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import CHUNK, Changes

TENANT = "acme"
pytestmark = pytest.mark.promise("E2", "E3")


async def test_only_what_is_new_is_kept(snapshots: Snapshots, objects: LocalObjects, tree: Path) -> None:
    for number in range(300):
        (tree / f"file-{number}").write_bytes(os.urandom(1_000))
    first = await snapshots.take(tree, TENANT)
    before = set(kept_keys(objects, TENANT))
    again = await snapshots.take(tree, TENANT)
    assert (again.snapshot_id, again.new_bytes) == (first.snapshot_id, 0)
    assert set(kept_keys(objects, TENANT)) == before
    for number in range(5):
        (tree / f"file-{number * 50}").write_bytes(os.urandom(20_000))
    second = await snapshots.take(tree, TENANT)
    new = set(kept_keys(objects, TENANT)) - before
    assert 100_000 < second.new_bytes < 2 * 100_000
    assert len([key for key in new if key.startswith("trees/")]) == 1
    assert len(new) <= 1 + 5 + 6
    assert first.new_bytes + second.new_bytes == objects.usage(TENANT)


async def test_equal_files_are_kept_once(snapshots: Snapshots, objects: LocalObjects, tree: Path) -> None:
    first = await snapshots.take(tree, TENANT)
    for number in range(50):
        (tree / f"copy-{number}").write_bytes((tree / "src" / "main.py").read_bytes())
    keys = set(kept_keys(objects, TENANT))
    second = await snapshots.take(tree, TENANT)
    assert second.entries == first.entries + 50
    assert len(set(kept_keys(objects, TENANT)) - keys) <= 5


async def test_what_compresses_is_kept_small(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    (tree / "zeros").write_bytes(bytes(3 * CHUNK))
    (tree / "noise").write_bytes(os.urandom(100_000))
    taken = await snapshots.take(tree, TENANT)
    assert 100_000 < taken.new_bytes < 110_000
    await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert (tmp_path / "back/zeros").stat().st_blocks * 512 >= 3 * CHUNK


async def test_a_snapshot_needs_the_objects_it_names_and_no_other(
    snapshots: Snapshots, objects: LocalObjects, shelf: Shelf, tree: Path, tmp_path: Path
) -> None:
    first = await snapshots.take(tree, TENANT)
    assert shelf.needs(first.snapshot_id) == set(kept_keys(objects, TENANT))
    (tree / "README").write_text("changed")
    second = await snapshots.take(tree, TENANT)
    both = shelf.needs(first.snapshot_id) | shelf.needs(second.snapshot_id)
    assert both == set(kept_keys(objects, TENANT))
    await snapshots.delete(first.snapshot_id, TENANT)
    for key in set(kept_keys(objects, TENANT)) - shelf.needs(second.snapshot_id):
        objects.delete(TENANT, key)
    assert [kept.snapshot_id for kept in await snapshots.listed(TENANT)] == [second.snapshot_id]
    await snapshots.restore(second.snapshot_id, TENANT, tmp_path / "back")
    assert not await snapshots.exists(first.snapshot_id, TENANT)
    await snapshots.delete(first.snapshot_id, TENANT)


async def test_snapshots_are_listed_in_order(snapshots: Snapshots, tree: Path) -> None:
    assert await snapshots.listed(TENANT) == ()
    taken = []
    for number in range(3):
        (tree / "README").write_text(str(number))
        taken.append(await snapshots.take(tree, TENANT))
    listed = await snapshots.listed(TENANT)
    assert [kept.snapshot_id for kept in listed] == [each.snapshot_id for each in taken]
    assert {(kept.entries, kept.bytes) for kept in listed} == {(each.entries, each.bytes) for each in taken}


async def test_two_snapshots_are_compared_by_name(snapshots: Snapshots, tree: Path) -> None:
    first = await snapshots.take(tree, TENANT)
    (tree / "src" / "new").write_text("new")
    (tree / "src" / "empty").unlink()
    (tree / "README").chmod(0o600)
    (tree / "src" / "main.py").unlink()
    (tree / "src" / "main.py").mkdir()
    second = await snapshots.take(tree, TENANT)
    forth = await snapshots.diff(first.snapshot_id, second.snapshot_id, TENANT)
    assert forth == Changes(("src/new",), ("src/empty",), ("README", "src/main.py"))
    back = await snapshots.diff(second.snapshot_id, first.snapshot_id, TENANT)
    assert back == Changes(forth.removed, forth.added, forth.changed)
    assert await snapshots.diff(first.snapshot_id, first.snapshot_id, TENANT) == Changes()


def test_nothing_bears_its_name_before_it_is_durable(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment at which the disk is told to write, what has a name was written before."""
    seen: list[list[str]] = []
    sync = objects_module.sync_whole

    def watched(fd: int) -> None:
        seen.append(kept_keys(objects, TENANT))
        sync(fd)

    monkeypatch.setattr(objects_module, "sync_whole", watched)
    with objects.writing(TENANT) as batch:
        batch.put("objects/aa/one", b"1")
        batch.put("objects/bb/two", b"2")
        batch.put("objects/aa/one", b"another")
        assert kept_keys(objects, TENANT) == []
        batch.commit("trees/head", b"head")
    assert seen[0] == []
    assert seen[1] == ["objects/aa/one", "objects/bb/two"]
    assert seen[2] == ["objects/aa/one", "objects/bb/two", "trees/head"]
    assert objects.get(TENANT, "objects/aa/one") == b"1"


def test_a_batch_that_is_not_committed_leaves_nothing(objects: LocalObjects, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), objects.writing(TENANT) as batch:
        batch.put("objects/aa/one", b"1")
        raise ZeroDivisionError
    assert names(tmp_path / "store" / TENANT) == ["lock", "tmp", "tmp.lock"]


def test_what_a_dead_process_left_is_removed_and_what_a_live_one_writes_is_not(
    objects: LocalObjects, tmp_path: Path
) -> None:
    left = tmp_path / "store" / TENANT / "tmp" / "left"
    with objects.writing(TENANT) as one:
        one.put("objects/aa/one", b"1")
        left.mkdir()
        (left / "0").write_bytes(b"half")
        with objects.writing(TENANT) as two:
            assert not left.exists()
            two.put("objects/aa/two", b"2")
            two.commit("trees/two", b"")
        one.commit("trees/one", b"")
    assert kept_keys(objects, TENANT) == ["objects/aa/one", "objects/aa/two", "trees/one", "trees/two"]


def test_many_batches_come_and_go_at_once(objects: LocalObjects, tmp_path: Path) -> None:
    """Whoever begins sweeps what is left behind, while others end and remove what is theirs."""

    def write(number: int) -> None:
        for turn in range(15):
            with objects.writing(TENANT) as batch:
                batch.put(f"objects/{number}/{turn}", b"x")
                if turn % 3:
                    batch.commit(f"trees/{number}-{turn}", b"head")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(kept_keys(objects, TENANT)) == 8 * 10 * 2
    assert names(tmp_path / "store" / TENANT / "tmp") == []


def test_whoever_collects_waits_for_writers_and_they_for_it(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_PATIENCE", 0.05)
    with objects.writing(TENANT), pytest.raises(TransientError, match="in use") as caught, objects.collecting(TENANT):
        pytest.fail("it collects while a batch is written")
    assert caught.value.code == "snapshots_busy"
    with objects.collecting(TENANT):
        for busy in (objects.writing, objects.collecting):
            with pytest.raises(TransientError, match="in use"), busy(TENANT):
                pytest.fail("it is in while another collects")
        with objects.writing("globex"):
            assert objects.exists("globex")
    with objects.writing(TENANT) as batch:
        batch.commit("trees/one", b"")


def test_a_store_that_is_erased_while_somebody_waits_begins_anew(
    objects: LocalObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiter finds that what it locked is gone, and locks what is there now."""
    with objects.writing(TENANT) as batch:
        batch.commit("trees/old", b"")
    home = tmp_path / "store" / TENANT
    lock = os.open(home / "lock", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def let_go(_: float) -> None:
        objects_module.remove_tree(home)
        os.close(lock)
        monkeypatch.undo()

    monkeypatch.setattr(objects_module.time, "sleep", let_go)
    with objects.writing(TENANT) as batch:
        batch.commit("trees/new", b"")
    assert kept_keys(objects, TENANT) == ["trees/new"]


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "../../up", "é\n", "x" * 300, "%2E%2E", "\udcff"])
async def test_no_name_of_a_tenant_leads_elsewhere(
    tenant: str, snapshots: Snapshots, tree: Path, tmp_path: Path
) -> None:
    before = names(tree.parent)
    taken = await snapshots.take(tree, tenant)
    await snapshots.restore(taken.snapshot_id, tenant, tmp_path / "work" / "back")
    assert len(os.listdir(tmp_path / "store")) == 1
    assert sorted(os.listdir(tmp_path)) == ["keys", "store", "work"]
    assert [name for name in names(tree.parent) if "back" not in name and name != "tree.stats"] == before


async def test_many_at_once_share_what_they_have_in_common(
    snapshots: Snapshots, objects: LocalObjects, tmp_path: Path
) -> None:
    folders = [tmp_path / f"work-{number}" / "tree" for number in range(8)]
    shared = [os.urandom(5_000) for _ in range(20)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for each, content in enumerate(shared):
            (folder / f"file-{each}").write_bytes(content)
        (folder / "own").write_text(str(number))
    taken = await asyncio.gather(*(snapshots.take(folder, TENANT) for folder in folders))
    assert len({each.snapshot_id for each in taken}) == 8
    whole = await asyncio.gather(
        *(
            snapshots.restore(each.snapshot_id, TENANT, folder.with_name("back"))
            for each, folder in zip(taken, folders, strict=True)
        )
    )
    assert [each.snapshot_id for each in whole] == [each.snapshot_id for each in taken]
    assert objects.usage(TENANT) < 8 * 20_000 + 20 * 6_000
