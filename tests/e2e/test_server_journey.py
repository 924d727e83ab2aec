"""A run that needs two approvals and one elicitation of a real server, killed between each, finished by commands only.

The server is written with the SDK. As a process of the host it dies with it; over HTTP, in the world of handshakes, it
outlives every host, and the call that it has asked about goes on in another process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.processes import ROOT, running
from tests.unit.ingress import conftest as commands
from tests.unit.ingress.conftest import Command, Said

retinue = commands.retinue
pytestmark = [pytest.mark.promise("D4", "D2", "D3", "B4", "C6"), pytest.mark.timeout(240)]

TALKER = str(ROOT / "tests/doubles/wire_servers/talker.py")
HOSTING = str(ROOT / "tests/e2e/hosting.py")
FLOW = """
from retinue import Context, workflow


@workflow
async def journey(ctx: Context, path: str) -> dict:
    if not await ctx.approve("Shall a cup be ordered?"):
        return {"ordered": None}
    said = await ctx.call("talker__order", subject="a cup", path=path)
    return {"ordered": said["result"]}
"""
POLICY = """
@id("all") permit (principal, action, resource);
@id("orders") @outcome("approval") @reason("orders need a yes")
forbid (principal, action == Action::"capability", resource == Capability::"talker__order");
"""
CHANGES = "SELECT before, status, cause FROM session_changes WHERE before IS DISTINCT FROM status ORDER BY seq, ordinal"
ASKED = "SELECT kind, status, answered_by FROM approvals ORDER BY asked_at"
ELICITED = "SELECT tool, form, action, answered_by, value.content.euros::INTEGER AS euros FROM elicitations"


class Project:
    """A project with the talker, whose tools are approved, and commands in it."""

    def __init__(self, folder: Path, retinue: Command, server: dict[str, Any], contract: str, flow: str = FLOW) -> None:
        self.folder = folder
        self._retinue = retinue
        (folder / "policy").mkdir(parents=True)
        (folder / "flows.py").write_text(flow)
        (folder / "policy" / "rules.cedar").write_text(POLICY)
        held = {"side_effect": "write", "idempotency": contract}
        talker = {**server, "tools": dict.fromkeys(("order", "visit", "enter"), held)}
        settings = {"modules": ["flows"], "principal": "ana", "capabilities": {"talker": talker}}
        (folder / "retinue.yaml").write_text(json.dumps(settings))
        self.run("capabilities", "pin", "talker", "--yes")

    def run(self, *words: str, code: int = 0) -> Said:
        """Run a command; it ends with this code."""
        said = self._retinue(*words, "--project", self.folder)
        assert said.code == code, (words, said)
        return said

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """What the trace says."""
        return list(self.run("sql", sql, "--format", "json").json)

    def killed_when_parked(self, log: Path, times: int) -> str:
        """Host the journey until it has parked so often in its life, then kill -9; the run's id."""
        with running([HOSTING, str(self.folder), "journey", str(log)]) as host:
            run_id = host.wait_for("begun").split()[1]
            for _ in range(times):
                host.wait_for("parked")
            host.kill()
        return run_id


def only_request(project: Project) -> dict[str, Any]:
    """The one thing that is asked, as the inbox shows it."""
    [waiting] = project.run("inbox", "--json").json["waits"]
    return dict(waiting["request"])


def travel(project: Project, log: Path) -> str:
    """Two approvals and an elicitation by commands, a kill before each; the run's id."""
    run_id = project.killed_when_parked(log, 1)
    first = only_request(project)
    assert (first["kind"], first["run_id"]) == ("approval", run_id) and "Shall a cup" in first["prompt"]
    project.run("approve", first["request_id"], "--by", "bob")
    project.killed_when_parked(log, 2)
    second = only_request(project)
    assert second["kind"] == "approval" and second["facts"]["capability"] == "talker__order"
    project.run("approve", second["request_id"], "--by", "bob")
    project.killed_when_parked(log, 3)
    third = only_request(project)
    assert third["kind"] == "input" and "talker asks: How much for a cup?" in third["prompt"]
    refused = project.run("answer", third["request_id"], "--value", '{"euros": "many"}', code=2)
    assert "field 'euros' is 'many': give a whole number" in refused.err
    project.run("answer", third["request_id"], "7", "--by", "bob")
    return run_id


def told_by_sql(project: Project) -> None:
    """What the trace says of it."""
    asked = project.ask(ASKED)
    assert [(one["kind"], one["status"], one["answered_by"]) for one in asked] == [
        ("approval", "approved", "bob"),
        ("approval", "approved", "bob"),
        ("input", "answered", "bob"),
    ]
    [elicited] = project.ask(ELICITED)
    assert elicited == {
        "tool": "talker__order",
        "form": "form",
        "action": "accept",
        "answered_by": "bob",
        "euros": 7,
    }


def statuses(project: Project) -> list[str]:
    """The statuses of the session, one after the other."""
    return [change["status"] for change in project.ask(CHANGES)]


def test_a_legacy_server_over_http_goes_on_with_the_very_call(tmp_path: Path, retinue: Command) -> None:
    log = tmp_path / "orders.txt"
    with running([TALKER, "http", "0"]) as server:
        port = server.wait_for("ready").split()[1]
        given = {"url": f"http://127.0.0.1:{port}/mcp", "protocol": "legacy"}
        project = Project(tmp_path / "project", retinue, given, "at_most_once")
        run_id = travel(project, log)
        [session] = project.run("sessions", "list", "--run", run_id, "--json").json
        assert (session["status"], session["resumable"]) == ("waiting_for_input", True)
        assert session["wire_session_id"] and session["pins"] and session["transport"] == "http"
        ended = project.run("wait", run_id, "--local", "--json").json
    assert ended["output"] == {"ordered": "ordered a cup for 7"}
    assert log.read_text() == "a cup 7\n", "it was done once, by the call that asked"
    told_by_sql(project)
    assert statuses(project)[-2:] == ["in_progress", "closed"]
    assert "waiting_for_input" in statuses(project) and "waiting_for_approval" in statuses(project)


def test_a_server_that_dies_with_its_host_is_told_again_what_was_answered(tmp_path: Path, retinue: Command) -> None:
    log = tmp_path / "orders.txt"
    given = {"command": [sys.executable, TALKER, "stdio"]}
    project = Project(tmp_path / "project", retinue, given, "idempotent")
    run_id = travel(project, log)
    ended = project.run("wait", run_id, "--local", "--json").json
    assert ended["output"] == {"ordered": "ordered a cup for 7"}
    assert log.read_text() == "a cup 7\n"
    told_by_sql(project)
    assert "reinitialize_required" in statuses(project) and statuses(project)[-1] == "closed"
    calls = project.ask("SELECT count(*) AS n FROM continuations WHERE event = 'paused'")
    assert calls == [{"n": 2}], "the call was begun again, and nobody was asked again"
