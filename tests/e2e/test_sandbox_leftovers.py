"""A host that is killed while forks of its run are open: what it had mounted and kept for a while goes with the next
sweep, and the run goes on in what its forks held."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Project, environment

from retinue.sandbox.backends.bubblewrap import find_program
from retinue.sandbox.mounts import mounted_below, unmount_below

pytestmark = [
    pytest.mark.promise("E3", "E4"),
    pytest.mark.rule("R5"),
    pytest.mark.skipif(find_program() is None, reason="there is no bwrap on this machine"),
]

FORKS = '''
from retinue import Context, workflow


@workflow
async def spread(ctx: Context, count: int) -> list[str]:
    """Forks of one workspace, each with a note; the last waits for a gate, with its way out open."""
    box = await ctx.sandbox("desk", name="desk")
    await box.write("notes.txt", "first")
    forks = await box.fork(count)
    for number, fork in enumerate(forks):
        await fork.write("own.txt", str(number))
    await forks[-1].shell("test -e $GATE/open || { touch waits; exec sleep 60; }", timeout=90, replayable=True)
    return [await fork.read("notes.txt") + await fork.read("own.txt") for fork in forks]
'''
DESK = "mounts: {{GATE: {gate}}}\nprofile: reaching\n"
SETTINGS = "modules: [forks]\nsandbox: {profiles: {reaching: {extends: build, hosts: ['a.example']}}}\n"
RULES = '@id("all") permit (principal, action, resource);'
PATIENCE = 60


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Project]:
    """The project; what its processes keep for a while is in the folder `tmp` beside it."""
    (tmp_path / "gate").mkdir()
    (tmp_path / "tmp").mkdir(mode=0o777)
    made = Project(tmp_path / "project", environment() | {"TMPDIR": str(tmp_path / "tmp")})
    made.write("retinue.yaml", SETTINGS)
    made.write("forks.py", FORKS)
    made.write("sandbox/desk.yaml", DESK.format(gate=tmp_path / "gate"))
    made.write("policy/rules.cedar", RULES)
    yield made
    unmount_below(tmp_path)


def test_what_a_killed_host_leaves_is_swept_and_its_run_goes_on(spread: Project, tmp_path: Path) -> None:
    node, given = (
        spread.folder / ".retinue" / "sandboxes",
        ("spread", "--input", "3", "--local", "--json", "--key", "k"),
    )
    process = spread.start("run", *given)
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until and not any(node.glob("work/*/*/tree/waits")):
        time.sleep(0.05)
    process.kill()
    said = process.communicate()
    assert any(node.glob("work/*/*/tree/waits")), said
    [left] = (tmp_path / "tmp").glob("retinue-box-*")
    mounted = mounted_below(node)
    assert len(mounted) in (0, 3) and (mounted or os.geteuid() != 0 or not any(node.glob("work/*/*/overlay")))
    spread.run("sandbox", "gc", code=0)
    assert not left.exists() and mounted_below(node) == []
    (tmp_path / "gate" / "open").touch()
    done = spread.run("run", *given, code=0).json
    assert done["output"] == ["first0", "first1", "first2"]
    assert list((tmp_path / "tmp").glob("retinue-box-*")) == [] and mounted_below(node) == []
