"""Copies of a store of snapshots: whole while others take and collect, and refused when anything of one is damaged."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from tests.doubles.processes import python
from tests.doubles.sealed import FolderCiphers, kept_keys
from tests.doubles.trees import look

from retinue.host import clock
from retinue.runs.errors import InvalidInput, StoreError, TransientError
from retinue.sandbox.snapshots import copying
from retinue.sandbox.snapshots import objects as objects_module
from retinue.sandbox.snapshots.collecting import collect
from retinue.sandbox.snapshots.copying import SUMS, Copied, bring_back, copy_out, guarded
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.store import Snapshots

TENANT = "acme"
LATER = 2**62
pytestmark = [pytest.mark.promise("E3"), pytest.mark.rule("R16")]
BRING = "import sys; from pathlib import Path; from retinue.sandbox.snapshots.copying import bring_back\n"
BRING += "bring_back(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    folder.mkdir()
    return folder


def copied(store: Path, backup: Path, earlier: Path | None = None) -> Copied:
    with guarded(store):
        return copy_out(store, backup, earlier)


async def test_a_copy_has_all_that_was_named_while_others_take_and_collect(
    snapshots: Snapshots, keys: FolderCiphers, tree: Path, tmp_path: Path
) -> None:
    """What plays the journal is a list of the two newest snapshots: nothing else is in use, and all is old."""
    used = [(await snapshots.take(tree, TENANT)).snapshot_id]
    retired: set[str] = set()
    taking, over, enough = asyncio.Lock(), threading.Event(), asyncio.Event()

    async def take() -> None:
        while not over.is_set():
            (tree / "changing").write_bytes(os.urandom(50_000))
            async with taking:
                taken = (await snapshots.take(tree, TENANT)).snapshot_id
                retired.update(used[:-1])
                used[:] = [*used[-1:], taken]
            await asyncio.sleep(0)

    async def clean() -> None:
        gone = 0
        while not over.is_set():
            async with taking:  # what is taken later is younger than this, and what is not stands in the list
                before = clock.now_ns() - 50_000_000
                stays = {kept.snapshot_id for kept in await snapshots.listed(TENANT)} - retired
            gone += len((await collect(snapshots, TENANT, stays, before)).snapshots)
            if gone > 5:
                enough.set()
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(take()), asyncio.create_task(clean())]
    for number in range(6):
        into = tmp_path / f"backup-{number}"
        into.mkdir()
        with guarded(tmp_path / "store"):
            journal = list(used)
            await asyncio.sleep(0.1)
            done = await asyncio.to_thread(copy_out, tmp_path / "store", into)
        back = tmp_path / f"store-{number}"
        assert await asyncio.to_thread(bring_back, into, back, done.files) == done
        found = Snapshots(LocalObjects(back), keys)
        for snapshot_id in journal:
            await found.restore(snapshot_id, TENANT, tmp_path / f"back-{number}-{snapshot_id[-8:]}")
        for kept in await found.listed(TENANT):
            await found.restore(kept.snapshot_id, TENANT, tmp_path / f"all-{number}-{kept.snapshot_id[-8:]}")
    await asyncio.wait_for(enough.wait(), 60)
    over.set()
    await asyncio.gather(*tasks)


async def test_nothing_goes_while_the_store_is_guarded(
    snapshots: Snapshots, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_PATIENCE", 0.1)
    taken = (await snapshots.take(tree, TENANT)).snapshot_id
    with guarded(tmp_path / "store"):
        for work in (collect(snapshots, TENANT, (), LATER), snapshots.erase(TENANT)):
            with pytest.raises(TransientError, match="a backup is being made or snapshots are being removed") as caught:
                await work
            assert caught.value.code == "snapshots_busy"
        (tree / "more").touch()
        await snapshots.take(tree, TENANT)
    assert taken in (await collect(snapshots, TENANT, (), LATER)).snapshots


async def test_what_is_brought_back_is_what_was_copied(
    snapshots: Snapshots, objects: LocalObjects, keys: FolderCiphers, tree: Path, backup: Path, tmp_path: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(9_000_000))
    ids = [(await snapshots.take(tree, tenant)).snapshot_id for tenant in (TENANT, "Ä/b.c", TENANT)]
    done = copied(tmp_path / "store", backup)
    assert (done.snapshots, done.bytes) == (2, objects.usage(TENANT) + objects.usage("Ä/b.c"))
    check = partial(subprocess.run, ["sha256sum", "--check", "--quiet", SUMS], cwd=backup, check=False)
    assert (await asyncio.to_thread(check)).returncode == 0, "a person can check it without Retinue"
    assert (backup / "snapshots").stat().st_mode & 0o077 == 0
    draft = tmp_path / "new" / "store.unfinished"
    (draft / "left").mkdir(parents=True)
    assert bring_back(backup, tmp_path / "new" / "store", done.files) == done
    assert not draft.exists()
    again = LocalObjects(tmp_path / "new" / "store")
    assert kept_keys(again, TENANT) == kept_keys(objects, TENANT)
    await Snapshots(again, keys).restore(ids[1], "Ä/b.c", tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)
    with pytest.raises(InvalidInput, match="snapshots of another store"):
        bring_back(backup, tmp_path / "new" / "store", done.files)


async def test_a_store_in_which_nothing_was_kept_is_copied_too(backup: Path, tmp_path: Path) -> None:
    assert copied(tmp_path / "store", backup) == Copied()
    assert bring_back(backup, tmp_path / "store", 0) == Copied(), "what an earlier guard left is in nobody's way"


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "unlisted", "no list", "leads out", "no text"])
async def test_a_damaged_copy_is_refused_and_nothing_is_left(
    harm: str, snapshots: Snapshots, tree: Path, backup: Path, tmp_path: Path
) -> None:
    await snapshots.take(tree, TENANT)
    done = copied(tmp_path / "store", backup)
    file = next(path for path in (backup / "snapshots").rglob("*") if path.is_file())
    sums = backup / SUMS
    lines = sums.read_text().splitlines(keepends=True)
    match harm:
        case "changed":
            file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "gone":
            file.unlink()
        case "unlisted":
            sums.write_text("".join(lines[1:]))
        case "no list":
            sums.unlink()
        case "leads out":
            sums.write_text("".join([lines[0].replace(f"/{TENANT}/", "/../"), *lines[1:]]))
        case "no text":
            sums.write_bytes(b"\xff\xfe")
    new = tmp_path / "new" / "store"
    with pytest.raises(StoreError, match=r"--without-snapshots") as caught:
        bring_back(backup, new, done.files)
    assert str(file if harm in ("changed", "cut", "gone") else sums) in str(caught.value)
    assert list(new.parent.iterdir()) == []


def test_a_restore_that_is_killed_leaves_no_store_that_is_not_whole(
    snapshots: Snapshots, keys: FolderCiphers, tree: Path, backup: Path, tmp_path: Path
) -> None:
    for number in range(200):
        (tree / f"file-{number}").write_bytes(os.urandom(20_000))
    taken = asyncio.run(snapshots.take(tree, TENANT)).snapshot_id
    done = copied(tmp_path / "store", backup)
    new = tmp_path / "new"
    cut = 0
    for number in range(5):
        with python(BRING, backup, new / "store", str(done.files)) as killed:
            until = time.monotonic() + 30
            while not (new / "store.unfinished").exists() and not (new / "store").exists() and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.005 * number)
            killed.kill()
        if (new / "store").exists():
            (new / "store").rename(new / f"whole-{number}")
            whole = kept_keys(LocalObjects(new / f"whole-{number}"), TENANT)
            assert whole == kept_keys(LocalObjects(tmp_path / "store"), TENANT)
        else:
            cut += (new / "store.unfinished").exists()
    assert cut, "none was killed in the middle: the test shows nothing"
    assert bring_back(backup, new / "store", done.files) == done
    asyncio.run(Snapshots(LocalObjects(new / "store"), keys).restore(taken, TENANT, tmp_path / "back"))
    assert look(tmp_path / "back") == look(tree)


async def test_a_backup_waits_for_a_collection_and_not_for_ever(
    objects: LocalObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PATIENCE", 0.1)
    with objects.collecting(TENANT), pytest.raises(TransientError, match="snapshots are being removed"):
        guarded(tmp_path / "store").__enter__()
    with guarded(tmp_path / "store"):
        pass


async def test_a_copy_links_what_an_earlier_one_has(
    snapshots: Snapshots, keys: FolderCiphers, tree: Path, backup: Path, tmp_path: Path
) -> None:
    """Heads and objects, of all tenants; what is damaged, missing or new in the earlier copy is copied."""
    for number in range(30):
        (tree / f"file-{number}").write_bytes(os.urandom(3_000))
    for tenant in ("zeta", TENANT, "m.n"):
        await snapshots.take(tree, tenant)
    first = copied(tmp_path / "store", backup)
    (tree / "new").write_bytes(os.urandom(3_000))
    taken = (await snapshots.take(tree, TENANT)).snapshot_id
    lost, cut = sorted((backup / "snapshots" / "zeta" / "objects").rglob("*/*"))[:2]
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    again = tmp_path / "again"
    again.mkdir()
    done = copied(tmp_path / "store", again, backup)
    assert done.linked == first.files - 2 and done.files > first.files
    shutil.rmtree(backup)
    brought = bring_back(again, tmp_path / "new", done.files)
    assert (brought.files, brought.bytes) == (done.files, done.bytes)
    await Snapshots(LocalObjects(tmp_path / "new"), keys).restore(taken, TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)
