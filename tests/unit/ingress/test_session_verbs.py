"""What servers ask, and sessions with them, by the command line alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.outside import OUTSIDE
from tests.doubles import desk
from tests.unit.ingress.conftest import Command

from retinue.host import composition
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.verbs.init import make_project
from retinue.runs.contracts import Status
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway

pytestmark = pytest.mark.promise("B4", "D2", "D4")

FLOWS = """
from retinue import Context, workflow


@workflow
async def visit(ctx: Context, text: str) -> dict:
    return await ctx.call("desk__order", text=text)
"""
BUSY = (Status.queued, Status.in_progress)
POLICY = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with the desk's tools; it is the current folder."""
    folder = tmp_path / "mine"
    make_project(folder)
    (folder / "visiting.py").write_text(FLOWS, encoding="utf-8")
    (folder / "policy" / "all.cedar").write_text(POLICY, encoding="utf-8")
    settings = (folder / "retinue.yaml").read_text("utf-8").replace("modules: [agents]", "modules: [visiting]")
    (folder / "retinue.yaml").write_text(settings, encoding="utf-8")
    monkeypatch.setattr(composition, "Catalog", lambda tools: Catalog([*tools, *desk.TOOLS]))
    OUTSIDE.enter(tmp_path, 1)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def begin(folder: Path) -> str:
    """A visit that has come to its questions; its id."""

    async def drive() -> str:
        async with connect(folder, local=True) as client:
            run_id = (await client.submit("visit", "a cup")).run_id
            await rested(client, run_id)
            return run_id

    return asyncio.run(drive())


def end(folder: Path, run_id: str) -> object:
    """Let the run go on to its next rest, or its end; its output, or None."""

    async def drive() -> object:
        async with connect(folder, local=True) as client:
            ended = await rested(client, run_id)
            return (await client.wait(run_id)).value if ended else None

    return asyncio.run(drive())


async def rested(client: Client, run_id: str) -> bool:
    """Wait until the run has parked or ended; whether it has ended."""
    async for event in client.events(run_id):
        status = (await client.get(run_id)).status
        if event.kind in ("parked", "finished") and status not in BUSY:
            return status.terminal
    return True


def asked(retinue: Command) -> dict[str, str]:
    """The ids of the open requests by what is asked."""
    found = [one["request"] for one in retinue("inbox", "--json").json["waits"]]
    fields = [one["asked"].get("schema", {}).get("properties", {"url": None}) for one in found]
    return {next(iter(each)): one["request_id"] for each, one in zip(fields, found, strict=True)}


def test_forms_and_addresses_are_answered_and_checked_by_commands(project: Path, retinue: Command) -> None:
    run_id = begin(project)
    shown = retinue("inbox")
    assert "desk asks: How big is a cup?" in shown.out and desk.TERMS in shown.out
    assert "--decline" in shown.out and '"size": 1' in shown.out
    ids = asked(retinue)
    wrong = retinue("answer", ids["size"], "--value", '{"size": 12}')
    assert wrong.code == Exit.usage and "field 'size' is 12: give at most 9" in wrong.err and ids["size"] in wrong.err
    assert "is no JSON object" not in retinue("answer", ids["size"], "big").err
    assert "field 'size' is 'big': give a whole number" in retinue("answer", ids["size"], "big").err
    assert "does not say that it is done" in retinue("answer", ids["url"], "maybe").err
    assert retinue("answer", ids["size"], "3").code == 0, "a form of one field that must be given takes a text"
    assert retinue("answer", ids["url"], "done").code == 0
    assert end(project, run_id) is None
    assert retinue("answer", asked(retinue)["colour"], "--value", '{"colour": "blue"}').code == 0
    assert end(project, run_id) == {
        "order": "a cup",
        "said": {"size": {"size": 3}, "terms": None, "colour": {"colour": "blue"}},
    }
    log = retinue("logs", run_id).out
    assert "session with desk: in_progress → waiting_for_input (asked)" in log
    assert "desk__order: 0.5 of 1 a cup is half done" in log and "requestState" not in log


def test_a_question_of_a_server_can_be_declined_and_no_other(project: Path, retinue: Command) -> None:
    run_id = begin(project)
    ids = asked(retinue)
    assert retinue("answer", ids["size"], "--decline").code == 0
    assert retinue("answer", ids["url"], "--decline").code == 0
    assert end(project, run_id) == {"order": "a cup", "declined": ["size", "terms"]}
    assert retinue("answer", ids["size"]).code == 2
    assert "already" in retinue("answer", ids["size"], "3").err


def test_a_host_lets_go_of_connections_when_a_run_leaves_it(
    project: Path, retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[tuple[str, bool]] = []

    async def release(self: CapabilityGateway, run_id: str, ended: bool) -> None:
        released.append((run_id, ended))

    monkeypatch.setattr(CapabilityGateway, "release", release)
    run_id = begin(project)
    assert released == [(run_id, False)]
    for request in asked(retinue).values():
        retinue("answer", request, "--decline")
    end(project, run_id)
    assert released[-1] == (run_id, True)


def test_sessions_are_listed_shown_and_closed(project: Path, retinue: Command) -> None:
    assert retinue("sessions", "list").out.strip() == "no sessions"
    run_id = begin(project)
    listed = retinue("sessions", "list")
    assert "waiting_for_input" in listed.out and "desk" in listed.out
    [session] = retinue("sessions", "list", "--run", run_id, "--json").json
    assert (session["status"], session["resumable"], session["run_id"]) == ("waiting_for_input", True, run_id)
    shown = retinue("sessions", "show", session["session_id"][-10:])
    assert "http 2026-07-28 worker" in shown.out and "kept, sealed" in shown.out and "mrtr" not in shown.out
    assert retinue("sessions", "show", "nothing-of-this").code == Exit.usage
    closed = retinue("sessions", "close", session["session_id"], "--by", "ben")
    assert closed.code == 0 and "is to be closed" in closed.out
    end(project, run_id)
    assert retinue("inbox", "--json").json["waits"] == []
    assert retinue("sessions", "list").out.strip() == "no sessions"
    [session] = retinue("sessions", "list", "--all", "--json").json
    assert (session["status"], session["cause"]) == ("closed", "closed by ben")
    again = retinue("sessions", "close", session["session_id"])
    assert again.code == Exit.usage and "is closed already" in again.err
