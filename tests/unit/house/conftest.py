"""What every house test looks at: the checkout, its rooms and the syntax trees of its modules.

The list of rooms is read from pyproject.toml, where packaging needs it anyway; test_layout.py compares it
with the folders. Knows nothing of what the rooms do.
"""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

FACE = Path("src/retinue/__init__.py")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the checkout."""
    return Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    """pyproject.toml as parsed."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="session")
def rooms(project: dict[str, Any]) -> list[str]:
    """Names of the rooms, as the wheel lists them."""
    sources = project["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    return sorted(folder for folder in sources if folder != "src/retinue")


@pytest.fixture(scope="session")
def product(root: Path, rooms: list[str]) -> dict[Path, ast.Module]:
    """Path (from the root) to syntax tree, for every module of the rooms and the public face."""
    files = [FACE, *python_files(root, rooms)]
    return {path: ast.parse((root / path).read_bytes()) for path in files}


@pytest.fixture(scope="session")
def written(root: Path, product: dict[Path, ast.Module]) -> dict[Path, ast.Module]:
    """The product and what stands beside it for readers: examples and benchmarks."""
    beside = python_files(root, ["examples", "benchmarks"])
    return product | {path: ast.parse((root / path).read_bytes()) for path in beside}


@pytest.fixture(scope="session")
def tests(root: Path) -> dict[Path, ast.Module]:
    """Path (from the root) to syntax tree, for every file under tests/."""
    return {path: ast.parse((root / path).read_bytes()) for path in python_files(root, ["tests"])}


@pytest.fixture(scope="session")
def texts(root: Path) -> dict[str, str]:
    """Path to content of every UTF-8 file that git keeps or would keep; all of them where git is absent."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        timeout=60,
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.decode().split("\0") if name]
    else:
        names = [str(path.relative_to(root)) for path in root.rglob("*") if not hidden(path.relative_to(root))]
    files = {name: root / name for name in names}
    return {
        name: text
        for name, path in files.items()
        if path.is_file() and not path.is_symlink() and (text := read_text(path)) is not None
    }


def python_files(root: Path, folders: list[str]) -> list[Path]:
    """Python files under the folders, in order, relative to the root."""
    found = (path.relative_to(root) for folder in folders for path in (root / folder).rglob("*.py"))
    return sorted(path for path in found if not hidden(path))


def hidden(path: Path) -> bool:
    """Whether a part of the path is a cache or starts with a dot."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def read_text(path: Path) -> str | None:
    """The content of a text file, None for a binary one."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
