"""A write in doubt whose rollout was moved meanwhile: it is weighed at the stage that it is at when it is repeated."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.crash.outside import read
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make
from tests.unit.runs.ordering import ANSWERS, asked, orders, say, world_with_desk
from tests.unit.runs.test_rollouts import OPEN, Moved

from retinue.runs.context import Context
from retinue.runs.contracts import Branch, Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.rollouts import WHOLE
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("F4"), pytest.mark.promise("C4")]

SENT: list[str] = []
LOST: list[asyncio.Event] = []
NO_STOPPED = OPEN + (
    '@id("halt") @reason("it was stopped") forbid (principal, action == Action::"capability", resource)'
    ' when { context.rollout == "stopped" };'
)
ASK = OPEN + (
    '@id("ask") @outcome("approval") @reason("ask first") forbid (principal, action == Action::"capability",'
    ' resource == Capability::"put");'
)


async def _send(text: str) -> str:
    """The world outside: it takes what it is sent, and its first answer is never heard."""
    SENT.append(text)
    if LOST:
        await LOST.pop().wait()
    return "sent"


def absent(text: str, key: str) -> None:
    """It has never heard of it."""


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str) -> str:
    """Write what may be written again with the same key."""
    return await _send(text)


@tool(side_effect="write", idempotency="reconcilable", probe=absent, timeout=5)
async def file(text: str, *, key: str) -> str:
    """Write what can be asked about."""
    return await _send(text)


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str) -> str:
    """Write what a person has to look for."""
    return await _send(text)


@workflow
async def sends(ctx: Context, name: str) -> Any:
    return await ctx.call(name, text="a")


clerk = agent("clerk", "Works.", tools=[put, file, mail])
LEFT_TO_PEOPLE = OPEN + (
    '@id("doubt") @outcome("approval") @reason("look") forbid (principal, action == Action::"doubt",'
    ' resource == Capability::"mail");'
)


@pytest.fixture(autouse=True)
def fresh() -> None:
    SENT.clear()
    LOST[:] = [asyncio.Event()]


async def lost(make: Make, name: str, policy: str) -> tuple[World, Moved, str]:
    """A world in which a write was sent and its owner died before the answer came."""
    world = await make(sends, clerk, policy=policy)
    moved = Moved()
    world.use(rollouts=moved)
    run_id = await world.submit(sends, name)
    await world.until(lambda: SENT == ["a"])
    await world.crash()
    return world, moved, run_id


async def ended(world: World, run_id: str, name: str) -> Branch:
    if name == "mail":
        await world.answer(run_id, "absent")
    return await world.finish(run_id)


@pytest.mark.parametrize("name", ["put", "file", "mail"])
async def test_what_went_to_shadow_is_not_sent_again(make: Make, name: str) -> None:
    world, moved, run_id = await lost(make, name, LEFT_TO_PEOPLE)
    moved.set("capability", name, "shadow")
    result = await ended(world, run_id, name)
    assert SENT == ["a"] and result.reason is StopReason.side_effect_unknown
    assert "not made again" in result.problem and "is in shadow" in result.problem


@pytest.mark.parametrize("name", ["put", "file", "mail"])
async def test_what_was_stopped_is_sent_again_only_as_the_rules_say(make: Make, name: str) -> None:
    world, moved, run_id = await lost(make, name, NO_STOPPED + LEFT_TO_PEOPLE.removeprefix(OPEN))
    moved.set("capability", name, "stopped", at=world.clock(), by="ana", reason="it hurts")
    result = await ended(world, run_id, name)
    assert SENT == ["a"] and result.reason is StopReason.side_effect_unknown
    assert "not made again: it was stopped" in result.problem


@pytest.mark.parametrize("name", ["put", "file", "mail"])
@pytest.mark.parametrize(("share", "sent"), [(0, 1), (WHOLE, 2)])
async def test_what_went_to_canary_is_sent_again_for_its_share(make: Make, name: str, share: int, sent: int) -> None:
    world, moved, run_id = await lost(make, name, LEFT_TO_PEOPLE)
    moved.set("capability", name, "canary", share=share)
    result = await ended(world, run_id, name)
    assert len(SENT) == sent
    assert (result.status is Status.completed) is (sent == 2)
    assert sent == 2 or ("not made again" in result.problem and "in canary for 0 %" in result.problem)


async def test_what_is_out_for_all_is_sent_again(make: Make) -> None:
    world, moved, run_id = await lost(make, "put", OPEN)
    moved.set("capability", "put", "full")
    assert (await world.finish(run_id)).value == "sent" and SENT == ["a", "a"]


async def test_what_its_approver_changed_is_not_sent_again_in_shadow(make: Make) -> None:
    world = await make(sends, clerk, policy=ASK)
    moved = Moved()
    world.use(rollouts=moved)
    run_id = await world.submit(sends, "put")
    question = await world.asked(run_id)
    await world.store.resolve(question.request_id, "approved", "bob", world.clock(), {"arguments": {"text": "b"}})
    await world.until(lambda: SENT == ["b"])
    await world.crash()
    moved.set("capability", "put", "shadow")
    result = await world.finish(run_id)
    assert SENT == ["b"] and "is in shadow" in result.problem


@pytest.mark.parametrize(("stage", "why"), [("shadow", "is in shadow"), ("canary", "in canary for 0 %")])
async def test_a_call_that_waits_for_an_answer_is_not_continued_outside_its_rollout(
    make: Make, tmp_path: Path, stage: Any, why: str
) -> None:
    world = await world_with_desk(make, tmp_path)
    moved = Moved()
    world.use(rollouts=moved)
    run_id = await world.submit(orders, "a cup")
    requests = await asked(world)
    [called] = [each for each in await world.intents(run_id) if each.effect == "call"]
    moved.set("capability", called.name, stage, version="", share=0 if stage == "canary" else WHOLE)
    for request in requests:
        await say(world, request, ANSWERS["terms" if request.asked["kind"] == "url" else "size"])
    assert requests != []
    result = await world.finish(run_id)
    assert result.reason is StopReason.side_effect_unknown
    assert "was begun and is not continued" in result.problem and why in result.problem
    assert sum(line.what == "filed" for line in read(tmp_path)) == 0
