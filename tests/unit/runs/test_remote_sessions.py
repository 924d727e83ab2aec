"""Sessions with servers as state of the run: on record, moved by what happens, closed with the run or by a person."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.crash.outside import read
from tests.doubles import desk
from tests.unit.runs.conftest import Make
from tests.unit.runs.ordering import (
    ASK_ABOUT_NOTES,
    answer_all,
    asked,
    moves,
    orders,
    pages,
    session_of,
    works,
    world_with_desk,
)

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.control import SessionQuery
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError
from retinue.runs.sessions import MOVES, SessionPolicy, SessionStatus

pytestmark = [pytest.mark.promise("D2", "D3", "D4")]


async def test_a_session_is_a_record_with_all_that_is_known(make_on_each: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(orders, "a cup")
    await asked(world)
    found = await session_of(world)
    assert (found.run_id, found.root_run_id, found.tenant_id, found.trace_id) == (run_id, run_id, "acme", "7" * 32)
    assert (found.server, found.transport, found.protocol, found.pins) == ("desk", "http", "2026-07-28", "p1")
    assert (found.status, found.cause, found.resumable) == (SessionStatus.waiting_for_input, "asked", True)
    assert await world.store.session(found.session_id[-8:]) == found
    await answer_all(world, run_id, crash=False)
    ended = await session_of(world)
    assert (ended.status, ended.cause, ended.resumable) == (SessionStatus.closed, "the run ended", False)
    assert ended.closed_at == ended.changed_at and await world.store.sessions(SessionQuery(open_only=True)) == []


async def test_a_run_that_is_canceled_while_it_waits_closes_its_sessions(make_on_each: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(orders, "a cup")
    await asked(world)
    await world.store.cancel(run_id, "ben", world.clock())
    assert (await session_of(world)).status is SessionStatus.closed
    assert (await moves(world, run_id))[-1] == ("waiting_for_input", "closed")
    assert (await world.store.get(run_id)).status is Status.canceled
    entries = await world.entries(run_id)
    assert entries[-1].kind == "finished" and (await world.store.get(run_id)).position == len(entries)


async def test_a_session_waits_with_its_call_for_our_own_approval(make_on_each: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make_on_each, tmp_path, policy=ASK_ABOUT_NOTES)
    run_id = await world.submit(works, ["note"])
    [request] = await asked(world)
    found = await session_of(world)
    assert (found.status, found.approval) == (SessionStatus.waiting_for_approval, "pending")
    await world.store.resolve(request.request_id, "approved", "ben", world.clock(), None)
    assert (await world.finish(run_id)).value == ["noted it"]
    assert (await session_of(world)).approval == "approved"
    steps = [(None, "in_progress"), ("in_progress", "waiting_for_approval"), ("waiting_for_approval", "in_progress")]
    assert (await moves(world, run_id))[:3] == steps


async def test_who_closes_a_session_ends_its_open_call_and_the_next_begins_anew(
    make_on_each: Make, tmp_path: Path
) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(works, ["order", "note"])
    await asked(world)
    found = await session_of(world)
    await world.store.close_session(found.session_id[-10:], "ben", world.clock())
    assert (await world.finish(run_id)).value == ["SideEffectUnknown", "noted it"]
    newest, first = await world.store.sessions(SessionQuery())
    assert (first.session_id, first.cause) == (found.session_id, "closed by ben")
    assert (newest.number, newest.status, newest.cause) == (1, SessionStatus.closed, "the run ended")
    with pytest.raises(Exception, match="is closed already"):
        await world.store.close_session(found.session_id, "ben", world.clock())


async def test_sessions_outlive_checkpoints_and_crashes(make_on_each: Make, tmp_path: Path) -> None:
    world = await world_with_desk(make_on_each, tmp_path)
    run_id = await world.submit(pages, 3)
    await world.until(lambda: any(line.text == "page 1" for line in read(tmp_path)))
    await world.crash()
    assert (await world.finish(run_id)).value == 3
    assert len(await world.store.sessions(SessionQuery())) == 1


@pytest.mark.parametrize("tracked", [True, False])
async def test_the_id_of_the_wire_is_kept_only_where_it_is_tracked(tracked: bool, make: Make, tmp_path: Path) -> None:
    async def with_id(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE.model_copy(update={"session_id": "wire-7"}))
        return "done"

    world = await world_with_desk(make, tmp_path, desk.remote("desk__note", with_id, side_effect="read"))
    world.use(sessions=SessionPolicy(track_session_ids=tracked))
    run_id = await world.submit(works, ["note"])
    assert (await world.finish(run_id)).value == ["done"]
    assert (await session_of(world)).wire_session_id == ("wire-7" if tracked else None)
    assert ("wire-7" in str(await world.entries(run_id))) is tracked


async def test_without_new_beginnings_a_lost_session_fails_its_calls_until_it_is_closed(
    make: Make, tmp_path: Path
) -> None:
    async def breaks(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        link.lost("the server forgot us")
        raise desk.TransientError("gone", code="lost")

    world = await world_with_desk(make, tmp_path, desk.remote("desk__note", breaks, side_effect="read"))
    world.use(sessions=SessionPolicy(support_reinit_on_expiry=False))
    run_id = await world.submit(works, ["note"])
    assert (await world.finish(run_id)).value == ["PermanentError"]
    [ended] = [outcome for outcome in await world.outcomes(run_id) if outcome.effect == "call"]
    assert ended.error is not None and ended.error.code == "reinitialize_required"
    assert "the server forgot us" in ended.error.message


async def test_other_tools_than_were_approved_are_a_new_beginning_whatever_is_kept(make: Make, tmp_path: Path) -> None:
    async def changed(arguments: Any, caller: Any, link: Any) -> object:
        link.opened(desk.WIRE)
        link.lost("pins_changed")
        raise PermanentError("the tool is another one", code="pin_changed")

    tools = (desk.ORDER, desk.remote("desk__note", changed, side_effect="read"))

    @workflow
    async def both(ctx: Context, _: Any) -> list[Any]:
        done = await asyncio.gather(
            ctx.call("desk__order", text="a"), ctx.call("desk__note", text="b"), return_exceptions=True
        )
        return [type(each).__name__ for each in done]

    world = await world_with_desk(make, tmp_path, *tools)
    world.redefine(both)
    run_id = await world.submit(both, None)
    assert len(await asked(world)) == 2
    found = await session_of(world)
    assert (found.status, found.cause, found.resumable) == (
        SessionStatus.reinitialize_required,
        "pins_changed",
        True,
    )
    await answer_all(world, run_id, crash=False)
    assert ("reinitialize_required", "in_progress") in await moves(world, run_id)


async def test_two_calls_of_one_session_are_one_session(make: Make, tmp_path: Path) -> None:
    @workflow
    async def both(ctx: Context, _: Any) -> list[Any]:
        return list(await asyncio.gather(ctx.call("desk__order", text="a"), ctx.call("desk__note", text="b")))

    world = await world_with_desk(make, tmp_path, policy=ASK_ABOUT_NOTES)
    world.redefine(both)
    run_id = await world.submit(both, None)
    open_ones = await asked(world)
    found = await session_of(world)
    assert found.status is SessionStatus.waiting_for_approval, "an approval is more urgent than a question"
    approval = next(request for request in open_ones if request.kind == "approval")
    await world.store.resolve(approval.request_id, "approved", "ben", world.clock(), None)
    await world.settle()
    assert (await session_of(world)).status is SessionStatus.waiting_for_input
    await answer_all(world, run_id, crash=False)
    for before, after in await moves(world, run_id):
        assert before is None or SessionStatus(after) in MOVES[SessionStatus(before)]
    assert len(await world.store.sessions(SessionQuery())) == 1
