"""A run in a sandbox whose process is killed: continued on its node, or on another one that has nothing but the store
and the place of snapshots. Its workspace is what its journal says, no older and no newer."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from tests.doubles.places import Places
from tests.e2e.conftest import Project, environment

from retinue.sandbox.backends.bubblewrap import find_program

pytestmark = [
    pytest.mark.promise("E2", "E3"),
    pytest.mark.rule("R5"),
    pytest.mark.skipif(find_program() is None, reason="there is no bwrap on this machine"),
]

WORK = '''
from typing import Any

from retinue import Context, workflow


@workflow
async def work(ctx: Context, replayable: bool, state: Any = None) -> list[str]:
    """Three notes: one before a checkpoint, one after it, and one of a program that is killed with its run."""
    box = await ctx.sandbox("desk", name="desk")
    if state is None:
        await box.write("notes.txt", "first\\n")
        await ctx.checkpoint("noted", "noted")
    await box.shell("echo second >> notes.txt", replayable=replayable)
    await box.shell("echo third >> notes.txt; test -e $GATE/open || exec sleep 60", timeout=90)
    return str(await box.read("notes.txt")).split()
'''
DESK = "mounts: {{GATE: {gate}}}\n"
SETTINGS = "modules: [work]\nsandbox: {{snapshots: 'file://{shared}'}}\n"
PATIENCE = 60


def node(folder: Path, shared: Path, store: str) -> Project:
    """The project on a node with a data folder of its own."""
    made = Project(folder, environment() | {"RETINUE_STORE": store})
    made.write("retinue.yaml", SETTINGS.format(shared=shared / "snapshots"))
    made.write("work.py", WORK)
    made.write("sandbox/desk.yaml", DESK.format(gate=shared / "gate"))
    return made


def until_noted(project: Project, process: subprocess.Popen[str], note: str) -> None:
    """Wait until a workspace of this node has the note."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        for notes in project.folder.glob(".retinue/sandboxes/work/*/*/tree/notes.txt"):
            if note in notes.read_text():
                return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"nobody noted {note!r}: {process.communicate()}")


@pytest.mark.parametrize(("where", "replayable"), [("here", True), ("elsewhere", True), ("elsewhere", False)])
def test_a_killed_run_finds_its_workspace_as_its_journal_says(
    places: Places, tmp_path: Path, where: str, replayable: bool
) -> None:
    (tmp_path / "gate").mkdir()
    with places.new("postgres") as place:
        assert place.url is not None
        here = node(tmp_path / "here", tmp_path, place.url)
        there = here if where == "here" else node(tmp_path / "there", tmp_path, place.url)
        given = ("--input", str(replayable).lower(), "--local", "--json")
        process = here.start("run", "work", *given, "--key", "the run")
        until_noted(here, process, "third")
        process.kill()
        process.communicate()
        (tmp_path / "gate" / "open").touch()
        done = there.run("run", "work", *given, "--key", "the run", code=0).json
        assert done["output"] == ["first", "second", "third"]
        moves = there.run("logs", done["run_id"], "--json", code=0).out
        assert "lost_exec" in moves
