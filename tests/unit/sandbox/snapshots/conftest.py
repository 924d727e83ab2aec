"""Stores of snapshots in a folder, sealed with real keys, and folders that are compared name by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.shelves import Shelf, Writer
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import Tree

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
    """A workspace of three files in a folder of its own, as a node has it."""
    folder = tmp_path / "work" / "tree"
    (folder / "src").mkdir(parents=True)
    (folder / "README").write_text("read me\n")
    (folder / "src" / "main.py").write_text("print('main')\n" * 100)
    (folder / "src" / "empty").touch()
    return folder


@pytest.fixture
def shelf(snapshots: Snapshots, keys: FolderCiphers) -> Shelf:
    """The objects of the tenant of these tests."""
    keys.of(TENANT, make=True)
    found = snapshots.shelf(TENANT)
    assert found is not None
    return found


@pytest.fixture
def keep(objects: LocalObjects, shelf: Shelf) -> Callable[[Tree], str]:
    """Puts a tree into the store as it is, which no scan has seen, and gives its id."""

    def keep(tree: Tree) -> str:
        with objects.writing(TENANT) as batch:
            Writer(shelf, batch, Quota(), 0).finish(tree)
        return tree.snapshot_id

    return keep
