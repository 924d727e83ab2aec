"""A write that may have happened: the policy says who resolves it, and nothing is written twice in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.worlds import ALLOW_ALL, World
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, TransientError
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("C4")]

CALLS_ONLY = """
@id("rest") permit (principal, action, resource) unless { action == Action::"doubt" };
"""
"""No rule speaks of doubts: the contracts decide, and a person where they cannot."""


class Desk:
    """The world outside: tickets by key; `cut` makes the reply get lost, `blind` makes the probe fail, `refuse` is
    raised before anything is written, `bug` after it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.tickets: list[str] = []
        self.cut = self.blind = self.hold = False
        self.refuse: list[Exception] = []
        self.bug: list[Exception] = []


desk = Desk()


@pytest.fixture(autouse=True)
def fresh() -> None:
    desk.reset()


async def _open(key: str) -> str:
    if desk.refuse:
        raise desk.refuse.pop()
    desk.tickets.append(key)
    if desk.bug:
        raise desk.bug.pop()
    if desk.hold:
        await asyncio.Event().wait()
    if desk.cut:
        desk.cut = False
        raise TransientError("the reply was lost")
    return f"ticket {len(desk.tickets)}"


def find(subject: str, key: str) -> str | None:
    if desk.blind:
        raise TransientError("the desk does not answer")
    return "ticket found" if key in desk.tickets else None


@tool(side_effect="write", idempotency="at_most_once")
async def mail(subject: str, *, key: str) -> str:
    """At most once."""
    return await _open(key)


@tool(side_effect="write", idempotency="reconcilable", probe=find, timeout=20)
async def file(subject: str, *, key: str) -> str:
    """Reconcilable."""
    return await _open(key)


@tool(side_effect="write", idempotency="idempotent")
async def put(subject: str, *, key: str) -> str:
    """Idempotent."""
    return await _open(key)


keeper = agent("keeper", "Keeps.", tools=[mail, file, put])


@workflow
async def act(ctx: Context, name: str) -> Any:
    return await ctx.call(name, subject="broken printer")


@workflow
async def once(ctx: Context, _: None) -> Any:
    return await ctx.step(_open, "paper", repeatable=False)


async def crashed(world: World, name: str) -> str:
    """A run whose owner died while the write was being made."""
    desk.hold = True
    run_id = await world.submit(act, name)
    await world.until(lambda: len(desk.tickets) == 1)
    await world.crash()
    desk.hold = False
    return run_id


@pytest.mark.parametrize(
    ("said", "status", "value", "tickets"),
    [
        ("happened", Status.completed, None, 1),
        ({"happened": "ticket 7"}, Status.completed, "ticket 7", 1),
        ("absent", Status.completed, "ticket 2", 2),
        ("fail", Status.failed, None, 1),
        ("no idea", Status.failed, None, 1),
    ],
)
async def test_a_person_says_whether_it_happened(
    make_on_each: Make, said: Any, status: Status, value: Any, tickets: int
) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    run_id = await crashed(world, "mail")
    request = await world.asked(run_id)
    assert "mail may have happened" in request.prompt and request.facts["doubt"] == "mail"
    assert "subject='broken printer'" in request.prompt
    record = await world.store.get(run_id)
    assert (record.status, record.reason) == (Status.waiting_for_input, StopReason.side_effect_unknown)
    await world.answer(run_id, said)
    result = await world.finish(run_id)
    assert (result.status, result.value) == (status, value)
    assert len(desk.tickets) == tickets and len(set(desk.tickets)) == 1
    if status is Status.failed:
        assert result.reason is StopReason.side_effect_unknown


async def test_a_doubt_is_an_observation_of_its_own(make: Make) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    run_id = await crashed(world, "mail")
    await world.asked(run_id)
    seen = [e for e in await world.entries(run_id) if e.kind == "record" and e.topic == "observation"]
    assert [(e.facts["name"], e.facts["result"]) for e in seen] == [("side_effect_unknown", "unknown")]


async def test_a_reply_that_is_lost_live_is_in_doubt_too(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.cut = True
    run_id = await world.submit(act, "mail")
    assert "the reply was lost" in (await world.asked(run_id)).prompt
    await world.crash()
    await world.answer(run_id, {"happened": "ticket 1"})
    assert (await world.finish(run_id)).value == "ticket 1" and len(desk.tickets) == 1


async def test_a_lost_reply_of_a_reconcilable_write_is_probed_when_it_can_not_take_effect_any_more(make: Make) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    desk.cut = True
    result = await world.run(act, "file")
    assert result.value == "ticket found" and len(desk.tickets) == 1


async def test_where_the_probe_fails_a_person_is_asked(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.blind = True
    run_id = await crashed(world, "file")
    await world.settle()
    assert await world.wait_out()
    assert "the probe of file failed" in (await world.asked(run_id)).prompt
    await world.answer(run_id, "absent")
    assert (await world.finish(run_id)).value == "ticket 2" and len(set(desk.tickets)) == 1


async def test_rules_may_ask_a_person_where_the_contract_would_do(make: Make) -> None:
    rule = '@id("ask") @outcome("approval") forbid (principal, action == Action::"doubt", resource);'
    world = await make(act, keeper, policy=f"{ALLOW_ALL}\n{rule}")
    run_id = await crashed(world, "put")
    await world.answer(run_id, "absent")
    assert (await world.finish(run_id)).value == "ticket 2" and len(set(desk.tickets)) == 1


async def test_rules_may_forbid_any_repetition(make: Make) -> None:
    rule = (
        '@id("never") forbid (principal, action == Action::"doubt", resource)'
        ' when { context has idempotency && context.idempotency == "idempotent" };'
    )
    world = await make(act, keeper, policy=f"{ALLOW_ALL}\n{rule}")
    run_id = await crashed(world, "put")
    result = await world.finish(run_id)
    assert result.reason is StopReason.side_effect_unknown and len(desk.tickets) == 1


async def test_an_absent_says_nothing_of_the_try_that_followed_it(make_on_each: Make) -> None:
    """That one's reply is lost too, or its owner dies: the person is asked about it anew."""
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    run_id = await crashed(world, "mail")
    first = await world.asked(run_id)
    desk.cut = True
    await world.answer(run_id, "absent")
    second = await world.asked(run_id)
    assert len(desk.tickets) == 2 and second.request_id != first.request_id
    desk.hold = True
    await world.answer(run_id, "absent")
    await world.until(lambda: len(desk.tickets) == 3)
    await world.crash()
    desk.hold = False
    assert (await world.asked(run_id)).request_id not in (first.request_id, second.request_id)
    assert len(desk.tickets) == 3
    await world.answer(run_id, {"happened": "ticket 3"})
    assert (await world.finish(run_id)).value == "ticket 3" and len(desk.tickets) == 3


async def test_an_absent_of_a_step_says_nothing_of_the_try_that_followed_it(make_on_each: Make) -> None:
    world = await make_on_each(once)
    desk.hold = True
    run_id = await world.submit(once)
    await world.until(lambda: len(desk.tickets) == 1)
    await world.crash()
    await world.answer(run_id, "absent")
    await world.until(lambda: len(desk.tickets) == 2)
    await world.crash()
    desk.hold = False
    await world.asked(run_id)
    assert len(desk.tickets) == 2


@pytest.mark.parametrize("name", ["mail", "file", "put"])
async def test_what_was_surely_not_made_is_tried_again_under_every_contract(make: Make, name: str) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    desk.refuse = [TransientError("the desk is busy", code="not_made", retry_after=90)]
    result = await world.run(act, name)
    assert (result.value, len(desk.tickets)) == ("ticket 1", 1)
    assert not [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "observation"]


async def test_a_write_that_raised_what_nobody_foresaw_is_in_doubt(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.bug = [ConnectionResetError("the line is gone")]
    run_id = await world.submit(act, "mail")
    assert "raised ConnectionResetError: the line is gone" in (await world.asked(run_id)).prompt
    await world.answer(run_id, {"happened": "ticket 1"})
    assert (await world.finish(run_id)).value == "ticket 1" and len(desk.tickets) == 1


async def test_a_reconcilable_write_that_raised_is_probed(make: Make) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    desk.bug = [ConnectionResetError("the line is gone")]
    result = await world.run(act, "file")
    assert result.value == "ticket found" and len(desk.tickets) == 1


async def test_a_write_that_was_refused_is_an_error_and_no_doubt(make: Make) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    desk.refuse = [PermanentError("no such customer", code="refused")]
    result = await world.run(act, "mail")
    assert (result.reason, len(desk.tickets)) == (StopReason.tool_failure, 0)


async def test_an_idempotent_write_whose_tries_are_used_up_is_in_doubt(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.bug = [TransientError("the desk is away") for _ in range(3)]
    run_id = await world.submit(act, "put")
    for _ in range(2):
        await world.settle()
        await world.wait_out()
    assert "its tries are used up" in (await world.asked(run_id)).prompt
    await world.crash()
    await world.answer(run_id, {"happened": "ticket 1"})
    result = await world.finish(run_id)
    assert result.value == "ticket 1" and len(set(desk.tickets)) == 1


def not_made() -> TransientError:
    return TransientError("the desk is busy", code="not_made")


@pytest.mark.parametrize("name", ["mail", "file", "put"])
async def test_tries_that_are_used_up_and_were_surely_not_made_are_an_error_and_no_doubt(make: Make, name: str) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    desk.refuse = [not_made() for _ in range(3)]
    result = await world.run(act, name)
    assert (result.reason, desk.tickets) == (StopReason.tool_failure, [])
    assert result.error is not None and result.error.code == "not_made"
    assert not [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "observation"]


async def test_one_try_that_may_have_been_made_leaves_the_doubt_though_the_others_were_not(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.cut = True
    run_id = await world.submit(act, "put")
    await world.settle()
    desk.refuse = [not_made() for _ in range(2)]
    await world.crash()
    await world.wait_out()
    await world.settle()
    await world.wait_out()
    assert "its tries are used up" in (await world.asked(run_id)).prompt
    assert desk.refuse == [] and len(desk.tickets) == 1


async def test_a_try_that_a_crash_cut_off_may_have_been_made_whatever_became_of_the_later_ones(make: Make) -> None:
    world = await make(act, keeper, policy=CALLS_ONLY)
    run_id = await crashed(world, "put")
    desk.refuse = [not_made() for _ in range(3)]
    for _ in range(2):
        await world.settle()
        await world.wait_out()
    assert "its tries are used up" in (await world.asked(run_id)).prompt
    await world.answer(run_id, "fail")
    assert (await world.finish(run_id)).reason is StopReason.side_effect_unknown
    desk.refuse = [not_made() for _ in range(3)]
    await world.retry(run_id)
    for _ in range(3):  # the breaker has opened meanwhile
        await world.settle()
        await world.wait_out()
    assert "its tries are used up" in (await world.asked(run_id)).prompt
    assert desk.refuse == [] and len(desk.tickets) == 1


@pytest.mark.parametrize("name", ["put", "mail"])
async def test_a_repeat_that_fails_for_good_leaves_the_doubt_about_the_try_before(
    make_on_each: Make, name: str
) -> None:
    world = await make_on_each(act, keeper, policy=CALLS_ONLY)
    desk.cut = name == "put"
    if name == "mail":
        desk.refuse = [not_made()]
    run_id = await world.submit(act, name)
    await world.settle()
    desk.refuse = [PermanentError("this key has expired", code="refused")]
    await world.wait_out()
    if name == "mail":  # nothing was made: the error is all there is
        assert (await world.finish(run_id)).reason is StopReason.tool_failure
        return
    assert "this key has expired, and an earlier try may have been made" in (await world.asked(run_id)).prompt
    await world.answer(run_id, "fail")
    assert (await world.finish(run_id)).reason is StopReason.side_effect_unknown
    assert desk.refuse == [] and len(desk.tickets) == 1
