"""Folders are entered name by name and removed whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinue.sandbox.folders import Trail, opened, remove_tree

pytestmark = pytest.mark.promise("E3")


def test_a_trail_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    with Trail(tmp_path) as trail:
        for path in ("a/b", "a", "", "a/b", "a"):
            assert os.path.samestat(os.fstat(trail.at(path)), (tmp_path / path).stat())
        with pytest.raises(NotADirectoryError):
            trail.at("a/link")
        assert os.path.samestat(os.fstat(trail.at("a/b")), (tmp_path / "a/b").stat())
    (tmp_path / "root").symlink_to(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        Trail(tmp_path / "root")


def test_a_trail_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    with Trail(tmp_path) as trail:
        trail.at("a/b")
        with pytest.raises(FileNotFoundError):
            trail.at("a/c/d")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_is_removed_however_deep_and_whatever_its_modes(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    fds = [os.open(root, os.O_RDONLY)]
    for number in range(3_000):
        os.mkdir("d" * 20, dir_fd=fds[-1])
        fds.append(os.open("d" * 20, os.O_RDONLY, dir_fd=fds[-1]))
        if number % 500 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1]))
        os.close(fds.pop(0)) if len(fds) > 2 else None
    for fd in fds:
        os.close(fd)
    for name in ("forbidden", "forbidden/inner"):
        (root / name).mkdir()
        (root / name / "file").touch()
    (root / "forbidden" / "inner").chmod(0)
    (root / "forbidden").chmod(0)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (root / "link").symlink_to(outside)
    os.mkfifo(root / "pipe")
    remove_tree(root)
    assert not root.exists()
    assert (outside / "kept").exists()
    remove_tree(root)


def test_a_symlink_is_not_removed_as_a_tree(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "link")
    with pytest.raises(NotADirectoryError), opened(tmp_path / "link"):
        pytest.fail("it was opened")
    assert (tmp_path / "target").is_dir()
