"""Real backends for the tests of this folder, each with a workspace that belongs to its user.

Where the tests run as root a sandbox gets a user of its own, as it does in a host that is root; test_ordinary_user.py
runs the whole folder once more as somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.sandbox.backends.doors import UID, Door

from retinue.sandbox.backends.bubblewrap import Bubblewrap, find_program
from retinue.sandbox.backends.cgroups import Cgroups, find
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.landlock import Landlock, version
from retinue.sandbox.backends.launching import Launcher
from retinue.sandbox.backends.port import Backend
from retinue.sandbox.backends.unconfined import Unconfined
from retinue.sandbox.profiles import STRICT, UNCONFINED

BACKENDS: dict[str, Callable[[Runner], Backend]] = {
    "bubblewrap": lambda runner: Bubblewrap(runner, UID),
    "landlock": lambda runner: Landlock(runner, UID),
    "unconfined": Unconfined,
}


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(Launcher(), find())
    yield made
    made.close()


@pytest.fixture
def plain_runner() -> Iterator[Runner]:
    """One that has no control groups."""
    made = Runner(Launcher(), Cgroups([]))
    yield made
    made.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir(mode=0o700)
    if UID is not None:
        os.chown(made, UID, UID)
    return made


def _door(name: str, runner: Runner, workspace: Path) -> Door:
    if name == "bubblewrap" and find_program() is None:
        pytest.skip("bwrap is not installed")
    if name == "landlock" and not version():
        pytest.skip("this kernel has no Landlock")
    return Door(BACKENDS[name](runner), workspace, UNCONFINED if name == "unconfined" else STRICT)


@pytest.fixture(params=BACKENDS)
def door(request: pytest.FixtureRequest, runner: Runner, workspace: Path) -> Door:
    """Each of the three backends."""
    return _door(request.param, runner, workspace)


@pytest.fixture(params=["bubblewrap", "landlock"])
def confined(request: pytest.FixtureRequest, runner: Runner, workspace: Path) -> Door:
    """Each backend that confines."""
    return _door(request.param, runner, workspace)


@pytest.fixture(params=["bubblewrap", "landlock"])
def without_groups(request: pytest.FixtureRequest, plain_runner: Runner, workspace: Path) -> Door:
    """Each backend that confines, where no control group can be had."""
    return _door(request.param, plain_runner, workspace)


@pytest.fixture
def bubblewrap(runner: Runner, workspace: Path) -> Door:
    return _door("bubblewrap", runner, workspace)


@pytest.fixture
def landlock(runner: Runner, workspace: Path) -> Door:
    return _door("landlock", runner, workspace)


@pytest.fixture
def unconfined(runner: Runner, workspace: Path) -> Door:
    return _door("unconfined", runner, workspace)
