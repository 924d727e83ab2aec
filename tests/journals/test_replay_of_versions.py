"""What released versions wrote, every later one reads: recorded runs replay, go on and end as they did."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.doubles.worlds import World, world
from tests.journals.fixtures import VERSIONS, Recording, load, recording
from tests.journals.record import ROOT_RUN, definitions_of, drive, ends_of, furnish, policy_of

from retinue.runs.contracts import Status
from retinue.runs.execution import Execution
from retinue.runs.journal import SCHEMA, Outcome
from retinue.runs.replay import WAYS_ON
from retinue.store.statements import migrations

pytestmark = [pytest.mark.promise("C7")]

STORES = ("memory", "sqlite")
FILES = [path for folder in VERSIONS for path in sorted(folder.glob("*.jsonl")) if path.name != "rows.jsonl"]
STOPPED = {("v1", "handoff")}
"""An agent hands over more since version 2 than in version 1, so a run that had handed over stops with words that say
what helps."""
CUT = [path for path in FILES if "-cut" in path.name]
WHOLE = [path for path in FILES if "-cut" not in path.name]


def named(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def scenario_of(path: Path) -> str:
    return re.sub(r"-cut\d+$", "", path.stem)


@pytest.fixture(autouse=True)
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs read their rows from the folder they were recorded in."""
    if "path" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("path").parent)


def test_every_version_of_the_store_and_of_the_entries_has_its_folder() -> None:
    heads = [json.loads(path.read_text().splitlines()[0]) for path in WHOLE]
    known = {(head["store"], head["entries"]) for head in heads}
    wanted = (len(migrations()), SCHEMA)
    assert wanted in known, f"no folder of tests/journals has store schema {wanted[0]} and entries schema {wanted[1]}: "
    "record one as tests/journals/record.py says"
    assert {head["store"] for head in heads} == set(range(1, len(migrations()) + 1))
    assert {head["entries"] for head in heads} == set(range(1, SCHEMA + 1))


def test_every_scenario_was_recorded_whole_and_cut() -> None:
    for folder in VERSIONS:
        names = set(definitions_of(folder).SCENARIOS)
        assert {path.stem for path in WHOLE if path.parent == folder} == names
        assert {path.stem.split("-cut")[0] for path in CUT if path.parent == folder} == names


async def finished_steps(made: World) -> Counter[str]:
    """What steps and calls of all runs came to, as the journals have it."""
    found: Counter[str] = Counter()
    for run_id in await ends_of(made):
        for entry in await made.entries(run_id):
            if isinstance(entry, Outcome) and entry.effect in ("step", "call") and entry.result == "ok":
                found[str(entry.content)] += 1
    return found


async def goes_on(kind: str, folder: Path, path: Path, recorded: Recording) -> tuple[list[str], Counter[str]]:
    """Load, drive to the end, compare the ends; what was executed, and what had ended well before."""
    module = definitions_of(path.parent)
    policy = policy_of(module, scenario_of(path))
    async with world(kind, folder, *module.DEFINITIONS, *module.AGENTS, **policy) as made:
        await load(furnish(made).store, recorded)
        made.clock.now = recorded.head["clock"]
        made.script(*module.SCRIPT)
        before = await finished_steps(made)
        await drive(made, module, scenario_of(path), ROOT_RUN)
        assert made.failures == []
        assert json.loads(json.dumps(await ends_of(made))) == recorded.head["ends"]
        return module.executed, before


def stops(path: Path) -> bool:
    return (path.parent.name, scenario_of(path)) in STOPPED


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("path", [path for path in CUT if stops(path)], ids=named)
async def test_a_run_that_cannot_go_on_says_so_and_can_be_forked(kind: str, path: Path, tmp_path: Path) -> None:
    recorded, module = recording(path), definitions_of(path.parent)
    async with world(kind, tmp_path, *module.DEFINITIONS, *module.AGENTS) as made:
        await load(furnish(made).store, recorded)
        made.script(*module.SCRIPT)
        await drive(made, module, scenario_of(path), ROOT_RUN)
        ended = await made.store.result(ROOT_RUN)
        assert ended is not None and ended.reason == "replay_mismatch" and ended.error is not None
        assert "was recorded as children with other arguments" in ended.error.message
        assert WAYS_ON in ended.error.message
        intents = [entry for entry in await made.entries(ROOT_RUN) if entry.kind == "intent"]
        fork_id = await made.fork(ROOT_RUN, intents[-1].key)
        await drive(made, module, scenario_of(path), fork_id)
        assert json.loads(json.dumps(await ends_of(made)))[fork_id] == recorded.head["ends"][ROOT_RUN]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("path", [path for path in CUT if not stops(path)], ids=named)
async def test_a_run_cut_in_the_middle_ends_as_an_undisturbed_one_did(kind: str, path: Path, tmp_path: Path) -> None:
    recorded = recording(path)
    executed, before = await goes_on(kind, tmp_path, path, recorded)
    assert not set(executed) & set(before), "what had ended well was done again"
    assert max(Counter(executed).values(), default=1) == 1


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("path", [path for path in WHOLE if not stops(path)], ids=named)
async def test_a_finished_run_replays_to_the_same_end_and_executes_nothing(
    kind: str, path: Path, tmp_path: Path
) -> None:
    recorded = recording(path)
    follow_ups = {run["run_id"] for run in recorded.table("runs")}
    recorded.reopen()
    follow_ups -= {run["run_id"] for run in recorded.table("runs")}
    module = definitions_of(path.parent)
    policy = policy_of(module, scenario_of(path))
    async with world(kind, tmp_path, *module.DEFINITIONS, *module.AGENTS, **policy) as made:
        await load(furnish(made).store, recorded)
        made.clock.now = recorded.head["clock"]
        assert await made.store.result(ROOT_RUN) is None
        count = len(await made.store.tail(0, 10_000))
        while (await made.store.get(ROOT_RUN)).status in (Status.queued, Status.in_progress):
            for leased in await made.store.lease(made.host, "runs", 1, made.clock(), only=ROOT_RUN):
                await Execution(leased, made.services, made.host).drive()
        written = [entry.kind for frame in (await made.store.tail(0, 10_000))[count:] for entry in frame.entries]
        assert module.executed == []
        ended = json.loads(json.dumps(await ends_of(made)))
        expected = recorded.head["ends"]
        assert ended[ROOT_RUN] == expected[ROOT_RUN], made.failures
        assert set(ended) == set(expected)
        assert set(written) <= {"leased", "record", "finished", "accepted"}, written
        assert follow_ups == {run_id for run_id, end in ended.items() if end is None}
