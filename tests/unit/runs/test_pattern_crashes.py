"""A pattern that dies anywhere ends as if it had not: its parent is killed at every place of its journal in turn.

What is compared is the result, and that no child which had ended worked again.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doubles.worlds import World, world
from tests.unit.runs import desks
from tests.unit.runs.conftest import Make

from retinue.runs.contracts import Branch, Budget, Json
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent
from retinue.runs.journal import AnyEntry
from retinue.runs.options import prompt
from retinue.runs.ownership import Append, Appended
from retinue.runs.patterns.chain import chain
from retinue.runs.patterns.orchestrate import orchestrate
from retinue.runs.patterns.parallel import parallel
from retinue.runs.patterns.vote import vote

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def fresh() -> None:
    desks.forget()


async def run_alone(make: Make, kind: str) -> tuple[Branch, int]:
    """The undisturbed run and the length of its journal."""
    pattern, given = desks.PATTERNS[kind]
    world = await make(pattern)
    desks.script(world)
    result = await world.run(pattern, given)
    return result, len(await world.entries(result.run_id))


async def ended_children(world: World, run_id: str) -> set[str]:
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    return {child.run_id for child in children if child.status.terminal}


def verdict(value: Json) -> Json:
    """What of a result does not depend on which children were heard first."""
    return value["winner"] if isinstance(value, dict) and "winner" in value else value


@pytest.mark.promise("B1")
@pytest.mark.promise("B2")
@pytest.mark.parametrize("kind", desks.PATTERNS)
async def test_a_pattern_killed_at_any_place_ends_as_if_undisturbed(make: Make, kind: str) -> None:
    calm, length = await run_alone(make, kind)
    pattern, given = desks.PATTERNS[kind]
    assert calm.ok and length > 8
    for position in range(2, length):
        desks.forget()
        made = await make(pattern)
        desks.script(made)
        run_id = await made.submit(pattern, given)
        await made.until_journaled(run_id, lambda es, position=position: len(es) >= position)  # type: ignore[misc]
        await made.crash()
        ended = await ended_children(made, run_id)
        before = [entry for entry in desks.worked if entry[0] in ended]
        result = await made.finish(run_id)
        assert (result.status, verdict(result.value)) == (calm.status, verdict(calm.value)), f"killed at {position}"
        assert [entry for entry in desks.worked if entry[0] in ended] == before, f"killed at {position}"
        numbers = marks(await made.entries(run_id))
        assert numbers == list(range(1, len(numbers) + 1)), f"killed at {position}"


@pytest.mark.promise("B1")
@pytest.mark.parametrize("kind", desks.PATTERNS)
async def test_a_pattern_killed_behind_each_boundary_goes_on_from_it(tmp_path: Path, kind: str) -> None:
    pattern, given = desks.PATTERNS[kind]
    number, passed = 0, 1
    while number < passed:
        number += 1
        desks.forget()
        (tmp_path / str(number)).mkdir()
        async with world("sqlite", tmp_path / str(number), pattern) as made:
            desks.script(made)
            run_id = await made.submit(pattern, given)
            await made.until_journaled(run_id, lambda es, number=number: len(marks(es)) >= number)  # type: ignore[misc]
            await made.crash()
            ended = await ended_children(made, run_id)
            before = [entry for entry in desks.worked if entry[0] in ended]
            result = await made.finish(run_id)
            assert result.ok, result.error
            assert [entry for entry in desks.worked if entry[0] in ended] == before
            found = marks(await made.entries(run_id))
            assert found == list(range(1, len(found) + 1))
            passed = len(found)
    assert number == passed


def marks(entries: list[AnyEntry]) -> list[int]:
    return [entry.number for entry in entries if entry.kind == "checkpoint"]


@pytest.mark.promise("B2")
@pytest.mark.rule("R2")
async def test_a_resumed_pattern_begins_at_its_newest_boundary(make_on_each: Make) -> None:
    world = await make_on_each(desks.research)
    desks.hold("synthesizer:one, two")
    run_id = await world.submit(desks.research, "one, two")
    await world.until(lambda: desks.did("synthesizer") != [])
    await world.crash()
    desks.held.clear()
    assert (await world.finish(run_id)).ok
    assert (desks.did("planner"), desks.did("synthesizer")) == (["one, two"], ["one, two", "one, two"])


@pytest.mark.promise("B2")
async def test_a_vote_that_dies_while_it_counts_hears_what_was_cast_before(make_on_each: Make) -> None:
    world = await make_on_each(desks.moderate)
    votes = ["a yes", "b no", "c yes", "d yes", "e no"]
    desks.hold("c yes", "d yes", "e no")
    run_id = await world.submit(desks.moderate, votes)
    await world.until(lambda: len(desks.worked) == 5)
    while len(await ended_children(world, run_id)) < 2:
        turns = iter((False, True))
        await world.until(lambda turns=turns: next(turns))  # type: ignore[misc]
    await world.crash()
    desks.worked.clear()
    desks.held.clear()
    result = await world.finish(run_id)
    assert result.value["winner"] == "yes"
    assert {what for _, what in desks.worked} == {"c yes", "d yes", "e no"}


@pytest.mark.promise("B2")
async def test_a_vote_that_dies_after_it_canceled_the_rest_does_not_count_them_as_failed(make_on_each: Make) -> None:
    world = await make_on_each(desks.moderate)
    desks.hold("d no", "e yes")
    run_id = await world.submit(desks.moderate, ["a yes", "b yes", "c yes", "d no", "e yes"])
    await world.until(lambda: len(desks.worked) == 5)
    write, canceled = world.store.append, asyncio.Event()

    async def dying(append: Append) -> Appended:
        done = await write(append)
        if append.spawn is not None and append.spawn.cancel_rest:
            canceled.set()
            await asyncio.Event().wait()
        return done

    world.store.append = dying  # type: ignore[method-assign]
    await world.until(canceled.is_set)
    world.store.append = write  # type: ignore[method-assign]
    await world.crash()
    result = await world.finish(run_id)
    assert (result.value["winner"], result.value["failed"], result.value["unheard"]) == ("yes", {}, 2)


# -- versions ------------------------------------------------------------------------------------------------


def longer(text: str) -> str | None:
    return None if text in {"a", "b", "c", "d"} else "longer"


def shorter(text: str) -> str | None:
    return None if text in {"a", "b", "c"} else "shorter"


def test_a_version_changes_with_its_parts_their_options_and_the_settings() -> None:
    quick, slow = agent("one", "Do."), agent("one", "Do.", parameters={"temperature": 1})
    kinds = [
        chain("x", quick),
        chain("x", slow),
        chain("x", agent("one", "Do.", max_tokens=7)),
        chain("x", agent("one", "Do.", budget=Budget(steps=2))),
        chain("x", agent("one", "Do.", input=str)),
        chain("x", agent("one", prompt("one/v1"))),
        chain("x", agent("one", prompt("one/v2"))),
        chain("x", quick, desks.draft),
        chain("x", desks.draft, quick),
        chain("x", quick, checks={"one": longer}),
        chain("x", quick, checks={"one": shorter}),
        chain("x", "one"),
        chain("y", quick),
        chain("x", chain("y", quick)),
        chain("x", chain("y", slow)),
        parallel("x", {"one": quick}),
        parallel("x", {"two": quick}),
        vote("x", quick, count=3),
        vote("x", quick, count=5),
        vote("x", quick, count=5, by="vote"),
        orchestrate("x", quick, quick, quick),
        orchestrate("x", quick, quick, quick, width=3),
    ]
    versions = [pattern.version for pattern in kinds]
    assert len(set(versions)) == len(versions)
    assert all(version.startswith("~") for version in versions)
    assert chain("x", quick).version == chain("x", agent("one", "Do.")).version
    assert chain("x", quick, version="3").version == "3"


PROBE = """
from tests.unit.runs import desks
from tests.unit.runs.test_pattern_crashes import longer
from retinue.runs.patterns.chain import chain
checked = chain("checked", desks.draft, checks={"draft": longer})
print(*[pattern.version for pattern, _ in desks.PATTERNS.values()], checked.version)
"""


def test_a_version_is_the_same_in_every_process() -> None:
    said = []
    for seed in ("1", "2", "3"):
        environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONHASHSEED": seed}
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
        assert probe.returncode == 0, probe.stderr
        said.append(probe.stdout)
    assert len(set(said)) == 1
    assert len(set(said[0].split())) == len(desks.PATTERNS) + 1
