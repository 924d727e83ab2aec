"""Commits over https: fetched by their whole id, from where the manifest says and from nowhere else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.sandbox.manifests.git_server import Server, git_server
from tests.unit.sandbox.manifests.projects import Project, held, nothing_runs

from retinue.runs.errors import EffectError
from retinue.sandbox.manifests.materializing import materialize
from retinue.sandbox.manifests.previewing import preview

pytestmark = [pytest.mark.promise("E1")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def server(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with git_server(project.folder, tmp_path) as server:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "certificate.pem"))
        yield server


async def test_a_commit_is_fetched_though_no_branch_has_it(project: Project, server: Server, tmp_path: Path) -> None:
    commit = project.repository()
    project.git("repo", "-c", "user.name=Ana", "-c", "user.email=a@b", "commit", "--quiet", "--amend", "-m", "Two")
    project.manifest(f"checkouts: {{x: {{from: '{server.address}/repo/.git', commit: {commit}, keep_git: true}}}}\n")
    manifests = project.manifests()
    made = await materialize(manifests, "coder", tmp_path / "tree", nothing_runs)
    assert held(tmp_path / "tree")["x/src/main.py"] == "print('one')\n"
    assert project.git(str(tmp_path / "tree/x"), "log", "--format=%s") == "One"
    assert server.address not in "".join(held(tmp_path / "tree/x/.git").values())
    [part] = await preview(manifests.loaded("coder"), manifests.sources, remote=True)
    assert part.entries == made.entries


@pytest.mark.parametrize("path", ["/moved/repo/.git", "/none/.git"])
async def test_nobody_is_sent_elsewhere(project: Project, server: Server, tmp_path: Path, path: str) -> None:
    commit = project.repository()
    project.manifest(f"checkouts: {{x: {{from: '{server.address}{path}', commit: {commit}}}}}\n")
    with pytest.raises(EffectError, match="cannot be had from"):
        await materialize(project.manifests(), "coder", tmp_path / "tree", nothing_runs)
    assert not (tmp_path / "tree").exists()


async def test_a_server_that_nobody_vouches_for_is_not_believed(
    project: Project, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO")
    commit = project.repository()
    project.manifest(f"checkouts: {{x: {{from: '{server.address}/repo/.git', commit: {commit}}}}}\n")
    with pytest.raises(EffectError, match=r"(?i)certificate"):
        await materialize(project.manifests(), "coder", tmp_path / "tree", nothing_runs)


TALKS = r"""#!/bin/sh
head -c 60000000 /dev/zero | tr '\0' x >&2
echo ' fatal: these are the last words' >&2
exit 1
"""


async def test_what_git_or_a_server_says_is_kept_in_bounds(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = project.repository()
    project.manifest(f"checkouts: {{x: {{from: repo, commit: {commit}}}}}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(TALKS)
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    tracemalloc.start()
    try:
        with pytest.raises(EffectError, match="fatal: these are the last words"):
            await materialize(project.manifests(), "coder", tmp_path / "tree", nothing_runs)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
