"""The layout holds together: links, guards, the lock, and the wheel and source archive built from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_every_room_is_linked_and_packaged(root: Path, rooms: list[str], project: dict[str, Any]) -> None:
    links = {path.name: os.readlink(path) for path in (root / "src/retinue").iterdir() if path.is_symlink()}
    assert links == {room: f"../../{room}" for room in rooms}
    targets = project["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["sources"] == {
        "src/retinue": "retinue",
        **{room: f"retinue/{room}" for room in rooms},
    }
    for target in ("wheel", "sdist"):
        assert {*rooms, "src/retinue/__init__.py", "src/retinue/py.typed"} <= {*targets[target]["only-include"]}


def test_every_package_at_the_root_is_a_room(root: Path, rooms: list[str]) -> None:
    packages = {path.parent.name for path in root.glob("*/__init__.py")} - {"tests"}
    assert packages == set(rooms)


def test_a_room_refuses_to_be_a_package_of_its_own(root: Path, rooms: list[str]) -> None:
    attempts = "\n".join(f"try:\n    import {room}\nexcept ImportError as error:\n    print(error)" for room in rooms)
    answer = subprocess.run(
        [sys.executable, "-B", "-c", attempts], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    for room, line in zip(rooms, answer.stdout.splitlines(), strict=True):
        assert line == f"{room!r} is a room of retinue, not a package: import 'retinue.{room}'"


def test_the_lock_holds_every_dependency_with_hashes(root: Path, project: dict[str, Any]) -> None:
    blocks = re.split(r"\n(?=\S)", (root / "requirements.lock").read_text("utf-8").strip())
    pins = {}
    for block in blocks:
        pin = Requirement(block.partition(" \\")[0])
        assert "--hash=sha256:" in block, f"{pin} has no hash: run `make lock`"
        pins[canonicalize_name(pin.name)] = pin
    extras = project["project"]["optional-dependencies"].values()
    for text in [*project["project"]["dependencies"], *(text for extra in extras for text in extra)]:
        need = Requirement(text)
        pin = pins[canonicalize_name(need.name)]
        version = next(iter(pin.specifier)).version
        assert need.specifier.contains(version, prereleases=True), f"{text} is locked at {version}: run `make lock`"


@pytest.fixture(scope="module")
def archives(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("archives")
    build(root, folder, "sdist", "wheel")
    return folder


def test_the_wheel_holds_every_file_of_every_room(root: Path, rooms: list[str], archives: Path) -> None:
    expected = {"retinue/__init__.py", "retinue/py.typed"} | {
        f"retinue/{path.relative_to(root).as_posix()}"
        for room in rooms
        for path in (root / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in contents(archives) if ".dist-info/" not in name}
    assert packed == expected


def test_the_source_archive_builds_the_same_wheel(archives: Path, tmp_path: Path) -> None:
    with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
        # Debian's 3.11.2 knows no filter yet, 3.12 warns when none is named.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    source = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert (source / "cluster.yaml").is_file()
    build(source, tmp_path / "again", "wheel")
    assert contents(tmp_path / "again") == contents(archives)


def test_the_wheel_names_its_command_and_licence(archives: Path, project: dict[str, Any]) -> None:
    packed = contents(archives)
    commands = next(text for name, text in packed.items() if name.endswith(".dist-info/entry_points.txt"))
    assert b"retinue = retinue.ingress.cli:console" in commands
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)
    assert any(name.startswith(f"retinue-{project['project']['version']}.dist-info/") for name in packed)


def build(source: Path, into: Path, *targets: str) -> None:
    """Build the targets with the installed hatchling: no isolation, no network."""
    wanted = [word for target in targets for word in ("-t", target)]
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(into), *wanted],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert built.returncode == 0, built.stdout + built.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Name to bytes of every file of the one wheel in the folder."""
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}
