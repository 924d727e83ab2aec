"""Calls to servers: questions through the inbox, continuation before anything else."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.crash.outside import read
from tests.doubles import desk
from tests.doubles.worlds import ALLOW_ALL, SECOND
from tests.unit.runs.conftest import Make
from tests.unit.runs.ordering import (
    answer_all,
    asked,
    is_kept,
    moves,
    orders,
    say,
    session_of,
    works,
    world_with_desk,
)

from retinue.runs.capabilities import Caller
from retinue.runs.control import SessionQuery
from retinue.runs.journal import Record
from retinue.runs.sessions import SessionPolicy, SessionStatus

pytestmark = [pytest.mark.promise("D2", "D3", "D4")]


@pytest.mark.promise("B4")
@pytest.mark.parametrize("crash", [False, True])
async def test_questions_of_a_server_are_asked_and_answered_once(
    crash: bool, make_on_each: Make, tmp_path: Path
) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(orders, "a cup")
    value = await answer_all(world, run_id, crash)
    said = {"terms": None, "size": {"size": 3, "gift": True}, "colour": {"colour": "red"}}
    assert value == {"order": "a cup", "said": said}
    requests = await world.store.requests(open_only=False)
    assert sorted(request.asked["kind"] for request in requests) == ["form", "form", "url"]
    log = read(tmp_path)
    assert [line.text for line in log if line.what == "used"] == ["", ""], "a state for one use was used again"
    assert sum(line.what == "filed" for line in log) == 1
    waited = ("in_progress", "waiting_for_input"), ("waiting_for_input", "in_progress")
    assert await moves(world, run_id) == [(None, "in_progress"), *waited, *waited, ("in_progress", "closed")]


async def test_a_declined_question_reaches_the_server(make: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make, tmp_path)
    run_id = await world.submit(orders, "a cup")
    first, second = await asked(world)
    await say(world, first, {"action": "decline"})
    await say(world, second, {"action": "accept"})
    assert (await world.finish(run_id)).value == {"order": "a cup", "declined": ["size"]}


async def test_what_nobody_answers_in_time_is_canceled(make: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make, tmp_path)
    world.use(patience=world.services.defaults.patience.model_copy(update={"timeout": 60.0}))
    run_id = await world.submit(orders, "a cup")
    assert (await world.finish(run_id)).value == {"order": "a cup", "declined": ["size", "terms"]}


async def test_a_call_that_was_lost_is_told_again_what_was_answered(make_on_each: Make, tmp_path: Path) -> None:
    """The state was sent and its reply lost: the contract repeats the call, and nobody is asked again."""
    lost: list[str] = []

    async def forgetful(arguments: Any, caller: Any, link: Any) -> object:
        if link.resumption is not None and not lost:
            lost.append("once")
            desk.once(link.resumption)
            link.lost("the connection broke")
            raise desk.TransientError("the reply was lost", code="lost")
        return await desk.order(arguments, caller, link)

    tool = desk.remote("desk__order", forgetful, idempotency="idempotent")
    world = await world_with_desk(make_on_each, tmp_path, tool)
    run_id = await world.submit(orders, "a cup")
    value = await answer_all(world, run_id, crash=False)
    assert value["said"]["size"] == {"size": 3, "gift": True} and lost
    assert len(await world.store.requests(open_only=False)) == 3
    assert ("in_progress", "reinitialize_required") in await moves(world, run_id)


async def test_a_call_that_was_not_gone_on_with_keeps_what_it_goes_on_with(make_on_each: Make, tmp_path: Path) -> None:
    """The token is for one use and off the journal when the server cannot be reached: nothing was sent."""
    refused: list[str] = []

    async def unreachable(arguments: Any, caller: Any, link: Any) -> object:
        if link.resumption is not None and len(refused) < 2:
            refused.append("no connection")
            raise desk.TransientError("no connection", code="not_made")
        return await desk.order(arguments, caller, link)

    tool = desk.remote("desk__order", unreachable)
    world = await world_with_desk(make_on_each, tmp_path, tool)
    run_id = await world.submit(orders, "a cup")
    value = await answer_all(world, run_id, crash=True)
    assert value["said"]["size"] == {"size": 3, "gift": True} and len(refused) == 2
    assert len(await world.store.requests(open_only=False)) == 3
    assert [line.text for line in read(tmp_path) if line.what == "used"] == ["", ""]


async def test_a_state_that_runs_out_moves_the_session_and_costs_no_answer(make_on_each: Make, tmp_path: Path) -> None:
    """Expiry is a move of its own while the question waits; the answer is given to the call that is begun anew."""
    begun: list[str] = []

    async def short(arguments: Any, caller: Any, link: Any) -> object:
        result = await desk.order(arguments, caller, link)
        if isinstance(result, desk.Pause) and link.resumption is None:
            begun.append(caller.key)
            assert result.token is not None
            expires = world.clock.now + 60 * 10**9 if len(begun) == 1 else None
            return desk.Pause(result.questions, desk.Token(result.token.content, once=True, expires_at=expires))
        return result

    tool = desk.remote("desk__order", short, idempotency="idempotent")
    world = await world_with_desk(make_on_each, tmp_path, tool)
    run_id = await world.submit(orders, "a cup")
    assert len(await asked(world)) == 2
    assert await world.wait_out()
    await world.settle()
    found = await session_of(world)
    assert (found.status, found.cause, found.resumable) == (SessionStatus.reinitialize_required, "expired", False)
    assert len(await asked(world)) == 2, "the questions stay"
    await world.crash()
    await asked(world)
    assert (await session_of(world)).status is SessionStatus.reinitialize_required, "whoever owns the run"
    value = await answer_all(world, run_id, crash=False)
    assert value["said"]["size"] == {"size": 3, "gift": True} and len(begun) == 2
    assert len(await world.store.requests(open_only=False)) == 3


async def test_a_retried_run_asks_anew_in_a_session_of_its_own(make_on_each: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(orders, "a cup", deadline=world.clock.now + 60 * 10**9)
    assert len(await asked(world)) == 2
    assert await world.wait_out()
    assert (await world.finish(run_id)).reason == "deadline_exceeded"
    await world.retry(run_id)
    value = await answer_all(world, run_id, crash=True)
    assert value["said"]["size"] == {"size": 3, "gift": True}
    assert [one.number for one in await world.store.sessions(SessionQuery())] == [1, 0]


async def test_a_task_is_polled_by_the_next_owner_and_not_begun_again(make_on_each: Make, tmp_path: Path) -> None:
    async def brew(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        if link.resumption is None:
            desk.OUTSIDE.say("filed", caller.key, "desk__brew")
            await link.keep(desk.Token({"kind": "task", "task_id": "t1"}))
            await asyncio.Event().wait()
        return f"brewed by {link.resumption.token.content['task_id']}"

    world = await world_with_desk(make_on_each, tmp_path, desk.remote("desk__brew", brew))
    run_id = await world.submit(works, ["brew"])
    await world.until_journaled(run_id, lambda entries: any(is_kept(entry) for entry in entries))
    await world.crash()
    assert (await world.finish(run_id)).value == ["brewed by t1"]
    assert sum(line.what == "filed" for line in read(tmp_path)) == 1
    records = [e for e in await world.entries(run_id) if isinstance(e, Record)]
    dropped = [e.facts["cause"] for e in records if e.facts.get("event") == "dropped"]
    assert dropped == ["ended"], "a credential is not kept for longer than its call"
    assert (await moves(world, run_id))[1:3] == [("in_progress", "resumable"), ("resumable", "in_progress")]


@pytest.mark.promise("A5")
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_server_reaches_a_model_through_gate_budget_and_journal(
    allowed: bool, make: Make, tmp_path: Path
) -> None:
    policy = ALLOW_ALL if allowed else ALLOW_ALL + '@id("no") forbid (principal, action == Action::"model", resource);'
    world = await world_with_desk(make, tmp_path, policy=policy)
    world.decide({"answer": "it is blue", "usage": {"usd": "0.02", "input_tokens": 3, "output_tokens": 2}})
    run_id = await world.submit(works, ["think"])
    [said] = (await world.finish(run_id)).value
    usage = (await world.store.get(run_id)).usage
    if not allowed:
        assert said == {"action": "decline", "said": None} and usage.micros == 0
        return
    assert said["action"] == "accept" and "it is blue" in said["said"]
    assert (usage.micros, usage.steps) == (20_000, 1)
    assert [intent.effect for intent in await world.intents(run_id) if "!sampled:" in intent.key] == ["model"]


async def test_progress_is_told_once_a_second_and_a_hundred_times_at_most(make: Make, tmp_path: Path) -> None:
    async def counts(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        for number in range(1_000):
            world.clock.advance(0.5)
            link.progress(number, 1_000, "on its way")
        return "done"

    world = await world_with_desk(make, tmp_path, desk.remote("desk__note", counts, side_effect="read", timeout=9_999))
    run_id = await world.submit(works, ["note"])
    await world.finish(run_id)
    told = [e for e in await world.entries(run_id) if isinstance(e, Record) and e.topic == "progress"]
    assert len(told) == 100 and {later.at - e.at >= 10**9 for e, later in itertools.pairwise(told)} == {True}
    assert told[1].facts["total"] == 1_000 and told[1].content == {"message": "on its way"}
    world.use(sessions=SessionPolicy(emit_progress_events=False))
    quiet = await world.submit(works, ["note"])
    await world.finish(quiet)
    assert not [e for e in await world.entries(quiet) if isinstance(e, Record) and e.topic == "progress"]


async def test_a_server_that_never_stops_asking_is_given_up(make: Make, tmp_path: Path) -> None:
    async def asks(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        return desk.Pause((desk.form("size", "Again?", desk.SIZE),), desk.Token({"kind": "mrtr"}))

    world = await world_with_desk(make, tmp_path, desk.remote("desk__order", asks, side_effect="read"))
    run_id = await world.submit(works, ["order"])
    while open_ones := await asked(world):
        await say(world, open_ones[0], {"size": 1})
    assert (await world.finish(run_id)).value == ["PermanentError"]
    assert len(await world.store.requests(open_only=False)) == 32


@pytest.mark.rule("R9")
async def test_a_continuation_may_not_be_applied_after_the_deadline_that_is_on_record(
    make_on_each: Make, tmp_path: Path
) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    deadlines: list[int] = []
    make_call = world.services.gateway.execute

    async def execute(call: Any, caller: Caller, link: Any = None) -> Any:
        if link.resumption is not None:
            deadlines.append(caller.deadline)
        return await make_call(call, caller, link)

    world.services.gateway.execute = execute  # type: ignore[method-assign]
    run_id = await world.submit(orders, "a cup")
    await answer_all(world, run_id, crash=True)
    told = [each for each in await world.entries(run_id) if isinstance(each, Record) and each.topic == "continuation"]
    recorded = [each.facts["deadline"] for each in told if each.facts["event"] == "resumed"]
    assert len(recorded) == len(deadlines) == 2
    assert all(given <= known for given, known in zip(deadlines, recorded, strict=True))


@pytest.mark.promise("C4")
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("contract", ["at_most_once", "idempotent"])
async def test_a_task_that_can_be_polled_no_more_is_left_to_its_contract(
    make_on_each: Make, tmp_path: Path, contract: Any, crash: bool
) -> None:
    """The poll failed, and before the next one what it goes on with ran out: the write may have been made."""

    async def brew(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        if link.resumption is None:
            desk.OUTSIDE.say("filed", caller.key, "desk__brew")
            if desk.OUTSIDE.has("polled", "t1"):
                return "brewed again"
            await link.keep(desk.Token({"kind": "task", "task_id": "t1"}, expires_at=world.clock.now + SECOND))
            desk.OUTSIDE.say("polled", "t1", "desk__brew")
            raise desk.TransientError("the connection broke", code="lost", retry_after=60.0)
        return "brewed"

    world = await world_with_desk(make_on_each, tmp_path, desk.remote("desk__brew", brew, idempotency=contract))
    run_id = await world.submit(works, ["brew"])
    await world.settle()
    if crash:
        await world.crash()
    made = sum(line.what == "filed" for line in read(tmp_path))
    assert made == 1 and await world.wait_out()
    result = await world.finish(run_id)
    made = sum(line.what == "filed" for line in read(tmp_path))
    if contract == "idempotent":
        assert (result.value, made) == (["brewed again"], 2)
    else:
        assert (result.value, made) == (["SideEffectUnknown"], 1)
