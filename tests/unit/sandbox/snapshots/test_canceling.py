"""Snapshots wait in threads: the event loop goes on, and whoever is canceled leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from threading import Event

import pytest
from tests.doubles.sealed import FolderCiphers, kept_keys
from tests.doubles.trees import look, names

from retinue.runs.errors import PermanentError, TransientError
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import CHUNK

TENANT = "acme"
pytestmark = pytest.mark.promise("E3")


class SlowObjects(LocalObjects):
    """A store whose objects wait to be asked for until told, as on a slow disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached, self.go = Event(), Event()

    def has(self, tenant: str, keys: Collection[str]) -> set[str]:
        self._wait()
        return super().has(tenant, keys)

    def get(self, tenant: str, key: str) -> bytes | None:
        if key.startswith("objects/"):
            self._wait()
        return super().get(tenant, key)

    def _wait(self) -> None:
        self.reached.set()
        assert self.go.wait(60)


@pytest.fixture
def slow(tmp_path: Path) -> SlowObjects:
    return SlowObjects(tmp_path / "store")


async def cancel_midway(work: asyncio.Task[object], slow: SlowObjects) -> None:
    """Cancel what waits in a thread. The loop stays free, and the task ends when the thread has ended."""
    assert await asyncio.to_thread(slow.reached.wait, 60)
    work.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not work.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_canceled_snapshot_is_none(slow: SlowObjects, keys: FolderCiphers, tree: Path, tmp_path: Path) -> None:
    for number in range(200):
        (tree / f"file-{number}").write_bytes(os.urandom(100))
    before = names(tree.parent)
    await cancel_midway(asyncio.ensure_future(Snapshots(slow, keys).take(tree, TENANT)), slow)
    assert kept_keys(slow, TENANT) == []
    assert names(tmp_path / "store" / TENANT / "tmp") == []
    assert names(tree.parent) == before


async def test_what_is_canceled_before_its_turn_never_begins(
    slow: SlowObjects, keys: FolderCiphers, tree: Path, tmp_path: Path
) -> None:
    snapshots = Snapshots(slow, keys)
    keys.of(TENANT, make=True)
    before = [asyncio.ensure_future(snapshots.exists("s1-" + "a" * 64, TENANT)) for _ in range(20)]
    assert await asyncio.to_thread(slow.reached.wait, 60)
    last = asyncio.ensure_future(snapshots.take(tree, TENANT))
    await asyncio.sleep(0)
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    slow.go.set()
    assert await asyncio.gather(*before) == [False] * 20
    assert kept_keys(slow, TENANT) == []


async def test_a_canceled_restore_leaves_no_folder(
    slow: SlowObjects, keys: FolderCiphers, tree: Path, tmp_path: Path
) -> None:
    for number in range(200):
        (tree / f"file-{number}").write_bytes(os.urandom(100))
    taken = await Snapshots(LocalObjects(tmp_path / "store"), keys).take(tree, TENANT)
    place = tmp_path / "place"
    place.mkdir()
    work = Snapshots(slow, keys).restore(taken.snapshot_id, TENANT, place / "tree")
    await cancel_midway(asyncio.ensure_future(work), slow)
    assert names(place) == []


async def test_what_the_disk_says_is_said(
    snapshots: Snapshots, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = await snapshots.take(tree, TENANT)
    with pytest.raises(PermanentError, match="No such file") as caught:
        await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "nowhere" / "tree")
    assert caught.value.code == "disk"
    with pytest.raises(PermanentError, match="No such file"):
        await snapshots.take(tmp_path / "work" / "nowhere", TENANT)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TransientError, match="No space left"):
        await snapshots.restore(taken.snapshot_id, TENANT, place / "tree")
    assert names(place) == []


async def test_a_virtual_environment_comes_back_and_works(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    """Its interpreter is an absolute symlink out of the workspace, which others refuse or follow."""
    made = await asyncio.create_subprocess_exec(sys.executable, "-m", "venv", "--without-pip", str(tree / "venv"))
    assert await made.wait() == 0
    taken = await snapshots.take(tree, TENANT)
    os.rename(tree, tmp_path / "before")
    await snapshots.restore(taken.snapshot_id, TENANT, tree)
    assert look(tree) == look(tmp_path / "before")
    program = [str(tree / "venv/bin/python"), "-c", "import sys; print(sys.prefix)"]
    ran = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(tree / "venv")


async def test_files_belong_to_the_user_that_is_named(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: files of another user")
    (tree / "link").symlink_to("/etc/passwd")
    taken = await snapshots.take(tree, TENANT)
    before = os.lstat("/etc/passwd")
    await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back", uid=4242)
    found = [".", *names(tmp_path / "back")]
    assert {
        (os.lstat(tmp_path / "back" / name).st_uid, os.lstat(tmp_path / "back" / name).st_gid) for name in found
    } == {(4242, 4242)}
    assert os.lstat("/etc/passwd") == before
    assert (await snapshots.take(tmp_path / "back", TENANT)).snapshot_id == taken.snapshot_id
    mode = os.stat(tmp_path / "back").st_mode & 0o7777
    assert mode == 0o700


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_gigabyte_comes_back(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    """Real bytes in a file with a hole of the same size, in bounded memory."""
    half = 512 * 1024 * 1024
    with (tree / "large").open("wb") as large:
        for number in range(half // CHUNK):
            large.seek(number * 2 * CHUNK + 4096)
            large.write(os.urandom(CHUNK))
        large.truncate(2 * half)
    taken = await snapshots.take(tree, TENANT)
    assert half < taken.new_bytes < half * 1.01
    await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)
    assert os.stat(tmp_path / "back/large").st_blocks * 512 < half * 1.05
    assert (await snapshots.take(tmp_path / "back", TENANT)).snapshot_id == taken.snapshot_id
