"""kill -9 at every named point between two journal operations: the second life ends as an undisturbed one.

The points are derived from the code (points.py): one that no scenario reaches fails here by name. A part of all
possible kills is done; `KILLS=all` in the environment does every one of them, and kills the second life too.
"""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.crash import points
from tests.crash.killing import CODE, live_in
from tests.crash.living import Life
from tests.crash.scenarios import SCENARIOS
from tests.crash.verdict import Story, complaints, read_story
from tests.crash.watching import Kill
from tests.doubles.processes import ROOT, Other, python

pytestmark = [
    pytest.mark.promise("C1", "C6", "C4", "B5"),
    pytest.mark.rule("R1", "R2", "R3", "R4", "R10", "R13"),
]

SERVERS = 4
"""A life waits more than it works."""
TRIES = 4
KILLED = -9
EVERYTHING = os.environ.get("KILLS") == "all"
"""Every occurrence of every point in every scenario, and a second kill in the second life."""
OCCURRENCES = 10_000 if EVERYTHING else 3
SCENARIOS_A_POINT = 10_000 if EVERYTHING else 1
"""For points that every run passes; those in runs/ are killed in each scenario that reaches them: where many do, each
is killed at one occurrence, in turn an early, a middle and a late one."""


class Calm(NamedTuple):
    """The undisturbed run of a scenario, and how often it reached what."""

    story: Story
    reached: dict[tuple[str, str], int]


class Trial(NamedTuple):
    """A kill, whether it came to it, and what was wrong in the end."""

    kill: Kill
    killed: bool
    wrong: list[str]


class Servers:
    """Processes that fork lives; a life waits for one that is free."""

    def __init__(self, servers: list[Other]) -> None:
        self._free: queue.SimpleQueue[Other] = queue.SimpleQueue()
        for server in servers:
            self._free.put(server)

    def live(self, life: Life) -> int:
        server = self._free.get()
        try:
            return live_in(server, life)
        finally:
            self._free.put(server)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers([stack.enter_context(python(CODE)) for _ in range(SERVERS)])


@pytest.fixture(scope="module")
def calm(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Calm]:
    """Every scenario without any kill; again when a point was missed that depends on who is faster."""
    base = tmp_path_factory.mktemp("calm")

    def undisturbed(name: str) -> Calm:
        folder = Path(tempfile.mkdtemp(prefix=name, dir=base))
        code = servers.live(Life(name, str(folder), 1))
        assert code == 0, f"{name} without any kill ended with {code}: {said_in(folder)}"
        story = read_story(folder, 1)
        return Calm(story, {(point, moment): times for point, moment, times in story.told["reached"]})

    with ThreadPoolExecutor(SERVERS) as pool:
        found = dict(zip(SCENARIOS, pool.map(undisturbed, SCENARIOS), strict=True))
        for _ in range(TRIES):
            if not unreached(found):
                break
            for name, again in zip(SCENARIOS, pool.map(undisturbed, SCENARIOS), strict=True):
                found[name] = Calm(again.story, again.reached | found[name].reached)
        return found


def unreached(calm: dict[str, Calm]) -> list[tuple[str, str]]:
    """The points, with their moment, that no scenario has reached."""
    reached = {place for found in calm.values() for place in found.reached}
    return sorted({(point, moment) for point in points.points() for moment in points.MOMENTS} - reached)


NEW = """
async def perform(run, command):
    run.note(command)
    await run.write(command)
    await run.services.journal.look(command.key) if await run.write(command) else None

def write(self, *entries):
    return self._journal.append(entries)

async def other(self):
    self._store.signal("x"), self.names.append("x"), self._store.get("x")
"""


def test_a_new_call_is_a_new_point_whatever_its_module() -> None:
    found = [point.name for point in points.points_in(ROOT / "runs" / "effects" / "fresh.py", NEW)]
    place = "runs.effects.fresh"
    assert found == [
        f"{place}.perform:write#0",
        f"{place}.perform:write#1",
        f"{place}.perform:look#0",
        f"{place}.other:signal#0",
    ]


@pytest.mark.timeout(300)
def test_every_point_is_reached_at_both_moments(calm: dict[str, Calm]) -> None:
    assert unreached(calm) == [], "no scenario reaches these points: write one (scenarios.py)"


def test_no_operation_comes_from_anywhere_but_a_point(calm: dict[str, Calm]) -> None:
    assert {name: found.story.told["strays"] for name, found in calm.items() if found.story.told["strays"]} == {}


def test_an_undisturbed_run_has_nothing_to_complain_of(calm: dict[str, Calm]) -> None:
    wrong = {name: complaints(found.story, found.story, SCENARIOS[name].most) for name, found in calm.items()}
    assert {name: said for name, said in wrong.items() if said} == {}


class Trials:
    """The kills of every scenario, done once, and what came of them."""

    def __init__(self, calm: dict[str, Calm], servers: Servers, folder: Path) -> None:
        self._calm = calm
        self._servers = servers
        self._folder = folder
        self._plan = plan(calm)
        self._done: dict[str, list[Trial]] = {}

    def of(self, name: str) -> list[Trial]:
        """The trials of a scenario."""
        if name not in self._done:
            with ThreadPoolExecutor(SERVERS) as pool:
                self._done[name] = list(pool.map(lambda kill: self._try(name, kill), self._plan[name]))
        return self._done[name]

    def _try(self, name: str, kill: Kill) -> Trial:
        """Kill at a point; sooner, when another was faster and the point was not reached that often."""
        folder = self._folder / f"{name}-{kill.point}-{kill.moment}-{kill.nth}"
        for number in range(TRIES):
            here = replace(kill, nth=max(kill.nth >> number, 1))
            wrong = self._live(name, here, folder / f"{number}")
            if wrong is not None:
                return Trial(here, True, [f"killed {kill.moment} {kill.point} ({here.nth}): {said}" for said in wrong])
        return Trial(kill, False, [])

    def _live(self, name: str, kill: Kill, folder: Path) -> list[str] | None:
        """A life that is killed, perhaps a second one, then one to the end. What is wrong, or None without a kill."""
        folder.mkdir(parents=True)
        kills = [kill, Kill(kill.point, kill.moment)] if EVERYTHING else [kill]
        for number, here in enumerate([*kills, None], start=1):
            code = self._servers.live(Life(name, str(folder), number, here))
            if code == 0:
                break
            if code != KILLED or here is None:
                return [f"life {number} ended with {code}: {said_in(folder)}"]
        if number == 1:
            return None
        wrong = complaints(self._calm[name].story, read_story(folder, number), SCENARIOS[name].most)
        if not wrong:
            shutil.rmtree(folder)
        return [f"{said} ({folder})" for said in wrong]


@pytest.fixture(scope="module")
def trials(calm: dict[str, Calm], servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(calm, servers, tmp_path_factory.mktemp("kills"))


def plan(calm: dict[str, Calm]) -> dict[str, list[Kill]]:
    """Which scenario is killed where, and at which occurrences."""
    kills: dict[str, list[Kill]] = {name: [] for name in calm}
    places = sorted({place for found in calm.values() for place in found.reached})
    for place in places:
        names = [name for name in calm if place in calm[name].reached]
        paced = not place[0].startswith("runs.")  # how often it is passed depends on the pace, not on the scenario
        if paced:
            names = sorted(names, key=lambda name: len(kills[name]))[:SCENARIOS_A_POINT]
        for number, name in enumerate(names):
            times = calm[name].reached[place]
            chosen = spread(max(times // 2, 1) if paced else times)
            if len(names) >= OCCURRENCES:
                chosen = [chosen[number % len(chosen)]]
            kills[name] += [Kill(*place, nth) for nth in chosen]
    return kills


def spread(times: int) -> list[int]:
    """Occurrences to kill at: the first, the last, and some between."""
    if times <= OCCURRENCES:
        return list(range(1, times + 1))
    return [1 + (times - 1) * number // (OCCURRENCES - 1) for number in range(OCCURRENCES)]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(900)
def test_a_kill_at_any_point_changes_nothing(name: str, trials: Trials) -> None:
    wrong = [said for trial in trials.of(name) for said in trial.wrong]
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(3_600)
def test_every_point_was_killed_at_both_moments(trials: Trials) -> None:
    done = [trial.kill for name in SCENARIOS for trial in trials.of(name) if trial.killed]
    missed = [trial.kill for name in SCENARIOS for trial in trials.of(name) if not trial.killed]
    print(f"{len(points.points())} points, {len(done)} kills, {len(missed)} not reached again: {missed}")
    wanted = {(point, moment) for point in points.points() for moment in points.MOMENTS}
    assert sorted(wanted - {(kill.point, kill.moment) for kill in done}) == []


def said_in(folder: Path) -> Any:
    """What the processes of a folder have printed last."""
    file = folder / "said.txt"
    return file.read_text()[-2_000:] if file.exists() else "nothing"
