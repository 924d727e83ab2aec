"""The gate is asked again before a call goes on: one that waits on a server, and one that was cut off by a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.crash.outside import read
from tests.doubles.worlds import ALLOW_ALL, World
from tests.unit.runs.conftest import Make
from tests.unit.runs.ordering import ANSWERS, asked, orders, say, works, world_with_desk

from retinue.policy.load import load_gate
from retinue.runs.context import Context
from retinue.runs.contracts import NOTHING, Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("F1")]

SHUT = ALLOW_ALL + '@id("shut") @reason("we are closed") forbid (principal, action == Action::"capability", resource);'
looks: list[str] = []
hanging: list[asyncio.Event] = []


@tool(side_effect="read")
async def look(at: str) -> str:
    """Looks; hangs while it is told to."""
    looks.append(at)
    if hanging:
        await hanging.pop().wait()
    return at


@tool(side_effect="write", idempotency="idempotent")
async def put(at: str, *, key: str) -> str:
    """Puts; hangs while it is told to."""
    looks.append(at)
    if hanging:
        await hanging.pop().wait()
    return at


@workflow
async def goes(ctx: Context, what: str) -> str:
    return str(await ctx.call(what, at="shelf"))


clerk = agent("clerk", "Works.", tools=[look, put])


def shut(world: World) -> None:
    """From now on no capability may be called."""
    (world.folder / "policy/rules.cedar").write_text(SHUT)
    gate = load_gate(world.folder / "policy")
    known = world.services.gateway
    assert isinstance(known, CapabilityGateway)
    world.use(gate=gate, gateway=CapabilityGateway(known._catalog, gate, clock=world.clock))


async def test_a_call_that_waits_for_an_answer_is_not_continued_against_the_rules(
    make_on_each: Make, tmp_path: Path
) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(orders, "a cup")
    requests = await asked(world)
    await world.crash()
    shut(world)
    for request in requests:
        await say(world, request, ANSWERS["terms" if request.asked["kind"] == "url" else "size"])
    ended = await world.finish(run_id)
    assert ended.reason is StopReason.side_effect_unknown
    assert "was begun and is not continued" in ended.problem and "we are closed" in ended.problem
    assert sum(line.what == "filed" for line in read(tmp_path)) == 0


@pytest.mark.parametrize(("what", "reason"), [("look", "policy_denied"), ("put", "side_effect_unknown")])
async def test_a_call_that_a_crash_cut_off_is_not_made_again_against_the_rules(
    make_on_each: Make, what: str, reason: str
) -> None:
    looks.clear()
    world = await make_on_each(goes, clerk)
    hanging.append(asyncio.Event())
    run_id = await world.submit(goes, what)
    await world.until(lambda: bool(looks))
    for execution in world.active.values():
        execution.flush()
        await execution.write()
    await world.crash()
    shut(world)
    ended = await world.finish(run_id)
    assert (ended.status, ended.reason, looks) == (Status.failed, reason, ["shelf"])
    assert "we are closed" in ended.problem


@pytest.mark.promise("A5")
async def test_what_is_held_for_the_model_of_a_call_that_is_given_up_is_let_go_of(
    make_on_each: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    world.decide({"answer": "it is blue", "usage": {"usd": "0.02", "input_tokens": 3, "output_tokens": 2}})
    asked_model: list[str] = []

    async def hangs(*_: Any) -> None:
        asked_model.append("it")
        await asyncio.Event().wait()

    monkeypatch.setattr(type(world.services.models), "complete", hangs)
    run_id = await world.submit(works, ["think"])
    await world.until(lambda: bool(asked_model))
    for execution in world.active.values():
        await execution.write()
    await world.crash()
    shut(world)
    ended = await world.finish(run_id)
    assert ended.reason is StopReason.policy_denied
    [sampled] = [one for one in await world.intents(run_id) if "!sampled:" in one.key]
    [cut] = [one for one in await world.outcomes(run_id) if one.key == sampled.key]
    assert (cut.result, cut.usage) == ("canceled", sampled.reserved if sampled.reserved.micros else NOTHING)
    assert ended.usage.micros == sampled.reserved.micros, "nobody knows what it cost, and it is counted once"
