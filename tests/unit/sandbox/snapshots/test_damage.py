"""What is not what was kept is never given out as it: each object is checked, and a failed restore leaves nothing."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers, kept_keys
from tests.doubles.trees import names

from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxLost
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.shelves import Shelf
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import CHUNK

TENANT = "acme"
pytestmark = pytest.mark.promise("E3")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where to restore to: an empty folder of its own."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def large(tree: Path) -> Path:
    """The workspace, with a file of several objects whose parts are not alike."""
    (tree / "large").write_bytes(b"".join(bytes([number]) * CHUNK for number in range(3)) + b"end")
    return tree


def kept_files(tmp_path: Path) -> list[Path]:
    """All objects and heads of the store."""
    home = tmp_path / "store"
    found = [home / TENANT / key for key in kept_keys(LocalObjects(home), TENANT)]
    assert len(found) >= 7
    return found


async def fails(snapshots: Snapshots, snapshot_id: str, place: Path) -> str:
    """The words with which a restore fails; it leaves nothing."""
    with pytest.raises(SandboxLost) as caught:
        await snapshots.restore(snapshot_id, TENANT, place / "tree")
    assert names(place) == []
    assert snapshot_id in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 1.0])
async def test_one_bit_of_any_object_is_found(
    where: float, snapshots: Snapshots, large: Path, tmp_path: Path, place: Path
) -> None:
    taken = await snapshots.take(large, TENANT)
    for path in kept_files(tmp_path):
        good = path.read_bytes()
        at = min(int(len(good) * where), len(good) - 1)
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        assert "damaged" in await fails(snapshots, taken.snapshot_id, place)
        path.write_bytes(good)
    await snapshots.restore(taken.snapshot_id, TENANT, place / "tree")


async def test_what_is_missing_or_cut_is_found(snapshots: Snapshots, large: Path, tmp_path: Path, place: Path) -> None:
    taken = await snapshots.take(large, TENANT)
    for path in kept_files(tmp_path):
        good = path.read_bytes()
        for bad in (b"", good[:-1], good + b"x", good[: len(good) // 2]):
            path.write_bytes(bad)
            assert "damaged" in await fails(snapshots, taken.snapshot_id, place)
        path.unlink()
        words = await fails(snapshots, taken.snapshot_id, place)
        assert ("deleted" if path.parent.name == "trees" else "an object of it is missing") in words
        path.write_bytes(good)


async def test_the_file_that_is_damaged_is_named(
    snapshots: Snapshots, large: Path, tmp_path: Path, place: Path, shelf: Shelf
) -> None:
    taken = await snapshots.take(large, TENANT)
    entry = (await snapshots.tree(taken.snapshot_id, TENANT)).at("src/main.py")
    assert entry is not None
    (tmp_path / "store" / TENANT / shelf.key(entry.sha256)).unlink()
    assert "'src/main.py'" in await fails(snapshots, taken.snapshot_id, place)


async def test_objects_that_were_swapped_are_found(
    snapshots: Snapshots, large: Path, tmp_path: Path, place: Path
) -> None:
    """Both open with the tenant's key; neither has the other's hash."""
    taken = await snapshots.take(large, TENANT)
    paths = kept_files(tmp_path)
    for one, other in pairwise(paths):
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        assert "damaged" in await fails(snapshots, taken.snapshot_id, place)
        one.write_bytes(first)
        other.write_bytes(second)


async def test_a_snapshot_kept_under_another_id_is_not_taken_for_it(
    snapshots: Snapshots, tree: Path, tmp_path: Path, place: Path, shelf: Shelf
) -> None:
    first = await snapshots.take(tree, TENANT)
    (tree / "README").write_text("another")
    second = await snapshots.take(tree, TENANT)
    home = tmp_path / "store" / TENANT
    shutil.copy(home / shelf.head_key(second.snapshot_id), home / shelf.head_key(first.snapshot_id))
    assert "damaged" in await fails(snapshots, first.snapshot_id, place)


async def test_a_lost_object_is_kept_again_by_the_next_snapshot(
    snapshots: Snapshots, large: Path, tmp_path: Path, place: Path, shelf: Shelf
) -> None:
    taken = await snapshots.take(large, TENANT)
    tree = await snapshots.tree(taken.snapshot_id, TENANT)
    chunks = [chunk for entry in tree.entries for chunk in entry.chunks]
    for chunk in chunks:
        (tmp_path / "store" / TENANT / shelf.key(chunk)).unlink()
    again = await snapshots.take(large, TENANT)
    assert again.snapshot_id == taken.snapshot_id
    assert again.new_bytes > 0
    await snapshots.restore(taken.snapshot_id, TENANT, place / "tree")


async def test_content_is_erased_with_the_key_of_its_tenant(
    snapshots: Snapshots, keys: FolderCiphers, tree: Path, tmp_path: Path, place: Path
) -> None:
    taken = await snapshots.take(tree, TENANT)
    keys.vault.destroy(TENANT)
    assert "erased" in await fails(snapshots, taken.snapshot_id, place)
    assert not await snapshots.exists(taken.snapshot_id, TENANT)
    await snapshots.erase(TENANT)
    assert not (tmp_path / "store" / TENANT).exists()
    assert "erased" in await fails(snapshots, taken.snapshot_id, place)


async def test_content_is_erased_with_its_folder(snapshots: Snapshots, tree: Path, place: Path) -> None:
    taken = await snapshots.take(tree, TENANT)
    await snapshots.erase(TENANT)
    assert "erased" in await fails(snapshots, taken.snapshot_id, place)
    again = await snapshots.take(tree, TENANT)
    assert again.snapshot_id == taken.snapshot_id
    await snapshots.restore(taken.snapshot_id, TENANT, place / "tree")


async def test_an_id_that_is_none_is_not_looked_for(snapshots: Snapshots, place: Path) -> None:
    for bad in ("", "s1-", "../../etc/passwd", "s1-" + "A" * 64, "s1-" + "a" * 63, "s2-" + "a" * 64):
        with pytest.raises(InvalidInput, match="no snapshot id"):
            await snapshots.restore(bad, TENANT, place / "tree")
    assert "is not in the store" in await fails(snapshots, "s1-" + "a" * 64, place)


async def test_another_tenants_snapshot_is_not_there(snapshots: Snapshots, tree: Path, place: Path) -> None:
    taken = await snapshots.take(tree, "globex")
    assert "is not in the store" in await fails(snapshots, taken.snapshot_id, place)


async def test_equal_content_of_two_tenants_has_no_name_and_no_byte_in_common(
    snapshots: Snapshots, tree: Path, tmp_path: Path
) -> None:
    for tenant in (TENANT, "globex"):
        await snapshots.take(tree, tenant)
    addresses, contents = [], []
    for tenant in (TENANT, "globex"):
        files = [path for path in (tmp_path / "store" / tenant).rglob("*") if path.is_file() and path.stat().st_size]
        addresses.append({path.name for path in files})
        contents.append({path.read_bytes() for path in files})
        assert len(addresses[-1]) == len(contents[-1]) == 4
    assert not addresses[0] & addresses[1]
    assert not contents[0] & contents[1]
    assert all(b"main" not in content for group in contents for content in group)


async def test_a_folder_that_exists_is_left_alone(snapshots: Snapshots, tree: Path, objects: LocalObjects) -> None:
    taken = await snapshots.take(tree, TENANT)
    before = names(tree)
    for into in (tree, tree / "README"):
        with pytest.raises(Exception, match="exists") as caught:
            await snapshots.restore(taken.snapshot_id, TENANT, into)
        assert getattr(caught.value, "code", "") == "exists"
    assert names(tree) == before
