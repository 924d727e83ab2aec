"""kill -9 at every named point between two journal operations: the second life ends as an undisturbed one.

The points are derived from the code (points.py): one that no scenario reaches fails here by name.
"""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.crash import points
from tests.crash.killing import CODE, live_in
from tests.crash.living import Life
from tests.crash.scenarios import SCENARIOS
from tests.crash.verdict import Story, complaints, read_story
from tests.crash.watching import Kill
from tests.doubles.processes import Other, python

pytestmark = [
    pytest.mark.promise("C6", "C4", "B5"),
    pytest.mark.rule("R1", "R2", "R3", "R4", "R10", "R13"),
]

SERVERS = 2
TRIES = 4
KILLED = -9


class Calm(NamedTuple):
    """The undisturbed run of a scenario, and how often it reached what."""

    story: Story
    reached: dict[tuple[str, str], int]


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
    """Every scenario without any kill."""
    base = tmp_path_factory.mktemp("calm")

    def undisturbed(name: str) -> Calm:
        folder = base / name
        folder.mkdir()
        code = servers.live(Life(name, str(folder), 1))
        assert code == 0, f"{name} without any kill ended with {code}: {said_in(folder)}"
        story = read_story(folder, 1)
        return Calm(story, {(point, moment): times for point, moment, times in story.told["reached"]})

    with ThreadPoolExecutor(SERVERS) as pool:
        return dict(zip(SCENARIOS, pool.map(undisturbed, SCENARIOS), strict=True))


def test_every_point_is_reached_at_both_moments(calm: dict[str, Calm]) -> None:
    reached = {place for found in calm.values() for place in found.reached}
    wanted = {(point, moment) for point in points.points() for moment in points.MOMENTS}
    assert sorted(wanted - reached) == [], "no scenario reaches these points: write one (scenarios.py)"
    assert sorted(reached - wanted) == []


def test_no_operation_comes_from_anywhere_but_a_point(calm: dict[str, Calm]) -> None:
    assert {name: found.story.told["strays"] for name, found in calm.items() if found.story.told["strays"]} == {}


def test_an_undisturbed_run_has_nothing_to_complain_of(calm: dict[str, Calm]) -> None:
    wrong = {name: complaints(found.story, found.story, SCENARIOS[name].most) for name, found in calm.items()}
    assert {name: said for name, said in wrong.items() if said} == {}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_point_changes_nothing(
    name: str, calm: dict[str, Calm], servers: Servers, tmp_path: Path
) -> None:
    kills = [Kill(*place) for place in sorted(calm[name].reached)]

    def judged(number: int) -> list[str]:
        wrong = trial(name, kills[number], (calm[name].story, servers), tmp_path / f"{number}")
        return [f"killed {kills[number].moment} {kills[number].point}: {said}" for said in wrong]

    with ThreadPoolExecutor(SERVERS) as pool:
        wrong = [said for found in pool.map(judged, range(len(kills))) for said in found]
    assert wrong == []


def trial(name: str, kill: Kill, known: tuple[Story, Servers], folder: Path) -> list[str]:
    """Kill a life of the scenario at a point, live on to the end; what is wrong then. A point that depends on who is
    faster is tried again."""
    story, servers = known
    for number in range(TRIES):
        place = folder / f"{number}"
        place.mkdir(parents=True)
        first = servers.live(Life(name, str(place), 1, kill))
        if first == KILLED:
            second = servers.live(Life(name, str(place), 2))
            if second != 0:
                return [f"the second life ended with {second}: {said_in(place)}"]
            wrong = complaints(story, read_story(place, 2), SCENARIOS[name].most)
            if not wrong:
                shutil.rmtree(place)
            return [f"{said} ({place})" for said in wrong]
        if first != 0:
            return [f"the first life ended with {first}: {said_in(place)}"]
    return [f"the point was not reached in {TRIES} tries"]


def said_in(folder: Path) -> Any:
    """What the processes of a folder have printed last."""
    file = folder / "said.txt"
    return file.read_text()[-2_000:] if file.exists() else "nothing"
