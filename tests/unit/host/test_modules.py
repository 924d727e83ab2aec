"""A project's modules come from its own folder, whatever this process has imported for others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.host.modules import load_module
from retinue.runs.errors import ConfigError


@pytest.fixture(autouse=True)
def path() -> Iterator[list[str]]:
    before = list(sys.path)
    yield before
    sys.path[:] = before


def project(folder: Path, **modules: str) -> Path:
    """A folder with these modules."""
    folder.mkdir()
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_what_a_project_lacks_is_not_found_in_the_folder_of_another(tmp_path: Path) -> None:
    one = project(tmp_path / "one", ours_flows="import ours_tools\n", ours_tools="WHOSE = 'one'\n")
    two = project(tmp_path / "two", theirs_flows="import ours_tools\n")
    first = load_module(one, "ours_flows")
    with pytest.raises(ConfigError, match="'ours_tools'"):
        load_module(two, "theirs_flows")
    with pytest.raises(ConfigError, match="there is no module 'ours_flows'"):
        load_module(two, "ours_flows")
    assert sys.path[0] == str(two) and str(one) not in sys.path
    assert first.ours_tools.WHOSE == "one", "what the first holds goes on"


def test_modules_of_one_project_stay_when_the_next_of_it_is_loaded(tmp_path: Path) -> None:
    one = project(tmp_path / "one", ours_flows="import ours_tools\n", ours_tools="", ours_more="import ours_tools\n")
    assert load_module(one, "ours_flows").ours_tools is load_module(one, "ours_more").ours_tools
    assert load_module(one, "ours_flows") is load_module(one, "ours_flows")
    assert sys.path.count(str(one)) == 1 and sys.path[0] == str(one)


def test_a_folder_that_the_process_was_started_with_stays(tmp_path: Path) -> None:
    one = project(tmp_path / "one", ours_started="")
    sys.path.append(str(one))
    load_module(one, "ours_started")
    load_module(project(tmp_path / "two", ours_next=""), "ours_next")
    assert str(one) in sys.path and "ours_started" in sys.modules
