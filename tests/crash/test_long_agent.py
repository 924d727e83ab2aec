"""kill -9 in the middle of a long agent's run: it ends as an undisturbed one, resets and compactions included."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.crash import long_agent
from tests.doubles.processes import ROOT, running
from tests.doubles.projects import decides, project

from retinue.host.settings import Settings
from retinue.runs.control import RunQuery
from retinue.runs.journal import AnyEntry, Checkpoint, Leased, Outcome, Record
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("A10", "A6", "C6"), pytest.mark.rule("R2")]

PROGRAM = str(ROOT / "tests" / "crash" / "long_agent.py")
KILLS = 4
SLOW_MS = 10
"""How long each decision takes, so that a kill finds the run at work."""


def prepare(folder: Path) -> Settings:
    """A project whose model decides the long run, each turn a little slowly."""
    decisions = [{**decision, "latency_ms": SLOW_MS} for decision in long_agent.decisions()]
    settings = {"context_tokens": long_agent.LIMIT}
    return project(folder, decides(*decisions), modules=["tests.crash.long_agent"], settings=settings)


async def journal(settings: Settings) -> list[AnyEntry]:
    """The entries of the one run; none before it is accepted."""
    store = SqliteStore(settings.data_folder)
    try:
        found = await store.list_runs(RunQuery(limit=10))
        return [entry async for frame in store.read(found[0].run_id) for entry in frame.entries] if found else []
    finally:
        await store.close()


async def killed(folder: Path, settings: Settings, turn: int) -> None:
    """Carry the run until its journal has come to this turn, then kill -9."""
    with running([PROGRAM, str(folder)]) as other:
        await asyncio.to_thread(other.wait_for, "begun")
        async with asyncio.timeout(30):
            while True:
                made = sum(isinstance(entry, Checkpoint) for entry in await journal(settings))
                if made >= turn:
                    break
                await asyncio.sleep(0.02)
        other.kill()


async def completed(folder: Path) -> None:
    with running([PROGRAM, str(folder)]) as other:
        await asyncio.to_thread(other.wait_for, "done")


def told(entries: list[AnyEntry]) -> list[Any]:
    """What the run recorded of its way, and how it ended, without its own id."""
    run_id = entries[0].request.run_id if entries[0].kind == "accepted" else ""
    kept = ("decision", "compaction", "reset", "obligation", "observation", "validation")
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, Checkpoint):
            found.append((entry.name, entry.content))
        elif isinstance(entry, Record) and entry.topic in kept:
            found.append((entry.topic, entry.facts, entry.content))
        elif entry.kind == "finished":
            found.append((entry.reason, entry.facts, entry.content))
    return [repr(item).replace(run_id, "RUN") for item in found]


async def test_a_long_agent_survives_kill_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG_LOG", str(tmp_path / "calm.log"))
    calm = prepare(tmp_path / "calm")
    await completed(tmp_path / "calm")
    undisturbed = await journal(calm)
    assert [entry.name for entry in undisturbed if isinstance(entry, Checkpoint)].count("reset") == 2
    assert sum(isinstance(entry, Record) and entry.topic == "compaction" for entry in undisturbed) >= 6

    monkeypatch.setenv("LONG_LOG", str(tmp_path / "rough.log"))
    rough = prepare(tmp_path / "rough")
    seed = random.SystemRandom().randrange(2**32)
    print(f"kills are drawn with seed {seed}")
    for turn in sorted(random.Random(seed).sample(range(5, long_agent.TURNS - 10), KILLS)):
        await killed(tmp_path / "rough", rough, turn)
    await completed(tmp_path / "rough")
    disturbed = await journal(rough)

    assert sum(isinstance(entry, Leased) for entry in disturbed) > 1, "no kill hit the run while it ran"
    assert told(disturbed) == told(undisturbed)
    ended = [entry.key for entry in disturbed if isinstance(entry, Outcome)]
    assert len(ended) == len(set(ended)), "a finished step was done again"
    mails = (tmp_path / "rough.log").read_text()
    assert [line.split(maxsplit=1)[1] for line in mails.splitlines()] == ["found it"] * mails.count("\n")
    assert mails.count("\n") == (tmp_path / "calm.log").read_text().count("\n")
