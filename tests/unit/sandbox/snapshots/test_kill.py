"""A process that is killed while it takes or restores a snapshot leaves none that is not whole."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers
from tests.doubles.trees import look, names
from tests.doubles.victims import Victims

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.scanning import scan
from retinue.sandbox.snapshots.store import Snapshots

TENANT = "acme"
pytestmark = pytest.mark.promise("E2", "E3")
TIMES = [10, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as made:
        yield made


@pytest.fixture
def order(tmp_path: Path, tree: Path) -> dict[str, str]:
    """An order to take snapshots of the workspace until killed."""
    (tree / "folder").mkdir()
    places = {"store": tmp_path / "store", "keys": tmp_path / "keys", "folder": tree}
    return {"do": "take", "tenant": TENANT} | {name: str(path) for name, path in places.items()}


@pytest.mark.parametrize("times", TIMES)
def test_a_snapshot_that_is_listed_restores_whole(
    times: int, order: dict[str, str], victims: Victims, snapshots: Snapshots, tmp_path: Path
) -> None:
    chance = random.Random(times)
    known: set[str] = set()
    for number in range(times):
        assert victims.run(order, chance.uniform(0.0, 0.4)), "it took a thousand snapshots before it was killed"
        listed = {kept.snapshot_id for kept in asyncio.run(snapshots.listed(TENANT))}
        assert known <= listed
        for snapshot_id in sorted(listed - known)[:: max(1, len(listed - known) // 4)]:
            into = tmp_path / f"back-{number}"
            asyncio.run(snapshots.restore(snapshot_id, TENANT, into))
            assert scan(into).snapshot_id == snapshot_id
            os.rename(into, tmp_path / f"{snapshot_id}-{number}")
        known = listed
    assert len(known) > times / 2
    taken = asyncio.run(snapshots.take(Path(order["folder"]), TENANT))
    assert names(tmp_path / "store" / TENANT / "tmp") == []
    asyncio.run(snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "end"))
    assert look(tmp_path / "end") == look(Path(order["folder"]))
    for snapshot_id in known:
        assert asyncio.run(snapshots.tree(snapshot_id, TENANT)).snapshot_id == snapshot_id


@pytest.mark.parametrize("times", TIMES)
def test_a_folder_that_is_there_is_whole(
    times: int, order: dict[str, str], victims: Victims, tree: Path, tmp_path: Path
) -> None:
    snapshots = Snapshots(LocalObjects(tmp_path / "store"), FolderCiphers(tmp_path / "keys"))
    for number in range(400):
        (tree / "folder" / str(number)).write_bytes(os.urandom(2_000))
    taken = asyncio.run(snapshots.take(tree, TENANT))
    (tmp_path / "made").mkdir()
    order |= {"do": "restore", "snapshot_id": taken.snapshot_id, "folder": str(tmp_path / "first")}
    began = time.monotonic()
    assert not victims.run(order, 60)
    usual = time.monotonic() - began
    chance = random.Random(times)
    killed = 0
    for number in range(times):
        into = tmp_path / "made" / f"tree-{number % 3}"
        order |= {"folder": str(into)}
        cut = victims.run(order, chance.uniform(0.0, usual))
        killed += cut
        if into.exists():
            assert scan(into).snapshot_id == taken.snapshot_id
            into.rename(tmp_path / f"whole-{number}")
        assert cut or not into.exists()
    assert killed > times / 4
    for number in range(3):
        asyncio.run(snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "made" / f"tree-{number}"))
    found = sorted(os.listdir(tmp_path / "made"))
    assert found == sorted(f"tree-{number}{end}" for number in range(3) for end in ("", ".stats"))
