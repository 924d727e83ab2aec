"""A program of this checkout run by an ordinary user of the machine, as most hosts run. Needs to be root."""

from __future__ import annotations

import os
import shutil
import site
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retinue.sandbox.backends.launching import Launcher, Start
from retinue.sandbox.backends.roots import covers
from retinue.sandbox.backends.streams import Excerpt

USER = 64002
"""The ordinary user."""

CHECKOUT = str(Path(__file__).parents[2])
_PACKAGES = site.getsitepackages()[0]


@dataclass(frozen=True)
class Ran:
    """How it ended, why it was stopped, and what it wrote."""

    status: int | None
    stopped: str
    out: str
    err: str


async def run_as_stranger(words: Callable[[str], list[str]], seconds: float, most: int = 20_000) -> Ran:
    """Run Python with the words for a folder of his own, and keep so many bytes of what it writes.

    Python and the checkout may be below a home folder, so they are shown to him elsewhere.
    """
    mine = tempfile.mkdtemp(prefix="stranger-")
    os.chown(mine, USER, USER)
    streams = Excerpt(most), Excerpt(20_000)
    launcher = Launcher()
    try:
        running = launcher.start(
            Start(
                (f"{sys.base_prefix}/bin/python3", *words(mine)),
                {
                    "PYTHONPATH": f"{CHECKOUT}/src:{CHECKOUT}:{_PACKAGES}",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PATH": "/usr/bin:/bin",
                    "TMPDIR": mine,
                },
                cwd=CHECKOUT,
                uid=USER,
                covers=covers([sys.base_prefix, _PACKAGES, CHECKOUT], USER),
            ),
            streams,
        )
        status = await running.wait(seconds)
    finally:
        launcher.close()
        shutil.rmtree(mine, ignore_errors=True)
    return Ran(status, running.stopped, streams[0].text(), streams[1].text())
