"""The bring-your-own example as a newcomer runs it, and what holds when its process is killed or its policy is strict.

The agent is pydantic-ai's own, unchanged; the model is the example's script, or a paid server of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.model_server import Received, serve_in_thread
from tests.doubles.model_wire import Plan
from tests.doubles.processes import ROOT, running

from retinue import connect
from retinue.host.settings import Settings, load_settings
from retinue.runs.journal import AnyEntry, Intent, Outcome
from retinue.store.sqlite import SqliteStore

pytestmark = pytest.mark.promise("K4")

EXAMPLE = ROOT / "examples" / "bring_your_own"
ALLOW_ALL = '@id("all") permit (principal, action, resource);'
REFUSE = """
@id("all") permit (principal, action, resource);
@id("no") @reason("no tickets today") forbid (principal, action, resource == Capability::"open_ticket");
"""
TICKET = {"subject": "A-7 was lost by the carrier"}
LAST = {"reply": "We ask the carrier.", "ticket": None}
PRICE = ("1", "2")
"""Dollars per million tokens read and written."""


def copy(folder: Path, policy: str = ALLOW_ALL, **changes: Any) -> Settings:
    """The example in a folder of its own, with other rules or settings."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("out", ".retinue", "__pycache__"))
    (folder / "policy" / "desk.cedar").write_text(policy)
    given = {"modules": ["desk"], "default_model": "scripted:model.jsonl", "principal": "ana"}
    (folder / "retinue.yaml").write_text(json.dumps({**given, "policy": {"folder": "policy"}, **changes}))
    return load_settings(folder)


def book(folder: Path) -> list[dict[str, Any]]:
    """What the tools have written."""
    path = folder / "out" / "book.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def journal(settings: Settings, run_id: str) -> list[AnyEntry]:
    """All entries of a run."""
    store = SqliteStore(settings.data_folder)
    try:
        return [entry async for frame in store.read(run_id) for entry in frame.entries]
    finally:
        await store.close()


def answers(turn: int) -> Plan:
    """What the paid model decides in a turn of the conversation."""
    calls = [("look_up", {"order": "A-7"}), ("open_ticket", TICKET), ("final_result", LAST)]
    name, arguments = calls[turn]
    return Plan(tool_calls=((name, json.dumps(arguments)),), usage=(100, 50))


def test_the_demo_says_what_its_readme_says(tmp_path: Path) -> None:
    policy = (EXAMPLE / "policy" / "desk.cedar").read_text()
    copy(tmp_path / "desk", policy)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RETINUE_")}
    done = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=tmp_path / "desk",
        env=environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Es wurde am Freitag geliefert." in done.stdout
    assert "a refund needs the yes of a second person" in done.stdout and "You get your 48.00 back" in done.stdout
    told = done.stdout.split("-- What it called\n")[1].split("\n")
    assert [line.split("  ")[:3] for line in told if line] == [
        ["model", "scripted:model.jsonl", "4"],
        ["tool", "open_ticket", "1"],
        ["tool", "refund", "1"],
    ]
    assert Counter(line["what"] for line in book(tmp_path / "desk")) == {"ticket": 1, "refund": 1}


class Stuck:
    """A model that is not heard of again when it is asked for the ticket's answer the first time."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.seen: Counter[int] = Counter()
        self._loop = asyncio.get_running_loop()

    def __call__(self, received: Received) -> Plan:
        turn = sum(message["role"] == "assistant" for message in received.body["messages"])
        self.seen[turn] += 1
        if turn == 2 and self.seen[turn] == 1:
            self._loop.call_soon_threadsafe(self.reached.set)
            return Plan(fault="slow", delay=300)
        return answers(turn)


@pytest.mark.promise("C6")
@pytest.mark.rule("R4")
async def test_killed_in_the_middle_it_pays_and_writes_nothing_twice(tmp_path: Path) -> None:
    folder, model = tmp_path / "desk", Stuck()
    with serve_in_thread(model) as server:
        name = f"{server.url}/v1#m"
        settings = copy(folder, default_model=name, models={"prices": {name: PRICE}})
        with running([str(ROOT / "tests/e2e/adopting.py"), str(folder)]) as first:
            run_id = (await asyncio.to_thread(first.wait_for, "begun")).split()[1]
            async with asyncio.timeout(60):
                await model.reached.wait()
            first.kill()
        assert [line["what"] for line in book(folder)] == ["ticket"]
        with running([str(ROOT / "tests/e2e/adopting.py"), str(folder)]) as second:
            assert (await asyncio.to_thread(second.wait_for, "begun")).split()[1] == run_id
            assert json.loads((await asyncio.to_thread(second.wait_for, "done")).partition(" ")[2]) == LAST
    assert model.seen == {0: 1, 1: 1, 2: 2}
    assert [line["what"] for line in book(folder)] == ["ticket"]
    entries = await journal(settings, run_id)
    ended = [entry.key for entry in entries if isinstance(entry, Outcome)]
    assert len(ended) == len(set(ended)) == 5
    [lost] = [entry for entry in entries if entry.kind == "attempt"]
    paid = [entry.usage.micros for entry in entries if isinstance(entry, Outcome) and entry.effect == "model"]
    assert paid == [200, 200, 200] and lost.charged.micros > 200
    assert entries[-1].kind == "finished" and entries[-1].usage.micros == 600 + lost.charged.micros
    assert [entry.facts for entry in entries if isinstance(entry, Outcome)][-1] == {"asked": 4, "replayed": 3}


async def test_a_host_that_stops_leaves_the_agent_to_the_next_one(tmp_path: Path) -> None:
    folder, model = tmp_path / "desk", Stuck()
    with serve_in_thread(model) as server:
        settings = copy(folder, default_model=f"{server.url}/v1#m")
        async with connect(settings=settings, local=True) as client:
            handle = await client.submit("desk", "Where is my order A-7?")
            async with asyncio.timeout(60):
                await model.reached.wait()
        async with connect(settings=settings, local=True) as client:
            branch = await client.wait(handle.run_id, timeout=60)
    assert branch.value == LAST and model.seen == {0: 1, 1: 1, 2: 2}
    assert [line["what"] for line in book(folder)] == ["ticket"]


async def test_its_steps_stand_in_the_traces_like_any_others(tmp_path: Path) -> None:
    settings = copy(tmp_path / "desk")
    async with connect(settings=settings, local=True) as client:
        handle = await client.submit("desk", "Where is my order A-7?")
        assert (await handle.result(timeout=60))["ticket"] == "see the book"
        models = await client.query(f"""
            select c.model, c.turn, len(c.messages) > 0 as told, p.effect as above
            from model_calls c join spans s using (run_id, span_id)
            join spans p on p.run_id = s.run_id and p.span_id = s.parent_span_id
            where run_id = '{handle.run_id}' order by c.turn""")
        tools = await client.query(f"""
            select tool, arguments, value, result, gate, side_effect from tool_calls
            where run_id = '{handle.run_id}' order by time""")
        [run] = (await client.query(f"select * from runs where run_id = '{handle.run_id}'")).to_pylist()
        stages = await client.query(f"""
            select stage, resource, count(*) as asked from policy_decisions
            where run_id = '{handle.run_id}' and stage in ('model', 'capability') group by all order by all""")
    assert [(row["turn"], row["told"], row["above"]) for row in models.to_pylist()] == [
        (turn, True, "adopt") for turn in range(4)
    ]
    ticket, refund = tools.to_pylist()
    assert (ticket["tool"], json.loads(ticket["arguments"]), ticket["gate"]) == ("open_ticket", TICKET, "allow")
    assert (refund["tool"], refund["result"], refund["side_effect"]) == ("refund", "ok", "write")
    assert (run["status"], run["steps"], run["hops"]) == ("completed", 4, 2)
    assert [tuple(row.values()) for row in stages.to_pylist()] == [
        ("capability", "open_ticket", 1),
        ("capability", "refund", 1),
        ("model", "scripted:model.jsonl", 4),
    ]


async def test_a_refused_tool_is_told_to_its_model_and_does_nothing(tmp_path: Path) -> None:
    settings = copy(tmp_path / "desk", REFUSE)
    async with connect(settings=settings, local=True) as client:
        handle = await client.submit("desk", "Where is my order A-7?")
        await handle.result(timeout=60)
    entries = await journal(settings, handle.run_id)
    asked = [entry.content["messages"] for entry in entries if isinstance(entry, Intent) and entry.effect == "model"]
    told = [message["content"] for message in asked[-1] if message["role"] == "tool"]
    assert any(text.startswith("refused: ") and "no tickets today" in text for text in told)
    assert [line["what"] for line in book(tmp_path / "desk")] == ["refund"]


@pytest.mark.promise("C5")
async def test_a_budget_ends_the_agent_with_its_reason(tmp_path: Path) -> None:
    settings = copy(tmp_path / "desk", budget={"steps": 2})
    async with connect(settings=settings, local=True) as client:
        handle = await client.submit("desk", "Where is my order A-7?")
        branch = await client.wait(handle.run_id, timeout=60)
    assert (branch.reason.value, branch.usage.steps) == ("budget_exhausted", 2)
    assert branch.error is not None and "steps budget 2" in branch.error.message
    assert [line["what"] for line in book(tmp_path / "desk")] == ["ticket"]


async def test_runs_side_by_side_keep_apart(tmp_path: Path) -> None:
    settings = copy(tmp_path / "desk")
    async with connect(settings=settings, local=True) as client:
        lost = [await client.submit("desk", "Where is my order A-7?") for _ in range(3)]
        fine = [await client.submit("desk", "Where is my order B-2?") for _ in range(3)]
        results = [await handle.result(timeout=60) for handle in (*lost, *fine)]
    assert [result["ticket"] for result in results] == ["see the book"] * 3 + [None] * 3
    for handle, calls in zip((*lost, *fine), (2, 2, 2, 0, 0, 0), strict=True):
        entries = await journal(settings, handle.run_id)
        outcomes = [entry.effect for entry in entries if isinstance(entry, Outcome)]
        assert Counter(outcomes) == Counter(model=4 if calls else 2, call=calls, adopt=1)
    assert Counter(line["what"] for line in book(tmp_path / "desk")) == {"ticket": 3, "refund": 3}


def test_the_agent_has_never_heard_of_retinue() -> None:
    code = (EXAMPLE / "support.py").read_text()
    imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    assert not any("retinue" in line for line in imports)
