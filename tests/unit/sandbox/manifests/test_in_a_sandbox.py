"""Manifests with real backends: packages are installed shut in, a program gets its secrets and nothing of the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.sandbox.backends.doors import UID
from tests.unit.sandbox.manifests.projects import Project
from tests.unit.sandbox.manifests.test_materializing import wheel

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends.bubblewrap import Bubblewrap, find_program
from retinue.sandbox.backends.cgroups import find
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.landlock import Landlock, version
from retinue.sandbox.backends.launching import Launcher
from retinue.sandbox.backends.port import Backend, Place, Surroundings
from retinue.sandbox.backends.roots import WORKSPACE
from retinue.sandbox.manifests.loading import environment_of
from retinue.sandbox.manifests.materializing import materialize
from retinue.sandbox.workspaces import Workspace

pytestmark = [pytest.mark.promise("E1", "E4")]

MANIFEST = """
packages: {requirements: requirements.lock, wheels: wheels}
environment: {API_KEY: "${DESK_KEY}"}
files: {main.py: "import os, some; print(some.VALUE, os.environ['API_KEY'], os.environ.get('DESK_KEY'))"}
"""


@pytest.fixture(params=["bubblewrap", "landlock"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "bubblewrap" and find_program() is None:
        pytest.skip("bwrap is not installed")
    if request.param == "landlock" and not version():
        pytest.skip("this kernel has no Landlock")
    runner = Runner(Launcher(), find())
    yield Bubblewrap(runner, UID) if request.param == "bubblewrap" else Landlock(runner, UID)
    runner.close()


async def test_a_workspace_is_made_and_used_shut_in(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_KEY", "hunter2-hunter2")
    project = Project(tmp_path / "project")
    project.put("requirements.lock", f"some==1.0 --hash=sha256:{wheel(project)}\n")
    project.manifest(MANIFEST)
    manifests, into = project.manifests(), tmp_path / "tree"
    place, profile, manifest = Place(into, UID), manifests.loaded("coder").profile, manifests.loaded("coder").manifest

    async def run(order: Exec) -> ExecResult:
        return await backend.exec(place, profile, order, Surroundings({}))

    await materialize(manifests, "coder", into, run, UID)
    inside = WORKSPACE if backend.name == "bubblewrap" else str(into)
    environment = environment_of(manifest, os.environ, {}, inside)
    done = await backend.exec(place, profile, Exec(argv=("python3", "main.py")), Surroundings(environment))
    assert (done.stdout, done.stderr) == ("7 hunter2-hunter2 None\n", "")
    space = Workspace(into, UID, seen_as=inside)
    space.edit(f"{inside}/main.py", "some.VALUE", "some.VALUE + 1")
    done = await backend.exec(place, profile, Exec(argv=("python3", "main.py")), Surroundings(environment))
    assert done.stdout.startswith("8 ")
