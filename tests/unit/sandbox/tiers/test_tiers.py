"""Fast ways to make a workspace: each gives what the copy gives, leaves its base alone, and goes without a trace."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers
from tests.doubles.trees import Look, look, names

from retinue.runs.sandboxes import SandboxLost, SandboxRefused, SandboxState
from retinue.sandbox import tiers as tiers_module
from retinue.sandbox.bases import Bases
from retinue.sandbox.contents import SnapshotContents
from retinue.sandbox.emptying import OVERLAYFS
from retinue.sandbox.living import Living, Workplace
from retinue.sandbox.mounts import mounted_below
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Quota, Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.tiers import BTRFS, COPY, ORDER, REFLINK, Tiers

TENANT = "acme"
USER = 600_123
pytestmark = [pytest.mark.promise("E3"), pytest.mark.skipif(sys.platform != "linux", reason="Linux only")]
ROOT = os.geteuid() == 0


class Node:
    """A node with its data folder on some file system."""

    def __init__(self, folder: Path, among: tuple[str, ...] = ORDER, most: int = 10**9) -> None:
        self.folder = folder
        self.snapshots = Snapshots(LocalObjects(folder / "snapshots"), FolderCiphers(folder / "keys"))
        self.bases = Bases(folder / "cache", "boot", most)
        self.tiers = Tiers(self.snapshots, self.bases, among)
        self.living = Living(folder / "work", "boot")
        self.contents = SnapshotContents(self.snapshots, TENANT, Rules(), self.tiers)

    def place(self, sandbox_id: str) -> Workplace:
        user = USER if ROOT else None
        return self.living.make(state_of(sandbox_id), lambda name, folder: user)


def state_of(sandbox_id: str) -> SandboxState:
    words = {"manifest": "m", "manifest_version": "v", "profile": "p", "profile_digest": "d"}
    return SandboxState(sandbox_id=sandbox_id, name="n", **words)


@pytest.fixture(params=[OVERLAYFS, BTRFS, REFLINK, COPY])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A node that has this way only, on a file system that has it."""
    home = {BTRFS: "btrfs", REFLINK: "xfs"}.get(request.param)
    top = tmp_path if home is None else request.getfixturevalue(home) / f"node-{os.urandom(4).hex()}"
    folder = top / "data"
    folder.mkdir(parents=True)
    node = Node(folder, (request.param,))
    if request.param not in node.tiers.working(USER if ROOT else None):
        pytest.skip(f"{request.param} does not work here: it needs root, and a kernel with idmapped mounts")
    yield node
    for sandbox_id in node.living.all():
        node.living.remove(sandbox_id)
    assert not mounted_below(folder)
    shutil.rmtree(top if home else folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A workspace with a bit of all that a snapshot keeps, but hardlinks."""
    folder = tmp_path / "source" / "tree"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(40):
        (folder / f"file-{number}").write_bytes(os.urandom(300 * number))
    (folder / "deep" / "er" / "script").write_text("#!/bin/sh\n")
    (folder / "deep" / "er" / "script").chmod(0o751)
    (folder / "closed").mkdir()
    (folder / "closed" / "secret").write_text("for its owner")
    (folder / "closed" / "secret").chmod(0o400)
    (folder / "closed").chmod(0o500)
    (folder / "link").symlink_to("deep/er/script")
    (folder / "dangling").symlink_to("/nowhere")
    with (folder / "holes").open("wb") as file:
        file.write(b"begin")
        file.truncate(1_000_000)
    os.setxattr(folder / "file-1", "user.colour", b"red")
    (folder / os.fsdecode(b"odd-\xff-name: , \\ ")).write_text("odd")
    return folder


def tier_of(node: Node) -> str:
    return node.tiers.working(USER if ROOT else None)[0]


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


async def wanted(node: Node, source: Path) -> tuple[str, Look]:
    """A snapshot that was filled once before, so that plain copies have a base too."""
    taken = await node.snapshots.take(source, TENANT)
    first = node.place("first")
    await node.contents.fill(first, taken.snapshot_id)
    await node.contents.empty(first)
    first.remove()
    return taken.snapshot_id, look(source)


async def test_a_workspace_is_what_the_snapshot_holds(node: Node, source: Path) -> None:
    snapshot_id, before = await wanted(node, source)
    place = node.place("one")
    kept = await node.contents.fill(place, snapshot_id)
    assert (kept.snapshot_id, kept.tier) == (snapshot_id, tier_of(node))
    assert look(place.tree) == before
    assert owners(place.tree) == {USER if ROOT else os.geteuid()}
    assert place.tree.stat().st_mode & 0o777 == 0o700
    assert (await node.contents.take(place)).snapshot_id == snapshot_id
    place.remove()
    assert names(node.folder / "work") == ["first", "one"]


def change(tree: Path) -> None:
    """What programs do to files, by each way there is."""
    (tree / "file-1").write_text("written anew")
    with (tree / "file-2").open("r+b") as file:
        file.write(b"in place")
    (tree / "file-3").unlink()
    (tree / "file-4").rename(tree / "deep" / "moved")
    (tree / "deep" / "er").rename(tree / "elsewhere")
    (tree / "closed").chmod(0o700)
    shutil.rmtree(tree / "closed")
    (tree / "closed").mkdir()
    (tree / "closed" / "new").write_text("in a folder that was there before")
    (tree / "file-5").chmod(0o600)
    os.setxattr(tree / "file-6", "user.colour", b"blue")
    os.truncate(tree / "file-7", 10)
    (tree / "link").unlink()
    (tree / "link").symlink_to("file-8")
    os.link(tree / "file-9", tree / "linked")
    (tree / "file-10").unlink()
    (tree / "file-10").mkdir()


def as_user(tree: Path, work: Callable[[Path], None]) -> None:
    """Do it as the user of the workspace."""
    child = os.fork()
    if child == 0:
        try:
            if ROOT:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
            os.chdir(tree)
            work(Path("."))
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not ROOT, reason="a user of its own needs root")
async def test_changes_are_seen_by_snapshots_and_by_nobody_else(node: Node, source: Path, tmp_path: Path) -> None:
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o011 != 0o011 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    snapshot_id, before = await wanted(node, source)
    one, other = node.place("one"), node.place("other")
    for place in (one, other):
        await node.contents.fill(place, snapshot_id)
    for folder in (node.folder, node.folder.parent, node.folder / "work", one.folder.parent):
        folder.chmod(0o711)
    assert (await node.contents.take(one)).snapshot_id == snapshot_id
    fd = os.open(one.tree, os.O_RDONLY)
    try:
        as_user(Path(f"/proc/self/fd/{fd}"), change)
    finally:
        os.close(fd)
    changed = look(one.tree)
    taken = await node.contents.take(one)
    assert taken.snapshot_id != snapshot_id
    await node.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == changed != before
    assert b"file-3" not in changed
    assert set(changed) >= {b"closed/new", b"elsewhere/script", b"deep/moved"}
    assert b"closed/secret" not in changed
    assert look(other.tree) == before
    third = node.place("third")
    await node.contents.fill(third, snapshot_id)
    assert look(third.tree) == before
    for place in (one, other, third):
        place.remove()


async def test_what_was_changed_becomes_a_base_in_turn(node: Node, source: Path) -> None:
    snapshot_id, _ = await wanted(node, source)
    one, two = node.place("one"), node.place("two")
    await node.contents.fill(one, snapshot_id)
    (one.tree / "file-1").write_text("better")
    best = (await node.contents.take(one)).snapshot_id
    await node.contents.fill(two, snapshot_id)
    await node.contents.empty(two)
    kept = await node.contents.fill(two, best)
    assert (two.tree / "file-1").read_text() == "better"
    assert kept.tier in (tier_of(node), COPY)
    one.remove()
    two.remove()


async def test_eight_at_once_share_one_base(node: Node, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_id, before = await wanted(node, source)
    node.bases.drop(TENANT, snapshot_id)
    made = []
    real = tiers_module._unpack

    def counted(*words: object) -> None:
        made.append(words)
        real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(tiers_module, "_unpack", counted)
    places = [node.place(f"fork-{number}") for number in range(8)]
    done = await asyncio.gather(*(node.contents.fill(place, snapshot_id) for place in places))
    assert {kept.tier for kept in done} == {tier_of(node)}
    assert len(made) == 1
    for place in places:
        assert look(place.tree) == before
        place.remove()


async def test_limits_hold_for_what_has_a_base(node: Node, source: Path) -> None:
    snapshot_id, _ = await wanted(node, source)
    place = node.place("one")
    for quota in (Quota(files=3), Quota(bytes=1_000), Quota(file_bytes=1_000), Quota(depth=2)):
        with pytest.raises(SandboxRefused, match="quota"):
            await node.tiers.fill(place, TENANT, snapshot_id, quota)
        assert not place.tree.exists()
    place.remove()


async def test_a_snapshot_that_is_gone_has_no_base(node: Node, source: Path) -> None:
    snapshot_id, _ = await wanted(node, source)
    place = node.place("one")
    await node.contents.fill(place, snapshot_id)
    place.remove()
    assert node.bases.has(TENANT, snapshot_id)
    await node.snapshots.delete(snapshot_id, TENANT)
    place = node.place("two")
    with pytest.raises(SandboxLost):
        await node.contents.fill(place, snapshot_id)
    assert not node.bases.has(TENANT, snapshot_id)
    place.remove()
    with pytest.raises(SandboxLost):
        await node.contents.fill(place, snapshot_id)


async def test_bases_are_dropped_when_they_are_too_many_unless_they_are_used(node: Node, source: Path) -> None:
    ids = []
    for number in range(4):
        (source / "number").write_text(str(number))
        ids.append((await wanted(node, source))[0])
    places = [node.place(f"p-{number}") for number in range(4)]
    for place, snapshot_id in zip(places, ids, strict=True):
        await node.contents.fill(place, snapshot_id)
    node.bases.most = 1
    stays = tier_of(node) == OVERLAYFS
    assert node.bases.trim() == (0 if stays else 4)
    for place in places:
        assert (place.tree / "file-2").stat().st_size == 600
        place.remove()
    assert node.bases.trim() == (4 if stays else 0)
    assert not any(node.bases.has(TENANT, snapshot_id) for snapshot_id in ids)


async def test_bases_of_another_boot_are_not_believed(node: Node, source: Path) -> None:
    snapshot_id, before = await wanted(node, source)
    place = node.place("one")
    await node.contents.fill(place, snapshot_id)
    place.remove()
    later = Bases(node.bases.folder, "next boot", 10**9)
    assert not later.has(TENANT, snapshot_id)
    assert later.trim() == 1
    assert node.bases.folder.stat().st_mode & 0o077 == 0
    assert before


async def test_where_a_way_fails_the_copy_is_made(node: Node, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_id, before = await wanted(node, source)

    def fails(*_: object) -> None:
        raise OSError(5, "no")

    monkeypatch.setitem(tiers_module._WAYS, tier_of(node), fails)
    place = node.place("one")
    kept = await node.contents.fill(place, snapshot_id)
    assert kept.tier == COPY
    assert look(place.tree) == before
    place.remove()


async def test_hardlinks_stay_hardlinks(node: Node, source: Path) -> None:
    os.link(source / "file-1", source / "twin")
    snapshot_id, before = await wanted(node, source)
    place = node.place("one")
    kept = await node.contents.fill(place, snapshot_id)
    assert look(place.tree) == before
    assert kept.tier != OVERLAYFS
    place.remove()
