"""Small projects with manifests, for tests."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.extending import Extension, profiles_of
from retinue.sandbox.manifests.loading import Manifests, load_manifests

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}


class Project:
    """A folder with files and a folder `sandbox` of manifests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sandbox").mkdir(parents=True)
        (folder / ".retinue").mkdir()

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def manifest(self, text: str, name: str = "coder") -> Path:
        return self.put(f"sandbox/{name}.yaml", text)

    def manifests(self, **profiles: Extension) -> Manifests:
        return load_manifests(
            self.folder / "sandbox", profiles_of(profiles), self.folder, private=(self.folder / ".retinue",)
        )

    def repository(self, path: str = "repo") -> str:
        """A git repository with attributes that lie, a hook and a submodule; the id of its commit."""
        if shutil.which("git") is None:
            pytest.skip("git is not installed")
        self.put(f"{path}/src/main.py", "print('one')\n", 0o755)
        self.put(f"{path}/.gitattributes", "secret.txt export-ignore\n*.txt export-subst eol=crlf filter=evil\n")
        self.put(f"{path}/secret.txt", "$Format:%H$\n")
        os.symlink("src/main.py", self.folder / path / "link")
        for words in (
            ["init", "--quiet"],
            ["add", "."],
            ["update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},module"],
            ["-c", "user.name=Ana", "-c", "user.email=ana@example.org", "commit", "--quiet", "-m", "One"],
        ):
            self.git(path, *words)
        return self.git(path, "rev-parse", "HEAD")

    def git(self, path: str, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.folder / path, env=GIT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


async def nothing_runs(order: Exec) -> ExecResult:
    raise AssertionError(f"{order.argv} was run")


def tar_of(*members: tuple[str, bytes | str | None], compression: str = "") -> bytes:
    """A tar file: content for a file, `-> target` for a link, `= other` for a hard link, None for a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                info.linkname = content[2:].strip()
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def held(folder: Path) -> dict[str, str]:
    """What a folder holds: by path the content of a file, `-> target` of a link, empty for a directory."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[str(path.relative_to(folder))] = f"-> {os.readlink(path)}"
        else:
            found[str(path.relative_to(folder))] = "" if path.is_dir() else path.read_bytes().decode(errors="replace")
    return found
