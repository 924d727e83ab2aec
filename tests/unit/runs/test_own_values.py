"""What a function does to the values it is given changes nothing in its journal."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runs.conftest import Make

from retinue.runs import replay
from retinue.runs.context import Context
from retinue.runs.definitions import agent, workflow
from retinue.runs.journal import Checkpoint, Outcome
from retinue.sessions.native import tool


@tool(side_effect="read")
async def numbers() -> list[int]:
    """Counts."""
    return [1, 2, 3]


counter = agent("counter", "Counts.", tools=[numbers])


@workflow
async def meddle(ctx: Context, given: dict[str, Any], state: dict[str, Any] | None) -> Any:
    state = state or {"turn": 0}
    found = await ctx.call("numbers")
    found.append(99)
    given["met"] = True
    state["turn"] += 1
    if state["turn"] < 3:
        await ctx.checkpoint("turn", state)
    return [found, given, state]


@pytest.mark.promise("B2")
@pytest.mark.parametrize("large", [False, True])
async def test_a_journal_holds_values_as_they_were_given(
    make_on_each: Make, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(replay, "LARGE", 1)
    world = await make_on_each(meddle, counter)
    run_id = await world.submit(meddle, {"a": 1})
    branch = await world.finish(run_id)
    assert branch.value == [[1, 2, 3, 99], {"a": 1, "met": True}, {"turn": 3}]
    entries = await world.entries(run_id)
    assert [entry.content for entry in entries if isinstance(entry, Outcome)] == [[1, 2, 3]] * 3
    assert [entry.content for entry in entries if isinstance(entry, Checkpoint)] == [{"turn": 1}, {"turn": 2}]
