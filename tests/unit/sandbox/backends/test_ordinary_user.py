"""The tests of this folder once more, as a user who is nobody in particular: as most hosts run."""

from __future__ import annotations

import os
import shutil
import site
import sys
import tempfile
from pathlib import Path

import pytest

from retinue.sandbox.launching import Launcher, Start
from retinue.sandbox.roots import covers
from retinue.sandbox.streams import Excerpt

pytestmark = pytest.mark.promise("E4")

USER = 64002
CHECKOUT = str(Path(__file__).parents[4])
PACKAGES = site.getsitepackages()[0]
PYTHON = f"{sys.base_prefix}/bin/python3"
PYTEST = ("-m", "pytest", "-q", "-x", "-rs", "-p", "no:cacheprovider")


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already")
@pytest.mark.parametrize(
    "module",
    [
        "test_confinement",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("test_execs", "test_limits", "test_launching")),
    ],
)
async def test_an_ordinary_user_has_the_same(module: str) -> None:
    """Python and the checkout may be below a home folder, so they are shown to him elsewhere."""
    words = [*PYTEST, f"tests/unit/sandbox/backends/{module}.py"]
    mine = tempfile.mkdtemp(prefix="ordinary-")
    os.chown(mine, USER, USER)
    streams = Excerpt(20_000), Excerpt(20_000)
    launcher = Launcher()
    try:
        running = launcher.start(
            Start(
                (PYTHON, *words, "--basetemp", f"{mine}/pytest"),
                {
                    "PYTHONPATH": f"{CHECKOUT}/src:{PACKAGES}",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PATH": "/usr/bin:/bin",
                    "TMPDIR": mine,
                },
                cwd=CHECKOUT,
                uid=USER,
                covers=covers([sys.base_prefix, PACKAGES, CHECKOUT], USER),
            ),
            streams,
        )
        status = await running.wait(110)
    finally:
        launcher.close()
        shutil.rmtree(mine, ignore_errors=True)
    assert (status, running.stopped) == (0, ""), streams[0].text() + streams[1].text()
    assert " passed" in streams[0].text()
