"""Stores of snapshots in a folder, sealed with real keys, and folders that are compared name by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers

from retinue.sandbox.objects import LocalObjects
from retinue.sandbox.snapshots import Snapshots

TENANT = "acme"


@pytest.fixture
def keys(tmp_path: Path) -> FolderCiphers:
    return FolderCiphers(tmp_path / "keys")


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "store")


@pytest.fixture
def snapshots(objects: LocalObjects, keys: FolderCiphers) -> Snapshots:
    return Snapshots(objects, keys)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty workspace, in a folder of its own as a node has it."""
    folder = tmp_path / "work" / "tree"
    folder.mkdir(parents=True)
    return folder
