"""The helpdesk example: the server is a real process, the triage is killed right after the server wrote the ticket,
and afterwards there is one ticket for the mail; a plain loop leaves two."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.doubles.processes import ROOT, running
from tests.e2e.conftest import Project, environment
from tests.e2e.test_docs import typed

from retinue.host.settings import load_settings
from retinue.ingress.controls import open_controls
from retinue.ingress.pending import Waiting
from retinue.runs.journal import AnyEntry, Intent, Outcome, Record
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("C4"), pytest.mark.promise("C6"), pytest.mark.rule("R13")]

EXAMPLE = ROOT / "examples" / "helpdesk"
DRIVER = str(ROOT / "tests/e2e/triaging.py")


class Helpdesk:
    """The example's server in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def tickets(self, **wanted: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/tickets", params=wanted).json()
        return found

    def will(self, does: str, mail: str = "m01", **how: float) -> None:
        httpx.put(f"{self.url}/faults", json=[{"mail": mail, "does": does, **how}])

    def wrote(self, mail: str = "m01") -> None:
        until = time.monotonic() + 30
        while not self.tickets(mail=mail):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "helpdesk"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("out", ".retinue", "__pycache__"))
    return Project(folder, environment())


@pytest.fixture
def helpdesk(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helpdesk]:
    with running([str(project.folder / "server.py"), "--data", str(project.folder / "tickets.db")]) as server:
        made = Helpdesk(server.wait_for("http"))
        monkeypatch.setenv("HELPDESK_URL", made.url)
        project.environ["HELPDESK_URL"] = made.url
        yield made


async def killed_after_the_write(project: Project, helpdesk: Helpdesk, contract: str) -> str:
    """The run of a mail whose process died when the ticket was written and nobody had been told."""
    helpdesk.will("slow", seconds=60)
    with running([DRIVER, str(project.folder), contract]) as first:
        run_id = (await asyncio.to_thread(first.wait_for, "begun")).split()[1]
        await asyncio.to_thread(helpdesk.wrote)
        first.kill()
    return run_id


async def journal(project: Project, run_id: str) -> list[AnyEntry]:
    store = SqliteStore(load_settings(project.folder).data_folder)
    try:
        return [entry async for frame in store.read(run_id) for entry in frame.entries]
    finally:
        await store.close()


def about_the_ticket(entries: list[AnyEntry]) -> list[str]:
    """The story of the write in its run's journal; the policy is asked again after a wait, which is told once."""
    story = []
    for entry in entries:
        match entry:
            case Intent() if "/open_" in entry.key:
                story.append("question" if entry.effect == "input" else "intent")
            case Outcome() if "/open_" in entry.key:
                story.append("answer" if entry.key.endswith("!doubt") else f"outcome {entry.result}")
            case Record(topic="observation"):
                story.append(str(entry.facts["name"]))
            case Record(topic="policy") if entry.facts["stage"] == "doubt" and story[-1] != "doubt":
                story.append("doubt")
    return story


@pytest.mark.parametrize(
    ("contract", "story"),
    [
        ("idempotent", ["intent", "doubt", "intent", "outcome ok"]),
        ("reconcilable", ["intent", "doubt", "outcome ok"]),
    ],
)
@pytest.mark.rule("R9")
async def test_killed_after_the_write_the_contract_ends_the_doubt(
    project: Project, helpdesk: Helpdesk, contract: str, story: list[str]
) -> None:
    run_id = await killed_after_the_write(project, helpdesk, contract)
    with running([DRIVER, str(project.folder), contract]) as second:
        assert (await asyncio.to_thread(second.wait_for, "begun")).split()[1] == run_id
        handled = json.loads((await asyncio.to_thread(second.wait_for, "done")).partition(" ")[2])
    [ticket] = helpdesk.tickets()
    assert handled == {"mail": "m01", "queue": "hardware", "ticket": ticket["number"]}
    assert about_the_ticket(await journal(project, run_id)) == story


async def in_doubt(project: Project, run_id: str) -> Waiting:
    """The doubt of a run as each view of the inbox shows it: they must agree."""
    async with open_controls(load_settings(project.folder)) as client:
        views = [await client.pending(), await client.pending(run_id), await client.pending(everything=True)]
    [shown] = {tuple((one.kind, one.name, one.why, one.commands) for one in view.waits) for view in views}
    assert len(shown) == 1
    return views[0].waits[0]


async def test_killed_after_a_write_that_only_a_person_can_find_it_waits_for_the_person(
    project: Project, helpdesk: Helpdesk
) -> None:
    run_id = await killed_after_the_write(project, helpdesk, "at_most_once")
    project.run("wait", run_id, "--local", code=3)
    wait = await in_doubt(project, run_id)
    assert (wait.kind, wait.name) == ("unknown", "open_at_most_once")
    assert wait.commands == tuple(f"retinue answer {wait.request_id} {word}" for word in ("happened", "absent", "fail"))
    assert "its owner died" in wait.why and "mail='m01'" in wait.why
    [ticket] = helpdesk.tickets()
    project.run("answer", str(wait.request_id), "--value", json.dumps({"happened": ticket["number"]}), "--by", "ben")
    assert f'"ticket":{ticket["number"]}' in re.sub(r"\s", "", project.run("wait", run_id, "--local", code=0).out)
    assert len(helpdesk.tickets()) == 1
    entries = await journal(project, run_id)
    assert about_the_ticket(entries) == ["intent", "doubt", "side_effect_unknown", "question", "answer", "outcome ok"]
    [made] = [entry for entry in entries if isinstance(entry, Outcome) and entry.name == "open_at_most_once"]
    assert made.facts["said_by"] == "ben"


async def test_the_naive_loop_opens_the_ticket_twice(project: Project, helpdesk: Helpdesk) -> None:
    helpdesk.will("slow", seconds=60)
    loop = [str(project.folder / "naive.py"), str(project.folder / "progress.txt")]
    with running(loop) as first:
        await asyncio.to_thread(helpdesk.wrote)
        first.kill()
    helpdesk.will("drop", "m02")
    with running(loop) as second:
        assert await asyncio.to_thread(second.ended) == 0
    assert [len(helpdesk.tickets(mail=mail)) for mail in ("m01", "m02", "m03")] == [2, 2, 1]


def test_the_demo_ends_with_one_ticket_per_mail_under_every_contract(project: Project) -> None:
    printed = typed(project.folder, "demo.py")
    table = [line.split() for line in printed.split("opened more than once\n")[1].splitlines()]
    naive = table.pop(0)
    assert naive[:2] == ["naive", "17"] and int(naive[2]) >= 19 and {"m03", "m12"} <= set(naive), printed
    assert table == [
        ["idempotent", "17", "17", "none"],
        ["reconcilable", "17", "17", "none"],
        ["at_most_once", "17", "17", "none"],
    ], printed
    assert "ben looks into the helpdesk: 0 tickets for m08" in printed and "absent --by ben" in printed
