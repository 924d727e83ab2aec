"""Data folders on real file systems: that of the tests, and xfs and btrfs on loop mounts where the tests are root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MIB = 1024 * 1024
_SIZES = {"xfs": 320, "btrfs": 120}
"""MiB: the least that each is made with."""


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """A new file system of this kind; skips where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip(f"{kind}: mounting needs root")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"{kind}: no mkfs.{kind}")
    image, at = folder / f"{kind}.img", folder / kind
    with image.open("wb") as file:
        file.truncate(_SIZES[kind] * _MIB)
    at.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{kind}: {done.stderr.strip()}")
    try:
        at.chmod(0o711)
        yield at
    finally:
        subprocess.run(["umount", "--recursive", str(at)], check=True)
        image.unlink()


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted("xfs", tmp_path_factory.mktemp("xfs-disk")) as at:
        yield at


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted("btrfs", tmp_path_factory.mktemp("btrfs-disk")) as at:
        yield at
