"""A session that is closed while its run rests: the host that has its connection lets go of it, whoever closed it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from tests.doubles.processes import Other, running
from tests.e2e.test_server_journey import HOSTING, TALKER, Project
from tests.unit.ingress import conftest as commands
from tests.unit.ingress.conftest import Command

retinue = commands.retinue
pytestmark = [pytest.mark.promise("D4", "D2"), pytest.mark.timeout(240)]

FLOW = """
from retinue import Context, workflow
from retinue.runs.errors import EffectError, RetinueError


@workflow
async def journey(ctx: Context, path: str) -> str:
    try:
        await ctx.call("talker__visit", path=path)
    except RetinueError:
        await ctx.ask("The session is closed. What now?")
    return "done"
"""


def servers_of(host: Other) -> list[psutil.Process]:
    """The servers that the host has started."""
    children = psutil.Process(host.process.pid).children()
    return [child for child in children if "stdio" in child.cmdline()]


@pytest.mark.parametrize("way", ["closed by its owner", "ended by nobody's hand"])
def test_a_closed_session_takes_its_connection_along(tmp_path: Path, retinue: Command, way: str) -> None:
    log = tmp_path / "log"
    given = {"command": [sys.executable, TALKER, "stdio"], "scope": "run", "protocol": "legacy"}
    project = Project(tmp_path / "project", retinue, given, "idempotent", FLOW)
    with running([HOSTING, str(project.folder), "journey", str(log)]) as host:
        run_id = host.wait_for("begun").split()[1]
        host.wait_for("parked")
        [server] = servers_of(host)
        if way == "closed by its owner":
            [session] = project.run("sessions", "list", "--run", run_id, "--json").json
            project.run("sessions", "close", session["session_id"], "--by", "ben")
            host.wait_for("parked")
            [waiting] = project.run("inbox", "--json").json["waits"]
            assert "What now?" in waiting["request"]["prompt"], "the run goes on"
        else:
            project.run("cancel", run_id)
            host.wait_for("ended")
        server.wait(timeout=20)
        assert host.process.poll() is None
