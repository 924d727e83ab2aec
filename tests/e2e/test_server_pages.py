"""A run whose server wants a page to be visited: the inbox shows it, a command says that it is done, the call goes on.

The server is a real one over HTTP that outlives the host; the host is killed while the page is open.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.doubles.processes import running
from tests.e2e.test_server_journey import TALKER, Project, only_request
from tests.unit.ingress import conftest as commands
from tests.unit.ingress.conftest import Command

retinue = commands.retinue
pytestmark = [pytest.mark.promise("D4", "D3"), pytest.mark.timeout(240)]

FLOW = """
from retinue import Context, workflow


@workflow
async def journey(ctx: Context, path: str) -> str:
    said = await ctx.call("talker__TOOL", path=path)
    return said["result"]
"""


@pytest.mark.parametrize(
    ("tool", "protocol", "answer", "went"),
    [
        ("visit", "legacy", ["done"], ("accept", "asked told")),
        ("visit", "auto", ["--decline"], ("decline", "asked told")),
        ("enter", "legacy", ["done"], ("entered", "called visited called")),
    ],
)
def test_a_page_is_visited_between_two_hosts(
    tmp_path: Path, retinue: Command, tool: str, protocol: str, answer: list[str], went: tuple[str, str]
) -> None:
    log = tmp_path / "log"
    with running([TALKER, "http", "0"]) as server:
        url = f"http://127.0.0.1:{server.wait_for('ready').split()[1]}/mcp"
        flow = FLOW.replace("TOOL", tool)
        project = Project(tmp_path / "project", retinue, {"url": url, "protocol": protocol}, "at_most_once", flow)
        run_id = project.killed_when_parked(log, 1)
        request = only_request(project)
        assert (request["kind"], request["run_id"]) == ("input", run_id)
        assert "talker asks: Sign in\nopen https://example.com/sign-in?x=1 in a browser" in request["prompt"]
        if tool == "enter":
            with log.open("a") as file:
                file.write("visited\n")
        project.run("answer", request["request_id"], *answer, "--by", "bob")
        ended = project.run("wait", run_id, "--local", "--json").json
    assert (ended["output"], " ".join(log.read_text().split())) == went
    [elicited] = project.ask("SELECT tool, form, action, answered_by FROM elicitations")
    action = "decline" if "--decline" in answer else "accept"
    assert elicited == {"tool": f"talker__{tool}", "form": "url", "action": action, "answered_by": "bob"}
