"""File systems to measure on, each fresh: ext4, xfs and btrfs on loop mounts made for the run, where it is root.

What is used for long finds room for new files slowly, the more so the fuller it is, whoever asks: figures of two ways
that are taken one after the other on such a disk say more of the disk than of the ways.
"""

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
_OPTIONS = {"ext4": [], "xfs": ["-m", "reflink=1"], "btrfs": []}
PLAIN = "ext4"
"""What stands for any file system: where it cannot be made anew, it is that of the folder."""


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Path | None]:
    """A folder on a file system of this kind; None, and a word why, where it cannot be had."""
    image, at = folder / f"{kind}.img", folder / kind
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        print(f"without {kind} made anew: it needs root and mkfs.{kind}", file=sys.stderr)
        if kind == PLAIN:
            at.mkdir()
        yield at if kind == PLAIN else None
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
