"""Snapshots in a place that all nodes reach: taken on one, restored on another, collected while others write."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.doubles.s3 import bucket, s3_server  # noqa: F401 - fixtures
from tests.doubles.sealed import FolderCiphers
from tests.doubles.trees import look

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import SandboxLost
from retinue.sandbox.snapshots import remote as remote_module
from retinue.sandbox.snapshots.collecting import collect
from retinue.sandbox.snapshots.nearby import Nearby
from retinue.sandbox.snapshots.objects import Objects
from retinue.sandbox.snapshots.remote import RemoteObjects
from retinue.sandbox.snapshots.rules import Quota, Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.store.objects import split_url
from retinue.store.places import open_objects

TENANT = "acme.corp/ä"
LATER = 2**62
pytestmark = pytest.mark.promise("E3")


class Node:
    """A node with a folder of its own, and keys and a bucket that it shares."""

    def __init__(self, name: str, place: str, keys: FolderCiphers, folder: Path) -> None:
        root, prefix = split_url(f"{place}/some/prefix")
        self.bucket = open_objects(root)
        self.nearby = Nearby(folder / name / "objects", 10**8)
        self.objects: Objects = RemoteObjects(self.bucket, prefix, self.nearby)
        self.snapshots = Snapshots(self.objects, keys)

    def keys(self) -> set[str]:
        return {held.key for top in ("objects", "trees") for held in self.objects.list(TENANT, top)}


@pytest.fixture
def nodes(bucket: str, keys: FolderCiphers, tmp_path: Path) -> tuple[Node, Node]:  # noqa: F811
    return Node("one", bucket, keys, tmp_path), Node("two", bucket, keys, tmp_path)


async def test_a_snapshot_of_one_node_is_restored_on_another(
    nodes: tuple[Node, Node], tree: Path, tmp_path: Path
) -> None:
    one, two = nodes
    for number in range(60):
        (tree / f"file-{number}").write_bytes(os.urandom(500))
    first = await one.snapshots.take(tree, TENANT)
    assert first.new_bytes == sum(held.size for top in ("objects", "trees") for held in one.objects.list(TENANT, top))
    assert await two.snapshots.exists(first.snapshot_id, TENANT)
    await two.snapshots.restore(first.snapshot_id, TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)
    again = await two.snapshots.take(tmp_path / "back", TENANT)
    assert (again.snapshot_id, again.new_bytes) == (first.snapshot_id, 0)
    (tmp_path / "back" / "file-3").write_bytes(os.urandom(9_000))
    second = await two.snapshots.take(tmp_path / "back", TENANT)
    assert 9_000 < second.new_bytes < 18_000
    kept = await one.snapshots.listed(TENANT)
    assert {each.snapshot_id for each in kept} == {first.snapshot_id, second.snapshot_id}


async def test_what_was_used_is_not_fetched_again(
    nodes: tuple[Node, Node], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, two = nodes
    taken = await nodes[0].snapshots.take(tree, TENANT)
    fetched = []
    real = type(two.bucket).get

    def counted(place: object, path: str) -> bytes | None:
        fetched.append(path)
        return real(place, path)  # type: ignore[arg-type]

    monkeypatch.setattr(type(two.bucket), "get", counted)
    await two.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "a")
    assert len([path for path in fetched if "/objects/" in path]) == 3
    fetched.clear()
    await two.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "b")
    assert [path for path in fetched if "/objects/" in path] == []
    for copy in (tmp_path / "two" / "objects").rglob("*"):
        if copy.is_file():
            copy.write_bytes(b"damaged" + copy.read_bytes()[7:])
    await two.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "c")
    assert look(tmp_path / "c") == look(tree)
    assert len([path for path in fetched if "/objects/" in path]) == 3


async def test_one_collects_and_the_other_knows(nodes: tuple[Node, Node], tree: Path, tmp_path: Path) -> None:
    one, two = nodes
    taken = await one.snapshots.take(tree, TENANT)
    await two.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "copy")
    await two.snapshots.take(tmp_path / "copy", TENANT)
    done = await collect(one.snapshots, TENANT, (), LATER)
    assert done.snapshots == (taken.snapshot_id,)
    assert one.keys() == set()
    with pytest.raises(SandboxLost):
        await two.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "gone")
    again = await two.snapshots.take(tmp_path / "copy", TENANT)
    assert again.snapshot_id == taken.snapshot_id
    await one.snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert look(tmp_path / "back") == look(tree)


async def test_nobody_collects_while_another_node_writes(
    nodes: tuple[Node, Node], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    await one.snapshots.take(tree, TENANT)
    before = one.keys()
    monkeypatch.setattr(remote_module, "_PATIENCE", 0.2)
    monkeypatch.setattr(remote_module, "_PAUSE", 0.05)
    with one.objects.writing(TENANT), pytest.raises(TransientError, match="in use"):
        await collect(two.snapshots, TENANT, (), LATER)
    with one.objects.collecting(TENANT):
        with pytest.raises(TransientError, match="in use"):
            await two.snapshots.take(tree, TENANT, Rules(quota=Quota()))
        with pytest.raises(TransientError, match="in use"):
            await collect(two.snapshots, TENANT, (), LATER)
    assert one.keys() == before
    assert (await collect(two.snapshots, TENANT, (), LATER)).kept == 0


async def test_the_sign_of_a_dead_process_is_not_waited_for_and_its_batch_is_none(
    nodes: tuple[Node, Node], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    await one.snapshots.take(tree, TENANT)
    monkeypatch.setattr(remote_module, "LEASE", -10.0)
    with one.objects.writing(TENANT) as batch:
        batch.put("objects/aa/bb", b"content")
        done = await collect(two.snapshots, TENANT, (), LATER)
        assert len(done.snapshots) == 1
        with pytest.raises(TransientError, match="not kept"):
            batch.commit("trees/cc", b"head")
    assert one.keys() <= {"objects/aa/bb"}


async def test_both_nodes_write_at_once(nodes: tuple[Node, Node], tree: Path, tmp_path: Path) -> None:
    taken = await asyncio.gather(*(node.snapshots.take(tree, TENANT) for node in nodes))
    assert len({each.snapshot_id for each in taken}) == 1
    await nodes[0].snapshots.restore(taken[0].snapshot_id, TENANT, tmp_path / "back")
    await nodes[0].snapshots.erase(TENANT)
    assert not nodes[1].objects.exists(TENANT)


def test_copies_are_bounded_and_the_ones_used_last_stay(tmp_path: Path) -> None:
    nearby = Nearby(tmp_path / "objects", 1_000)
    for number in range(30):
        nearby.put(TENANT, f"objects/aa/{number}", bytes(100))
        os.utime(nearby._of(TENANT, f"objects/aa/{number}"), ns=(number, number))
        nearby.get(TENANT, "objects/aa/0")
    kept = [number for number in range(30) if nearby.get(TENANT, f"objects/aa/{number}") is not None]
    assert kept[0] == 0
    assert kept[-1] == 29
    assert len(kept) <= 10
    nearby.erase(TENANT)
    assert nearby.get(TENANT, "objects/aa/29") is None
