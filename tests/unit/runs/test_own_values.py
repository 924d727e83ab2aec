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


LONG = 10**4_999
ODD: dict[Any, Any] = {"name": "a\udcff", "big": float("inf"), "long": LONG, 1: ("one", {2: "\ud800"})}
READ: dict[str, Any] = {"name": "a\udcff", "big": float("inf"), "long": LONG, "1": ["one", {"2": "\ud800"}]}
given_to: list[list[bool]] = []


def odd() -> dict[Any, Any]:
    """What Python has and strict JSON does not."""
    return ODD


@workflow
async def keep(ctx: Context, given: Any, state: Any) -> Any:
    found = await ctx.step(odd)
    if state is None:
        await ctx.checkpoint("odd", ODD)
    given_to.append([found == READ, state == READ])
    await ctx.sleep(3_600)
    return found


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


@pytest.mark.promise("B2")
async def test_odd_values_are_the_same_live_and_on_replay(make_on_each: Make) -> None:
    world = await make_on_each(keep, counter)
    given_to.clear()
    branch = await world.run(keep)
    assert branch.ok, branch.error
    assert branch.value == READ
    assert given_to == [[True, True]] * 2, "once live, once on replay"
