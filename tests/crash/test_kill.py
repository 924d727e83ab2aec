"""kill -9 at random moments, again and again: the job ends as an undisturbed one does, and does nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.crash import driver
from tests.doubles.places import REAL, Places
from tests.doubles.processes import ROOT, Other, running
from tests.doubles.projects import project

from retinue import connect
from retinue.host.opening import open_store
from retinue.host.settings import Settings
from retinue.runs.contracts import RunRecord
from retinue.runs.control import RunQuery
from retinue.runs.journal import AnyEntry, Intent, Outcome

pytestmark = [pytest.mark.promise("C6", "B5", "C4"), pytest.mark.rule("R3")]

ROWS = 24
KILLS = 5


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> Settings:
    """A project with a file of rows and a log outside of it."""
    settings = project(folder, modules=["tests.crash.driver"], settings={"store": url})
    lines = [json.dumps({"id": f"r{n}", "n": n}) for n in range(ROWS)]
    (folder / driver.ROWS).write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("CRASH_LOG", str(folder / driver.LOG))
    return settings


def effects(folder: Path) -> Counter[tuple[str, str, str]]:
    """How often each effect (what, key, text) stands in the log."""
    lines = (folder / driver.LOG).read_text().splitlines()
    return Counter((what, key, text) for what, key, text in (line.split() for line in lines))


async def killed(folder: Path, chance: random.Random) -> bool:
    """Start the job, let the log grow by some lines, kill -9; whether it was still running then."""
    log = folder / driver.LOG
    with running([str(ROOT / "tests" / "crash" / "driver.py"), str(folder)]) as other:
        await asyncio.to_thread(other.wait_for, "begun")
        target = lines_in(log) + chance.randint(1, ROWS * 6 // KILLS)
        alive = await grown(other, log, target)
        for _ in range(chance.randint(0, 2_000)):
            await asyncio.sleep(0)
        other.kill()
        return alive


def lines_in(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


async def grown(other: Other, log: Path, target: int) -> bool:
    """Wait until the log has so many lines; False when the process ended before."""
    async with asyncio.timeout(30):
        while lines_in(log) < target:
            if other.process.poll() is not None:
                return False
            await asyncio.sleep(0.001)
    return True


async def completed(folder: Path) -> None:
    """Run the job to its end."""
    with running([str(ROOT / "tests" / "crash" / "driver.py"), str(folder)]) as other:
        await asyncio.to_thread(other.wait_for, "done")


async def answers(settings: Settings) -> list[tuple[str | None, str, Any]]:
    """The rows of the job in order, as a user would write them to a file."""
    async with connect(settings=settings, local=True) as client:
        [job] = await client.runs(RunQuery(roots_only=True))
        return [(row.input_id, row.branch.status.value, row.branch.value) async for row in client.ordered(job.run_id)]


async def journals(settings: Settings) -> list[tuple[RunRecord, list[AnyEntry]]]:
    """Every run with its whole journal."""
    store = open_store(settings)
    try:
        records = await store.list_runs(RunQuery(limit=10_000))
        return [(record, [e async for frame in store.read(record.run_id) for e in frame.entries]) for record in records]
    finally:
        await store.close()


@pytest.mark.parametrize("kind", REAL)
async def test_a_batch_survives_kill_9(
    kind: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = prepare(tmp_path / "calm", monkeypatch)
    await completed(tmp_path / "calm")
    with places.new(kind) as place:
        await undisturbed_after_kills(tmp_path, calm, prepare(tmp_path / "rough", monkeypatch, place.url))


async def undisturbed_after_kills(tmp_path: Path, calm: Settings, rough: Settings) -> None:
    """The job of the second project, killed again and again, ends as that of the first."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"kills are drawn with seed {seed}")
    chance = random.Random(seed)
    interrupted = [await killed(tmp_path / "rough", chance) for _ in range(KILLS)]
    assert any(interrupted), "no kill hit the job while it ran"
    await completed(tmp_path / "rough")

    assert await answers(rough) == await answers(calm)
    log = effects(tmp_path / "rough")
    filed = Counter(text for (what, _, text), count in log.items() for _ in range(count) if what == "filed")
    assert set(filed.values()) == {1}, "an effect was done twice"
    assert set(filed) == {text for (what, _, text) in effects(tmp_path / "calm") if what == "filed"}

    for record, entries in await journals(rough):
        assert record.status == "completed"
        ended: set[str] = set()
        for entry in entries:
            if isinstance(entry, Intent):
                assert entry.key not in ended, "a finished step was begun again"
            elif isinstance(entry, Outcome):
                assert entry.key not in ended, "a step ended twice"
                ended.add(entry.key)
        finishes = [entry for entry in entries if entry.kind == "finished"]
        assert len(finishes) == 1 and entries[-1] is finishes[0]
