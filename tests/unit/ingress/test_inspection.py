"""Where a run stands among the boundaries its target names, read from the journal alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.doubles.worlds import world
from tests.unit.runs import desks

from retinue.host.answers import output_of, result_of
from retinue.host.clock import now_ns
from retinue.ingress.inspection import Inspection, inspect_run
from retinue.ingress.verbs.inspect import shown
from retinue.runs.errors import InvalidInput
from retinue.store.sqlite import SqliteStore


@pytest.fixture(autouse=True)
def fresh() -> None:
    desks.forget()


def stands(seen: Inspection) -> list[tuple[str, int, bool]]:
    return [(one.name, one.passed, one.newest) for one in seen.boundaries]


@pytest.mark.promise("B1")
@pytest.mark.promise("C2")
async def test_inspect_names_the_boundaries_and_which_was_passed_last(tmp_path: Path) -> None:
    async with world("sqlite", tmp_path, desks.research) as made:
        assert isinstance(made.store, SqliteStore)
        desks.hold("slow")
        run_id = await made.submit(desks.research, "one, bad two, slow")
        assert stands(await inspect_run(made.store, run_id)) == []
        await made.until(lambda: "slow" in {what for _, what in desks.worked})
        while (seen := await inspect_run(made.store, run_id)).children[-1].pending > 1:
            turns = iter((False, True))
            await made.until(lambda turns=turns: next(turns))  # type: ignore[misc]
        assert stands(seen) == [("planned", 1, True), ("joined", 0, False)]
        text = shown(seen, now_ns())
        assert "boundary      planned: passed at position" in text and ", the newest (the plan is kept" in text
        assert "boundary      joined: not passed (the workers have ended" in text
        assert "children      clerk: 2 of 3 done, 1 failed, 0 waiting" in text
        desks.held["slow"].set()
        await made.finish(run_id)
        assert stands(await inspect_run(made.store, run_id)) == [("planned", 1, False), ("joined", 1, True)]


@pytest.mark.promise("B1")
async def test_a_boundary_that_is_passed_again_is_counted(tmp_path: Path) -> None:
    async with world("sqlite", tmp_path, desks.essay) as made:
        assert isinstance(made.store, SqliteStore)
        run_id = (await made.run(desks.essay, "text")).run_id
        seen = await inspect_run(made.store, run_id)
        assert stands(seen) == [("round", 2, True)]
        assert "round: passed 2 times, last at position" in shown(seen, now_ns())


@pytest.mark.promise("I6")
@pytest.mark.parametrize("back", [False, True])
async def test_what_was_erased_is_said_to_be(tmp_path: Path, back: bool) -> None:
    """Also where the tenant is `back` with a new key, to which the old words look damaged."""
    async with world("sqlite", tmp_path, desks.essay) as made:
        assert isinstance(made.store, SqliteStore)
        run_id = (await made.run(desks.essay, "text")).run_id
        assert await asyncio.to_thread(made.store._codec.vault.destroy, "acme")
        if back:
            kept = (await made.run(desks.essay, "text")).run_id
            assert not (await inspect_run(made.store, kept)).erased
            assert await made.store.inputs([run_id, kept]) == {run_id: None, kept: "text"}
        seen = await inspect_run(made.store, run_id)
        assert seen.erased and "gone with its tenant's key" in shown(seen, now_ns())
        branch = await made.store.result(run_id)
        assert branch is not None and branch.ok
        said = result_of(branch)
        assert (said["output"], said["erased"]) == (None, True)
        with pytest.raises(InvalidInput, match="was erased with its tenant's key"):
            output_of(desks.essay, branch)
