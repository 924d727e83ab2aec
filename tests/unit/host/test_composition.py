"""Projects are loaded from their own folders, also when two of them live in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.host.composition import load_project
from retinue.host.settings import load_settings


def project(folder: Path, agent: str) -> Path:
    """A project whose module is named like everybody's."""
    folder.mkdir()
    (folder / "retinue.yaml").write_text("modules: [agents]\n")
    (folder / "agents.py").write_text(f"from retinue import agent\n\nit = agent({agent!r}, 'Answer.')\n")
    return folder


@pytest.mark.promise("K1")
def test_two_projects_with_modules_of_one_name_get_each_their_own(tmp_path: Path) -> None:
    first, second = project(tmp_path / "first", "ann"), project(tmp_path / "second", "bob")
    assert load_project(load_settings(first)).registry.names() == ["ann"]
    assert load_project(load_settings(second)).registry.names() == ["bob"]
    assert load_project(load_settings(first)).registry.names() == ["ann"]
