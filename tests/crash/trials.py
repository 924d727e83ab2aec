"""Every scenario on one kind of store, undisturbed and killed: which kills there are, and what came of each.

`KILLS=all` in the environment plans every one of all possible kills, and kills the second life too. Knows no test.
"""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tests.crash import points
from tests.crash.killing import live_in
from tests.crash.living import Life
from tests.crash.scenarios import SCENARIOS
from tests.crash.verdict import Story, complaints, read_story
from tests.crash.watching import Kill
from tests.doubles.places import Place
from tests.doubles.processes import Other

T = TypeVar("T")
TRIES = 4
KILLED = -9
EVERYTHING = os.environ.get("KILLS") == "all"
"""Every occurrence of every point in every scenario, and a second kill in the second life."""
OCCURRENCES = 10_000 if EVERYTHING else 3
SCENARIOS_A_POINT = 10_000 if EVERYTHING else 1
"""For points that every run passes; those in runs/ are killed in each scenario that reaches them: where many do, each
is killed at one occurrence, in turn an early, a middle and a late one."""
Where = tuple[str, str]
"""A point and the moment before or after it."""


class Calm(NamedTuple):
    """The undisturbed run of a scenario, and how often it reached what."""

    story: Story
    reached: dict[Where, int]


class Trial(NamedTuple):
    """A kill, whether it came to it, and what was wrong in the end."""

    kill: Kill
    killed: bool
    wrong: list[str]


class Shared(Generic[T]):
    """Things of which each user has one for a while."""

    def __init__(self, things: Sequence[T]) -> None:
        self.many = len(things)
        self._free: queue.SimpleQueue[T] = queue.SimpleQueue()
        for thing in things:
            self._free.put(thing)

    @contextmanager
    def one(self) -> Iterator[T]:
        thing = self._free.get()
        try:
            yield thing
        finally:
            self._free.put(thing)


class Ground:
    """Where scenarios live: `servers` fork lives, `places` are their stores. All is done once, when it is asked for."""

    def __init__(self, servers: Shared[Other], places: Shared[Place], folder: Path) -> None:
        self._servers = servers
        self._places = places
        self._folder = folder
        self._done: dict[str, list[Trial]] = {}

    @cached_property
    def calm(self) -> dict[str, Calm]:
        """Every scenario without any kill; again when a point was missed that depends on who is faster."""
        found = dict(zip(SCENARIOS, self._each(self._undisturbed, SCENARIOS), strict=True))
        for _ in range(TRIES):
            if not self._unreached(found):
                break
            for name, again in zip(SCENARIOS, self._each(self._undisturbed, SCENARIOS), strict=True):
                found[name] = Calm(again.story, again.reached | found[name].reached)
        return found

    @property
    def wanted(self) -> set[Where]:
        """Every point of this kind of store at each moment."""
        with self._places.one() as place:
            return {(point, moment) for point in points.points_of(place.kind) for moment in points.MOMENTS}

    @property
    def unreached(self) -> list[Where]:
        """What no scenario has reached."""
        return self._unreached(self.calm)

    def trials(self, name: str) -> list[Trial]:
        """The kills of a scenario, each done."""
        if name not in self._done:
            self._done[name] = self.all_of([(name, kill) for kill in self._plan[name]])
        return self._done[name]

    def all_of(self, kills: Sequence[tuple[str, Kill]]) -> list[Trial]:
        """These kills of (scenario, where), each done."""
        return self._each(lambda one: self._try(*one), kills)

    @cached_property
    def _plan(self) -> dict[str, list[Kill]]:
        return plan(self.calm)

    def _each(self, do: Callable[[Any], T], what: Collection[Any]) -> list[T]:
        with ThreadPoolExecutor(self._servers.many) as pool:
            return list(pool.map(do, what))

    def _unreached(self, calm: dict[str, Calm]) -> list[Where]:
        return sorted(self.wanted - {place for found in calm.values() for place in found.reached})

    def _undisturbed(self, name: str) -> Calm:
        folder = Path(tempfile.mkdtemp(prefix=f"calm-{name}", dir=self._folder))
        with self._empty() as store:
            code = self._live(Life(name, str(folder), 1, store=store))
        assert code == 0, f"{name} without any kill ended with {code}: {said_in(folder)}"
        story = read_story(folder, 1)
        return Calm(story, {(point, moment): times for point, moment, times in story.told["reached"]})

    def _try(self, name: str, kill: Kill) -> Trial:
        """Kill at a point; sooner, when another was faster and the point was not reached that often."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-{kill.point}-{kill.moment}-{kill.nth}-", dir=self._folder))
        for number in range(TRIES):
            here = replace(kill, nth=max(kill.nth >> number, 1))
            with self._empty() as store:
                wrong = self._lives(name, here, folder / f"{number}", store)
            if wrong is not None:
                return Trial(here, True, [f"killed {kill.moment} {kill.point} ({here.nth}): {said}" for said in wrong])
        return Trial(kill, False, [])

    def _lives(self, name: str, kill: Kill, folder: Path, store: str | None) -> list[str] | None:
        """A life that is killed, perhaps a second one, then one to the end. What is wrong, or None without a kill."""
        folder.mkdir()
        kills = [kill, Kill(kill.point, kill.moment)] if EVERYTHING else [kill]
        for number, here in enumerate([*kills, None], start=1):
            code = self._live(Life(name, str(folder), number, here, store))
            if code == 0:
                break
            if code != KILLED or here is None:
                return [f"life {number} ended with {code}: {said_in(folder)}"]
        if number == 1:
            return None
        wrong = complaints(self.calm[name].story, read_story(folder, number), SCENARIOS[name].most)
        if not wrong:
            shutil.rmtree(folder)
        return [f"{said} ({folder})" for said in wrong]

    def _live(self, life: Life) -> int:
        with self._servers.one() as server:
            return live_in(server, life)

    @contextmanager
    def _empty(self) -> Iterator[str | None]:
        """The address of an empty store; None where it comes with its folder."""
        with self._places.one() as place:
            place.clear()
            yield place.url


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


def once_each(calm: dict[str, Calm], places: Collection[Where]) -> list[tuple[str, Kill]]:
    """Each of these places once, early enough to be reached again, and the scenarios in turn."""
    kills: dict[str, list[Kill]] = {name: [] for name in calm}
    for place in sorted(places):
        name = min((name for name in calm if place in calm[name].reached), key=lambda name: len(kills[name]))
        kills[name].append(Kill(*place, max(calm[name].reached[place] // 2, 1)))
    return [(name, kill) for name, found in kills.items() for kill in found]


def spread(times: int) -> list[int]:
    """Occurrences to kill at: the first, the last, and some between."""
    if times <= OCCURRENCES:
        return list(range(1, times + 1))
    return [1 + (times - 1) * number // (OCCURRENCES - 1) for number in range(OCCURRENCES)]


def said_in(folder: Path) -> Any:
    """What the processes of a folder have printed last."""
    file = folder / "said.txt"
    return file.read_text()[-2_000:] if file.exists() else "nothing"
