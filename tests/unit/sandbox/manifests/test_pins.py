"""A manifest that somebody has approved is used only as it was approved; any other counts as not reviewed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.sandbox.manifests.projects import Project, nothing_runs

from retinue.runs.errors import ConfigError
from retinue.sandbox.extending import Extension
from retinue.sandbox.manifests.loading import Manifests
from retinue.sandbox.manifests.materializing import materialize
from retinue.sandbox.manifests.pins import FILE, PinnedManifest, read_lock, write_lock

pytestmark = [pytest.mark.promise("E1")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.put("data/a", "1")
    project.manifest("revision: 2\nfiles: {a: hello}\ndirectories: {data: data}\n")
    return project


def pin(manifests: Manifests, name: str = "coder") -> None:
    loaded = manifests.examined(manifests.path(name))
    pinned = PinnedManifest(
        by="ana", at="2026-11-21T00:00:00Z", version=loaded.info.version, revision=2, facts=dict(loaded.facts)
    )
    write_lock(manifests.sources.project, name, pinned)


def test_what_was_pinned_is_reviewed_and_what_was_not_may_be_used(project: Project) -> None:
    manifests = project.manifests()
    assert manifests.info("coder").reviewed_by == ""
    pin(manifests)
    assert manifests.info("coder").reviewed_by == "ana"
    project.manifest("", "other")
    assert manifests.info("other").reviewed_by == ""
    assert list(read_lock(project.folder).manifests) == ["coder"]
    write_lock(project.folder, "coder", None)
    assert manifests.info("coder").reviewed_by == "" and (project.folder / FILE).exists()


async def test_anything_else_is_refused_and_shown(project: Project, tmp_path: Path) -> None:
    pin(project.manifests())
    project.put("data/a", "2")
    with pytest.raises(ConfigError, match=r"not as ana pinned it: directories.data \(content\): .*; look at it"):
        project.manifests().loaded("coder")
    with pytest.raises(ConfigError, match="retinue sandbox pin coder"):
        await materialize(project.manifests(), "coder", tmp_path / "tree", nothing_runs)
    assert not (tmp_path / "tree").exists()
    project.put("data/a", "1")
    assert project.manifests().info("coder").reviewed_by == "ana"
    project.manifest("revision: 2\nfiles: {a: hullo}\ndirectories: {data: data}\nenvironment: {A: b}\n")
    with pytest.raises(ConfigError, match=r'environment\.A: nothing -> "b"; files\.a\.text: "hello" -> "hullo"'):
        project.manifests().info("coder")


def test_a_profile_that_grants_more_than_was_pinned_is_a_change(project: Project) -> None:
    project.manifest("profile: web\n")
    pin(project.manifests(web=Extension(extends="build", hosts=("a.org",))))
    with pytest.raises(ConfigError, match=r"profile\.hosts"):
        project.manifests(web=Extension(extends="build", hosts=("a.org", "b.org"))).info("coder")
    with pytest.raises(ConfigError, match=r"profile\.confined: nothing -> false"):
        project.manifests(web=Extension(extends="unconfined")).info("coder")


def test_a_long_text_is_known_by_its_digest(project: Project) -> None:
    project.manifest(f"files: {{a: {'x' * 1_000}}}\n")
    pin(project.manifests())
    assert "xxxx" not in (project.folder / FILE).read_text()
    project.manifest(f"files: {{a: {'x' * 999 + 'y'}}}\n")
    with pytest.raises(ConfigError, match=r"files\.a\.text"):
        project.manifests().info("coder")


@pytest.mark.parametrize("text", ["", "{}[", '{"version": 2}', '{"manifests": {"a": {}}}', "[]"])
def test_a_lock_that_is_none_stops_everything(project: Project, text: str) -> None:
    project.put(FILE, text)
    with pytest.raises(ConfigError, match=FILE):
        project.manifests().loaded("coder")
