"""Projects are loaded from their own folders, also when two of them live in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.host.composition import load_project
from retinue.host.settings import load_settings
from retinue.runs.errors import ConfigError


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


@pytest.mark.promise("B5", "K1")
def test_a_setting_for_a_pool_that_nothing_runs_in_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    folder = project(tmp_path / "first", "ann")
    (folder / "agents.py").write_text(
        "from retinue import Resources, agent\n\nit = agent('ann', 'Answer.', needs=Resources(gpus=1))\n"
    )
    for known in ("gpu1", "workers", "'*'"):
        (folder / "retinue.yaml").write_text(f"modules: [agents]\nactors: {{pools: {{{known}: {{max: 3}}}}}}\n")
        assert next(iter(load_project(load_settings(folder)).registry.pools)).startswith("gpu1-")
    (folder / "retinue.yaml").write_text("modules: [agents]\nactors: {pools: {gpu2: {max: 3}}}\n")
    with pytest.raises(ConfigError, match=r"actors\.pools.*'gpu2'.*did you mean gpu1"):
        load_project(load_settings(folder))
