"""A minute of chaos on a real runtime, with another seed each time; `make chaos` is ten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, chaos
from tests.chaos.stores import Kind
from tests.chaos.summary import tell


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
@pytest.mark.timeout(600)
@pytest.mark.promise("A7", "B2", "B5", "C3", "C6", "I3")
@pytest.mark.rule("R8", "R9", "R10", "R14")
async def test_a_minute_of_chaos_leaves_nothing_for_the_judge(
    kind: Kind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        request.getfixturevalue("postgres")  # is it installed? chaos starts and stops one of its own
    seed = random.SystemRandom().randrange(2**31)
    plan = Plan(60, seed, faults=tuple(FAULTS[kind]), measure=False, store=kind)
    history, told = await chaos(plan, tmp_path / "chaos")
    said = tell(history, told)
    print(said)
    assert not told.findings, said
    assert told.rounds and history.waves, "nothing happened"
