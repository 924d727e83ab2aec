"""A minute of chaos on a real runtime, with another seed each time; `make chaos` is ten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, chaos
from tests.chaos.summary import tell


@pytest.mark.timeout(600)
@pytest.mark.promise("A7", "B2", "B5", "C3", "C6", "I3")
@pytest.mark.rule("R8", "R9", "R10", "R14")
async def test_a_minute_of_chaos_leaves_nothing_for_the_judge(tmp_path: Path) -> None:
    plan = Plan(seconds=60, seed=random.SystemRandom().randrange(2**31), faults=tuple(FAULTS), measure=False)
    history, told = await chaos(plan, tmp_path / "chaos")
    said = tell(history, told)
    print(said)
    assert not told.findings, said
    assert told.rounds and history.waves, "nothing happened"
