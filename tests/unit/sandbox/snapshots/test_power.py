"""A snapshot that was returned outlives a loss of power: a copy of the disk, as it is at that moment, holds it whole.

The disk is a file that is mounted; what the kernel has not written to it yet is not in the copy.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers
from tests.doubles.victims import Victims

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.scanning import scan
from retinue.sandbox.snapshots.store import Snapshots

TENANT = "acme"
pytestmark = [pytest.mark.promise("E2", "E3"), pytest.mark.long, pytest.mark.timeout(600)]


MADE = {"ext4": (["mkfs.ext4", "-q", "-F"], 96, "loop"), "xfs": (["mkfs.xfs", "-q"], 320, "loop,nouuid")}
"""By file system: what makes it, MiB of the disk, and how it is mounted beside its copy."""


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """A file system in a file; skips where none can be mounted."""
    at.mkdir(exist_ok=True)
    options = MADE[image.suffix[1:]][2]
    done = subprocess.run(["mount", "-o", options, str(image), str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a file: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture(params=MADE)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small disk with a journaled file system."""
    program, size, _ = MADE[request.param]
    if shutil.which(program[0]) is None or os.geteuid() != 0:
        pytest.skip(f"needs {program[0]} and root")
    path = tmp_path / f"disk.{request.param}"
    with path.open("wb") as file:
        file.truncate(size * 1024 * 1024)
    subprocess.run([*program, str(path)], check=True)
    return path


def test_what_was_returned_is_there_after_a_loss_of_power(image: Path, tree: Path, tmp_path: Path) -> None:
    (tree / "folder").mkdir()
    keys = FolderCiphers(tmp_path / "keys")
    keys.of(TENANT, make=True)
    chance = random.Random(6)
    order = {"do": "take", "tenant": TENANT, "keys": str(tmp_path / "keys"), "folder": str(tree)}
    seen: set[str] = set()
    with mounted(image, tmp_path / "mount") as place, Victims() as victims:
        for number in range(10):
            assert victims.run(order | {"store": str(place / "store")}, chance.uniform(0.1, 0.6))
            snapshots = Snapshots(LocalObjects(place / "store"), keys)
            returned = asyncio.run(snapshots.take(tree, TENANT)).snapshot_id
            copy = tmp_path / f"copy-{number}{image.suffix}"
            shutil.copyfile(image, copy)
            listed = after_the_loss(copy, keys, tmp_path, seen)
            assert seen | {returned} <= listed
            seen = listed
            copy.unlink()
            (tree / "README").write_text(str(number))
    assert len(seen) > 10


def after_the_loss(copy: Path, keys: FolderCiphers, tmp_path: Path, seen: set[str]) -> set[str]:
    """All snapshots of the copied disk; those that were not seen before are whole."""
    with mounted(copy, tmp_path / "after") as place:
        snapshots = Snapshots(LocalObjects(place / "store"), keys)
        listed = {kept.snapshot_id for kept in asyncio.run(snapshots.listed(TENANT))}
        for snapshot_id in listed - seen:
            into = tmp_path / "back" / "tree"
            into.parent.mkdir()
            asyncio.run(snapshots.restore(snapshot_id, TENANT, into))
            assert scan(into).snapshot_id == snapshot_id
            shutil.rmtree(into.parent)
        return listed
