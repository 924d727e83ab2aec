"""Collecting: what is used or young stays whole, the rest goes, whoever writes and whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers, kept_keys
from tests.doubles.trees import look

from retinue.host import clock
from retinue.runs.sandboxes import SandboxLost
from retinue.sandbox.snapshots.collecting import collect
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.shelves import Shelf
from retinue.sandbox.snapshots.store import Snapshots

TENANT = "acme"
LATER = 2**62
"""A time by which everything is old (Unix ns)."""
pytestmark = pytest.mark.promise("E3")


async def three(snapshots: Snapshots, tree: Path) -> list[str]:
    """Snapshots of three versions of a tree."""
    ids = []
    for number in range(3):
        (tree / "changing").write_bytes(os.urandom(10_000))
        (tree / f"own-{number}").write_bytes(os.urandom(5_000))
        ids.append((await snapshots.take(tree, TENANT)).snapshot_id)
    return ids


async def test_what_nobody_uses_goes_and_the_rest_is_whole(
    snapshots: Snapshots, objects: LocalObjects, shelf: Shelf, tree: Path, tmp_path: Path
) -> None:
    first, second, third = await three(snapshots, tree)
    before, size = set(kept_keys(objects, TENANT)), objects.usage(TENANT)
    dry = await collect(snapshots, TENANT, {second}, LATER, dry=True)
    assert set(kept_keys(objects, TENANT)) == before
    done = await collect(snapshots, TENANT, {second}, LATER)
    assert done == dry
    assert done.snapshots == tuple(sorted([first, third]))
    assert done.kept == 1
    left = set(kept_keys(objects, TENANT))
    assert left == shelf.needs(second)
    assert done.objects + 2 == len(before - left)
    assert done.bytes == size - objects.usage(TENANT) > 20_000
    await snapshots.restore(second, TENANT, tmp_path / "back")
    with pytest.raises(SandboxLost):
        await snapshots.restore(first, TENANT, tmp_path / "gone")
    assert await collect(snapshots, TENANT, {second}, LATER) == type(done)(kept=1)


async def test_what_is_young_stays(snapshots: Snapshots, objects: LocalObjects, shelf: Shelf, tree: Path) -> None:
    first, second, third = await three(snapshots, tree)
    for snapshot_id, moment in ((first, 100), (second, 200), (third, 300)):
        os.utime(tmp_of(objects, shelf, snapshot_id), ns=(moment, moment))
    done = await collect(snapshots, TENANT, (), 200)
    assert done.snapshots == (first,)
    assert {kept.snapshot_id for kept in await snapshots.listed(TENANT)} == {second, third}


async def test_taking_and_restoring_make_a_snapshot_young_again(
    snapshots: Snapshots, objects: LocalObjects, shelf: Shelf, tree: Path, tmp_path: Path
) -> None:
    taken = (await snapshots.take(tree, TENANT)).snapshot_id
    file = tmp_of(objects, shelf, taken)
    for use in (lambda: snapshots.take(tree, TENANT), lambda: snapshots.restore(taken, TENANT, tmp_path / "back")):
        os.utime(file, ns=(100, 100))
        await use()
        assert (await collect(snapshots, TENANT, (), 1_000)).snapshots == ()
    assert (await collect(snapshots, TENANT, (), LATER)).snapshots == (taken,)


async def test_a_damaged_list_stops_it(snapshots: Snapshots, objects: LocalObjects, shelf: Shelf, tree: Path) -> None:
    first, *_ = await three(snapshots, tree)
    tmp_of(objects, shelf, first).write_bytes(b"damaged")
    before = kept_keys(objects, TENANT)
    with pytest.raises(SandboxLost, match="damaged"):
        await collect(snapshots, TENANT, (), LATER)
    assert kept_keys(objects, TENANT) == before


async def test_nothing_of_nobody(snapshots: Snapshots, tmp_path: Path) -> None:
    assert (await collect(snapshots, "nobody", (), LATER)).kept == 0
    assert not (tmp_path / "store").exists()


async def test_a_snapshot_that_is_taken_meanwhile_is_whole(
    snapshots: Snapshots, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of snapshots changes after it was marked and before anything goes: an old one is used again, and a new
    one needs objects that no marked one needs."""
    old = (await snapshots.take(tree, TENANT)).snapshot_id
    (tree / "README").unlink()
    other = (await snapshots.take(tree, TENANT)).snapshot_id
    taken = []
    real = LocalObjects.collecting

    def between(objects: LocalObjects, tenant: str) -> object:
        (tree / "README").write_text("read me\n")
        taken.append(asyncio.run(snapshots.take(tree, TENANT)).snapshot_id)
        return real(objects, tenant)

    now = clock.now_ns()
    monkeypatch.setattr(LocalObjects, "collecting", between)
    done = await collect(snapshots, TENANT, (), now)
    assert set(done.snapshots) == {old, other}
    await snapshots.restore(taken[0], TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)


def tmp_of(objects: LocalObjects, shelf: Shelf, snapshot_id: str) -> Path:
    """The file of a snapshot's head."""
    return objects._of(TENANT) / shelf.head_key(snapshot_id)


TAKER = """
import asyncio, os, sys
from pathlib import Path
from tests.doubles.sealed import FolderCiphers
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.collecting import collect
store, keys, tree, what = sys.argv[1:]
snapshots = Snapshots(LocalObjects(Path(store)), FolderCiphers(Path(keys)))
print("ready", flush=True)
while what == "take":
    (Path(tree) / "a").write_bytes(os.urandom(4) * 10)
    (Path(tree) / "b").write_bytes(b"same" * 1000 if os.urandom(1)[0] % 2 else b"other" * 1000)
    print(asyncio.run(snapshots.take(Path(tree), "acme")).snapshot_id, flush=True)
asyncio.run(collect(snapshots, "acme", {what}, 2**62))
"""


def start(tmp_path: Path, tree: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TAKER, str(tmp_path / "store"), str(tmp_path / "keys"), str(tree), what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": _path()})


def _path() -> str:
    return os.pathsep.join(each for each in sys.path if each)


async def test_processes_take_while_another_collects(
    snapshots: Snapshots, tree: Path, tmp_path: Path, keys: FolderCiphers
) -> None:
    """All that is collected is older than what is kept of the takers, who write what was just removed again."""
    keys.of(TENANT, make=True)
    stop, collected = threading.Event(), []

    def collecting() -> None:
        while not stop.is_set():
            begun = clock.now_ns() - 300_000_000
            collected.append(asyncio.run(collect(snapshots, TENANT, (), begun)))

    thread = threading.Thread(target=collecting)
    thread.start()
    with start(tmp_path, tree, "take") as taker:
        assert taker.stdout is not None
        ids: list[str] = []
        until = time.monotonic() + 60
        while len(ids) < 60 or (not any(each.snapshots for each in collected) and time.monotonic() < until):
            ids.append(taker.stdout.readline().strip())
        taker.kill()
    stop.set()
    thread.join()
    assert sum(len(each.snapshots) for each in collected) >= 1
    for kept in await snapshots.listed(TENANT):
        await snapshots.restore(kept.snapshot_id, TENANT, tmp_path / f"back-{kept.snapshot_id[:16]}")
    assert len(await snapshots.listed(TENANT)) >= 1
    assert all(ids)


async def test_killed_at_any_moment_it_leaves_whole_snapshots(
    snapshots: Snapshots, tree: Path, tmp_path: Path, objects: LocalObjects, shelf: Shelf
) -> None:
    kept = 0
    for number in range(3):
        ids = await three(snapshots, tree)
        for extra in range(40):
            (tree / f"f-{number}-{extra}").write_bytes(os.urandom(100))
        used = (await snapshots.take(tree, TENANT)).snapshot_id
        for snapshot_id in ids:
            os.utime(tmp_of(objects, shelf, snapshot_id), ns=(100, 100))
        with start(tmp_path, tree, used) as collector:
            assert collector.stdout is not None
            collector.stdout.readline()
            await asyncio.sleep(0.004 * number)
            collector.kill()
        for each in await snapshots.listed(TENANT):
            into = tmp_path / f"back-{kept}"
            await snapshots.restore(each.snapshot_id, TENANT, into)
            kept += 1
        assert await snapshots.exists(used, TENANT)
        again = await snapshots.take(tree, TENANT)
        assert again.snapshot_id == used
    await collect(snapshots, TENANT, {used}, LATER)
    assert set(kept_keys(objects, TENANT)) == shelf.needs(used)


async def test_what_an_earlier_key_had_sealed_goes_when_the_tenant_has_come_back(
    snapshots: Snapshots, objects: LocalObjects, keys: FolderCiphers, tree: Path, tmp_path: Path
) -> None:
    """As on a node that was not reached when the tenant was erased: it is no damage, and keeps nothing from going."""
    await three(snapshots, tree)
    keys.vault.destroy(TENANT)
    taken = (await snapshots.take(tree, TENANT)).snapshot_id
    assert [kept.snapshot_id for kept in await snapshots.listed(TENANT)] == [taken]
    done = await collect(snapshots, TENANT, {taken}, LATER)
    assert (done.snapshots, done.kept) == ((), 1) and done.objects > 3
    shelf = snapshots.shelf(TENANT)
    assert shelf is not None and set(kept_keys(objects, TENANT)) == shelf.needs(taken)
    await snapshots.restore(taken, TENANT, tmp_path / "back")
