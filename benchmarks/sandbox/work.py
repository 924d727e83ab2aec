"""What is measured: a tree of files, changes of it, and the ways to keep, bring back and multiply it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sandbox.disks import used
from tests.doubles.sealed import FolderCiphers

from retinue.runs.sandboxes import SandboxState
from retinue.sandbox.bases import Bases
from retinue.sandbox.contents import SnapshotContents
from retinue.sandbox.living import Living, Workplace
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.tiers import ORDER, Tiers

TENANT = "bench"
FORKS = 8
_WORDS = (b"def ", b"return ", b"self", b"import os\n", b"    ", b"value = ", b"0123456789", b"\n")


def make_tree(folder: Path, files: int, size: int) -> None:
    """So many files of `size` bytes in folders of 50, half of each such as compresses well; old enough to be believed
    unchanged by their times.
    """
    dice = random.Random(7)
    for number in range(files):
        path = folder / f"part-{number // 50:03}" / f"file-{number:05}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(dice, size))
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))


def content(dice: random.Random, size: int) -> bytes:
    """Bytes of a file."""
    text = b"".join(dice.choices(_WORDS, k=size // 8))
    return (text[: size // 2] + dice.randbytes(size))[:size]


def change(folder: Path, files: int, size: int, dice: random.Random) -> int:
    """Write some files anew; the bytes that were written."""
    paths = sorted(path for path in folder.rglob("*.py"))
    for path in dice.sample(paths, files):
        path.write_bytes(content(dice, size))
    return files * size


class Ours:
    """Retinue's snapshots on a disk, with the ways that are named, each if it works there."""

    def __init__(self, folder: Path, among: tuple[str, ...] = ORDER) -> None:
        self.folder = folder
        self.objects = LocalObjects(folder / "snapshots")
        self.snapshots = Snapshots(self.objects, FolderCiphers(folder / "keys"))
        self.bases = Bases(folder / "cache", "boot", 4 * 1024**3)
        self.tiers = Tiers(self.snapshots, self.bases, among)
        self.living = Living(folder / "work", "boot")
        self.contents = SnapshotContents(self.snapshots, TENANT, Rules(), self.tiers)
        self.last = ""

    def place(self, name: str, uid: int | None = None) -> Workplace:
        """Room for a workspace."""
        words = {"manifest": "m", "manifest_version": "v", "profile": "p", "profile_digest": "d"}
        state = SandboxState(sandbox_id=name, name=name, **words)
        return self.living.make(state, lambda _, __: uid if os.geteuid() == 0 else None)

    async def take(self, tree: Path) -> int:
        """Keep a tree; the bytes that the store grew by."""
        taken = await self.snapshots.take(tree, TENANT)
        self.last = taken.snapshot_id
        return taken.new_bytes

    async def fork(self, number: int, first: int | None) -> tuple[list[Workplace], set[str]]:
        """So many workspaces of the newest snapshot at once, for users from the first on (None: all for our own), and
        the ways in which they were made.
        """
        places = [self.place(f"fork-{each}", None if first is None else first + each) for each in range(number)]
        done = await asyncio.gather(*(self.contents.fill(place, self.last) for place in places))
        return places, {kept.tier for kept in done}


@dataclass(frozen=True)
class Copies:
    """`cp -a`: a snapshot is a folder."""

    folder: Path
    name = "cp_a"

    def take(self, tree: Path, version: str) -> None:
        """Keep a tree."""
        subprocess.run(["cp", "-a", str(tree), str(self.folder / version)], check=True)

    def restore(self, version: str, into: Path) -> None:
        """Bring one back."""
        subprocess.run(["cp", "-a", str(self.folder / version), str(into)], check=True)

    def size(self, version: str) -> int:
        """Bytes that a version takes."""
        return used(self.folder / version)

    def drop(self, version: str) -> None:
        """Remove one."""
        shutil.rmtree(self.folder / version)


@dataclass(frozen=True)
class Archives:
    """`tar` and `zstd`: a snapshot is a file."""

    folder: Path
    name = "tar_zstd"

    def take(self, tree: Path, version: str) -> None:
        """Keep a tree."""
        file = str(self.folder / f"{version}.tar.zst")
        subprocess.run(["tar", "-I", "zstd -T0 -1", "-cf", file, "-C", str(tree), "."], check=True)

    def restore(self, version: str, into: Path) -> None:
        """Bring one back."""
        into.mkdir()
        file = str(self.folder / f"{version}.tar.zst")
        subprocess.run(["tar", "-I", "zstd", "-xf", file, "-C", str(into)], check=True)

    def size(self, version: str) -> int:
        """Bytes that a version takes."""
        return used(self.folder / f"{version}.tar.zst")

    def drop(self, version: str) -> None:
        """Remove one."""
        (self.folder / f"{version}.tar.zst").unlink()
