"""kill -9 at every named point between two journal operations: the second life ends as an undisturbed one.

The points are derived from the code (points.py): one that no scenario reaches fails here by name. A part of all
possible kills is done (trials.py); on PostgreSQL each statement of its transactions, all else by `make test-long`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from tests.crash import points
from tests.crash.killing import CODE
from tests.crash.scenarios import SCENARIOS
from tests.crash.trials import Ground, Shared, once_each
from tests.crash.verdict import complaints
from tests.doubles.places import REAL, Places
from tests.doubles.processes import ROOT, Other, python

pytestmark = [
    pytest.mark.promise("C1", "C6", "C4", "B5"),
    pytest.mark.rule("R1", "R2", "R3", "R4", "R10", "R13"),
]

Grounds = Callable[[str], Ground]
SERVERS = 4
"""A life waits more than it works."""
WHOLE = ("sqlite", pytest.param("postgres", marks=pytest.mark.long))


@pytest.fixture(scope="module")
def servers() -> Iterator[Shared[Other]]:
    with ExitStack() as stack:
        yield Shared([stack.enter_context(python(CODE)) for _ in range(SERVERS)])


@pytest.fixture(scope="module")
def grounds(servers: Shared[Other], places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    """The ground of a kind of store."""
    with ExitStack() as stack:

        @cache
        def ground(kind: str) -> Ground:
            made = Shared([stack.enter_context(places.new(kind)) for _ in range(SERVERS)])
            return Ground(servers, made, tmp_path_factory.mktemp(kind))

        yield ground


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
TRANSACTION = """
def apply(connection):
    connection.run("BEGIN")
    connection.run(postgres_sql("settle"), {"num": job.num})
    bulk.finish(connection)
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


def test_a_new_statement_of_a_transaction_is_a_new_point() -> None:
    found = list(points.points_in(ROOT / "store" / "postgres" / "bulk.py", TRANSACTION))
    place = "store.postgres.bulk"
    assert [point.name for point in found] == [f"{place}.apply:BEGIN#0", f"{place}.apply:settle#0"]
    assert {point.store for point in found} == {"postgres"}


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.timeout(300)
def test_every_point_is_reached_at_both_moments(kind: str, grounds: Grounds) -> None:
    assert grounds(kind).unreached == [], "no scenario reaches these points: write one (scenarios.py)"


@pytest.mark.parametrize("kind", REAL)
def test_no_operation_comes_from_anywhere_but_a_point(kind: str, grounds: Grounds) -> None:
    strays = {name: found.story.told["strays"] for name, found in grounds(kind).calm.items()}
    assert {name: found for name, found in strays.items() if found} == {}


@pytest.mark.parametrize("kind", REAL)
def test_an_undisturbed_run_has_nothing_to_complain_of(kind: str, grounds: Grounds) -> None:
    calm = grounds(kind).calm
    wrong = {name: complaints(found.story, found.story, SCENARIOS[name].most) for name, found in calm.items()}
    assert {name: said for name, said in wrong.items() if said} == {}


def test_both_stores_tell_the_same_story(grounds: Grounds) -> None:
    one, other = (grounds(kind).calm for kind in REAL)
    wrong = {name: complaints(one[name].story, other[name].story, SCENARIOS[name].most) for name in SCENARIOS}
    assert {name: said for name, said in wrong.items() if said} == {}


@pytest.mark.timeout(300)
def test_a_kill_inside_a_transaction_of_postgresql_changes_nothing(grounds: Grounds) -> None:
    """Each of its statements at both moments, once; test_a_kill_at_any_point does more of them, and all others."""
    ground = grounds("postgres")
    places = {
        (point.name, moment)
        for point in points.points().values()
        for moment in points.MOMENTS
        if point.store == "postgres"
    }
    done = ground.all_of(once_each(ground.calm, places))
    wrong = [said for trial in done for said in trial.wrong]
    assert not wrong, "\n".join(wrong)
    assert sorted(places - {(trial.kill.point, trial.kill.moment) for trial in done if trial.killed}) == []


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.timeout(900)
def test_a_kill_at_any_point_changes_nothing(kind: str, name: str, grounds: Grounds) -> None:
    wrong = [said for trial in grounds(kind).trials(name) for said in trial.wrong]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.timeout(3_600)
def test_every_point_was_killed_at_both_moments(kind: str, grounds: Grounds) -> None:
    ground = grounds(kind)
    trials = [trial for name in SCENARIOS for trial in ground.trials(name)]
    done = [trial.kill for trial in trials if trial.killed]
    missed = [trial.kill for trial in trials if not trial.killed]
    print(f"{len(ground.wanted)} moments, {len(done)} kills, {len(missed)} not reached again: {missed}")
    assert sorted(ground.wanted - {(kill.point, kill.moment) for kill in done}) == []
