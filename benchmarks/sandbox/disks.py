"""File systems to measure on: that of a folder, and xfs and btrfs on loop mounts made for the run, where it is root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinue.sandbox.folders import opened, sync_whole

_BYTES = 6 * 1024**3
_OPTIONS = {"xfs": ["-m", "reflink=1"], "btrfs": []}


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Path | None]:
    """A folder on a file system of this kind; None, and a word why, where it cannot be had."""
    image, at = folder / f"{kind}.img", folder / kind
    if kind == "own":
        at.mkdir()
        yield at
        return
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        print(f"without {kind}: it needs root and mkfs.{kind}", file=sys.stderr)
        yield None
        return
    with image.open("wb") as file:
        file.truncate(_BYTES)
    at.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", *_OPTIONS[kind], str(image)], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"without {kind}: {done.stderr.strip()}", file=sys.stderr)
        image.unlink()
        yield None
        return
    try:
        yield at
    finally:
        subprocess.run(["umount", "--recursive", str(at)], check=True)
        image.unlink()


def kind_of(folder: Path) -> str:
    """The name of the file system that a folder is on."""
    found = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True)
    return found.stdout.strip().replace("ext2/ext3", "ext4")


def sync(folder: Path) -> None:
    """Wait until all that was written to the file system of a folder is on its disk."""
    with opened(folder) as fd:
        sync_whole(fd)


def used(folder: Path) -> int:
    """Bytes that the files below a folder take, each inode once, but for what is mounted there."""
    found = subprocess.run(["du", "-x", "-s", "-B1", str(folder)], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def taken(folder: Path) -> int:
    """Bytes that are in use on the whole disk of a folder."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
