"""Adopted functions: what they ask for is a step of the run, done once, under its budget and its policy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import ended
from tests.unit.runs.adopting import (
    ASK_FIRST,
    NO_MODEL,
    NO_PUT,
    build,
    forget,
    holder,
    keeps,
    outside,
    post,
    put,
    say,
)
from tests.unit.runs.conftest import Make
from tests.unit.runs.test_money import watch

from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Json, Status
from retinue.runs.definitions import workflow
from retinue.runs.doors import Doors, DoorsClosed
from retinue.runs.errors import (
    InvalidInput,
    PermanentError,
    PolicyDenied,
    RunError,
    TransientError,
    UnknownName,
)
from retinue.runs.history import fold
from retinue.runs.ports import RetryPolicy

pytestmark = pytest.mark.promise("K4")


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


async def test_its_requests_are_steps_of_the_run(make_on_each: Make) -> None:
    async def told(doors: Doors) -> Json:
        return [await say(doors, "why?"), await doors.call(put, text="a"), await doors.call("put", text="a")]

    world = await build(make_on_each, told)
    result = await world.run(keeps, {"n": 1})
    assert result.value == ["42", "put a", "put a"]
    assert (result.usage.steps, result.usage.hops, result.usage.micros) == (1, 2, 10_000)
    outer, model, first, second = await world.intents(result.run_id)
    assert (outer.key, outer.effect, outer.content) == ("0/function#0", "adopt", [{"n": 1}])
    assert [intent.effect for intent in (model, first, second)] == ["model", "call", "call"]
    assert all(intent.key.startswith("0/function#0!") for intent in (model, first, second))
    assert (first.digest, first.key[:-1], first.key[-2:], second.key[-2:]) == (
        second.digest,
        second.key[:-1],
        "#0",
        "#1",
    )
    assert len(set(outside.keys)) == 2
    outcomes = await world.outcomes(result.run_id)
    assert [outcome.activation for outcome in outcomes] == [0, 0, 0, 1]
    assert outcomes[-1].facts == {"asked": 3, "replayed": 0}


async def test_after_a_crash_what_has_ended_is_neither_paid_nor_done_again(make_on_each: Make) -> None:
    async def told(doors: Doors) -> Json:
        said = await say(doors, "why?")
        wrote = await doors.call(put, text=said)
        if outside.starts == 1:
            outside.written.append("stuck")
            await asyncio.Event().wait()
        return [wrote, await say(doors, "and then?")]

    world = await build(make_on_each, told)
    witness = watch(world)
    run_id = await world.submit(keeps)
    await world.until(lambda: "stuck" in outside.written)
    await world.crash()
    result = await world.finish(run_id)
    assert result.value == ["put 42", "42"]
    assert (outside.starts, len(witness.seen), outside.written) == (2, 2, ["42", "stuck"])
    assert (result.usage.steps, result.usage.hops, result.usage.micros) == (2, 1, 20_000)
    assert [outcome.facts for outcome in await world.outcomes(run_id)][-1] == {"asked": 3, "replayed": 2}
    assert len(set(outside.tokens)) == 2


async def test_a_paid_call_that_a_crash_cut_off_is_charged_and_made_again(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return await say(doors, "why?")

    world = await build(make, told)
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(keeps)
    await world.until(lambda: len(witness.seen) == 1)
    await world.crash()
    witness.stuck = False
    result = await world.finish(run_id)
    assert (result.value, result.usage.micros, result.usage.steps) == ("42", 20_000, 2)


async def test_what_was_cut_off_and_is_not_asked_for_again_is_spent_or_unknown(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        if outside.starts == 1:
            outside.hold = True
            await asyncio.gather(say(doors, "first"), doors.call("mail", text="x"))
        outside.hold = False
        return "another way"

    world = await build(make, told)
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(keeps)
    await world.until(lambda: bool(outside.written and witness.seen))
    await world.crash()
    result = await world.finish(run_id)
    assert (result.value, result.usage.micros) == ("another way", 10_000)
    lost = {outcome.effect: outcome.result for outcome in await world.outcomes(run_id)}
    assert lost == {"call": "unknown", "model": "canceled", "adopt": "ok"}


async def test_an_interrupted_write_is_unknown_to_the_next_call_of_the_function(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        outside.hold = outside.starts == 1
        return await doors.call("mail", text="x")

    world = await build(make, told)
    run_id = await world.submit(keeps)
    await world.until(lambda: bool(outside.written))
    await world.crash()
    result = await world.finish(run_id)
    assert ended(result) == (Status.failed, "side_effect_unknown") and outside.written == ["x"]


async def test_the_budgets_end_is_the_runs_end_though_the_function_makes_light_of_it(make_on_each: Make) -> None:
    async def told(doors: Doors) -> Json:
        await say(doors, "one")
        refused = await post(doors, "two")
        outside.written.append(f"{refused.status_code} {refused.json()['error']['code']}")
        try:
            await doors.call(put, text="not this")
        except RunError as error:
            outside.written.append(error.reason)
        return "never mind"

    world = await build(make_on_each, told)
    world.use(retry=RetryPolicy(in_memory=10.0))
    result = await world.run(keeps, budget=Budget(usd="0.015"))
    assert ended(result) == (Status.failed, "budget_exhausted") and result.usage.micros == 10_000
    assert outside.written == ["402 budget_exhausted", "budget_exhausted"]


async def test_a_function_that_goes_on_without_a_budget_is_stopped(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        while True:
            await post(doors, "more")

    world = await build(make, told)
    result = await world.run(keeps, budget=Budget(steps=3))
    assert ended(result) == (Status.failed, "budget_exhausted") and result.usage.steps == 3


async def test_a_denial_is_an_error_that_the_function_sees(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        try:
            await doors.call(put, text="a")
        except PolicyDenied as error:
            return str(error)
        return "done"

    world = await build(make, told, policy=NO_PUT)
    result = await world.run(keeps)
    assert "not today" in result.value and outside.written == []


async def test_a_denied_model_is_a_403_that_says_why(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        refused = await post(doors, "why?")
        return [refused.status_code, refused.headers["x-should-retry"], refused.json()["error"]]

    world = await build(make, told, policy=NO_MODEL)
    status, again, error = (await world.run(keeps)).value
    assert (status, again, error["code"]) == (403, "false", "policy_denied") and "no thinking" in error["message"]


async def test_a_denial_that_it_lets_through_ends_the_run_as_one(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return await doors.call(put, text="a")

    world = await build(make, told, policy=NO_PUT)
    assert ended(await world.run(keeps)) == (Status.failed, "policy_denied")


@pytest.mark.promise("F3")
@pytest.mark.parametrize(("status", "written"), [("approved", ["a"]), ("denied", [])])
async def test_while_a_person_is_asked_nothing_is_held(make_on_each: Make, status: str, written: list[str]) -> None:
    async def told(doors: Doors) -> Json:
        said = await say(doors, "may I?")
        return [said, await doors.call(put, text="a")]

    world = await build(make_on_each, told, policy=ASK_FIRST)
    witness = watch(world)
    run_id = await world.submit(keeps)
    await world.settle()
    record = await world.store.get(run_id)
    assert (record.status, world.active) == (Status.waiting_for_approval, {})
    [request] = await world.store.requests()
    assert "ask first" in request.prompt and outside.written == []
    await world.store.resolve(request.request_id, status, "bob", START, None)
    result = await world.finish(run_id)
    assert (outside.starts, len(witness.seen), outside.written) == (2, 1, written)
    assert ended(result)[1] == ("success" if written else "policy_denied")


async def test_two_branches_that_ask_two_people_are_asked_together(make: Make) -> None:
    async def later(doors: Doors) -> Json:
        for _ in range(50):
            await asyncio.sleep(0)
        return await doors.call(put, text="b")

    async def told(doors: Doors) -> Json:
        return await asyncio.gather(doors.call(put, text="a"), later(doors))

    world = await build(make, told, policy=ASK_FIRST)
    run_id = await world.submit(keeps)
    await world.settle()
    first, second = await world.store.requests()
    await world.store.resolve(second.request_id, "approved", "bob", START, None)
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.waiting_for_approval
    await world.store.resolve(first.request_id, "approved", "bob", START, None)
    assert (await world.finish(run_id)).value == ["put a", "put b"]
    assert sorted(outside.written) == ["a", "b"]


@pytest.mark.rule("R14")
async def test_a_cancel_stops_the_function_and_what_it_had_under_way(make_on_each: Make) -> None:
    async def told(doors: Doors) -> Json:
        outside.hold = True
        return await doors.call("mail", text="x")

    world = await build(make_on_each, told)
    run_id = await world.submit(keeps)
    await world.until(lambda: outside.written == ["x"])
    await world.store.cancel(run_id, "bob", world.clock())
    result = await world.finish(run_id)
    assert ended(result)[1] == "canceled"
    assert [(o.effect, o.result) for o in await world.outcomes(run_id)] == [("call", "unknown"), ("adopt", "canceled")]


async def test_its_doors_are_closed_when_it_has_ended(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return "done"

    world = await build(make, told)
    await world.run(keeps)
    [doors] = outside.leaked
    with pytest.raises(DoorsClosed, match="has been stopped"):
        await doors.call(put, text="late")
    with pytest.raises(DoorsClosed):
        await doors.step(outside.written.append, "late")
    assert (await post(doors, "late")).status_code == 401
    assert outside.written == []


async def test_a_tool_of_its_own_can_be_a_step_too(make: Make) -> None:
    def own(number: int) -> int:
        outside.written.append(str(number))
        return number + 1

    async def told(doors: Doors) -> Json:
        value = await doors.step(own, 1)
        if outside.starts == 1:
            raise TransientError("once more")
        return value

    world = await build(make, told)
    assert (await world.run(keeps)).value == 2 and outside.written == ["1"]


async def test_an_unknown_tool_or_model_is_said_at_once_and_leaves_no_trace(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        with pytest.raises(UnknownName, match="there are: mail, put"):
            doors.tools("putt")
        with pytest.raises(UnknownName, match="putt"):
            await doors.call("putt", text="a")
        missing = await post(doors, "why?", model="gpt-9")
        return [missing.status_code, missing.json()["error"]["code"], [spec.name for spec in doors.tools()]]

    world = await build(make, told)
    result = await world.run(keeps)
    assert result.value == [404, "model_not_found", ["mail", "put"]]
    assert [intent.effect for intent in await world.intents(result.run_id)] == ["adopt"]


async def test_what_is_inside_is_forgotten_when_it_has_ended(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return [await say(doors, str(number)) for number in range(3)]

    world = await build(make, told)
    run_id = await world.submit(keeps)
    await world.lease()
    history = world.active[run_id].history
    await world.finish(run_id)
    assert [key for key in {*history.outcomes, *history.intents} if "!" in key] == []
    frames = [frame async for frame in world.store.read(run_id)]
    assert len([key for key in fold(frames, START).outcomes if "!" in key]) == 3


async def test_only_an_async_function_can_be_adopted(make: Make) -> None:
    @workflow
    async def wrong(ctx: Context, _: None) -> Json:
        with pytest.raises(InvalidInput, match="async def"):
            await ctx.adopt(print)  # type: ignore[arg-type]
        return "said"

    world = await make(wrong)
    assert (await world.run(wrong)).value == "said"


broken: list[str] = ["yes"]


@workflow
async def fails_late(ctx: Context, _: Any) -> Any:
    return await ctx.adopt(_fails_late)


async def _fails_late(doors: Doors) -> Json:
    outside.starts += 1
    first = await doors.call("put", text="one")
    if broken:
        raise PermanentError("the agent has a fault")
    return [first, await doors.call("put", text="two")]


@pytest.mark.promise("A9")
async def test_a_retry_starts_the_function_again_and_repeats_nothing_that_was_done(make_on_each: Make) -> None:
    broken[:] = ["yes"]
    world = await make_on_each(fails_late, holder)
    failed = await world.run(fails_late)
    assert failed.status is Status.failed and outside.written == ["one"]
    broken.clear()
    await world.retry(failed.run_id)
    result = await world.finish(failed.run_id)
    assert (result.value, outside.written, outside.starts) == (["put one", "put two"], ["one", "two"], 2)
