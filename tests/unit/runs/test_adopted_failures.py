"""Adopted functions that fail, wait or take too long: which of it is tried again, and what they are told."""

from __future__ import annotations

import asyncio

import pytest
from tests.doubles.worlds import SECOND, ended
from tests.unit.runs.adopting import (
    Limited,
    build,
    forget,
    hurried,
    keeps,
    outside,
    post,
    say,
)
from tests.unit.runs.conftest import Make

from retinue.runs.contracts import Json
from retinue.runs.doors import Doors
from retinue.runs.errors import (
    PermanentError,
    TransientError,
)
from retinue.runs.ports import RetryPolicy

pytestmark = pytest.mark.promise("K4")


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


async def test_a_long_pause_before_a_retry_parks_the_run(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return await say(doors, "why?")

    world = await build(make, told)
    fault = {"kind": "transient", "retry_after": 90, "times": 1}
    world.decide({"answer": "42", "fault": fault})
    run_id = await world.submit(keeps)
    await world.settle()
    record = await world.store.get(run_id)
    assert record.wake_at is not None and record.wake_at - world.clock.now > 80 * SECOND and world.active == {}
    assert (await world.finish(run_id)).value == "42" and outside.starts == 2


async def test_a_short_pause_is_waited_out_in_memory(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return await say(doors, "why?")

    world = await build(make, told)
    world.clock.step = SECOND // 100
    world.use(retry=RetryPolicy(in_memory=5.0))
    world.decide({"answer": "42", "fault": {"kind": "transient", "retry_after": 0.03, "times": 2}})
    assert (await world.run(keeps)).value == "42" and outside.starts == 1


async def test_a_limit_that_outlasts_the_retries_is_a_429_that_says_when(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        refused = await post(doors, "why?")
        return [refused.status_code, refused.headers.get("retry-after"), refused.json()["error"]["type"]]

    world = await build(make, told)
    world.use(models=Limited(world.services.models, world))
    assert (await world.run(keeps)).value == [429, "7", "rate_limit_error"]


async def test_a_failing_model_is_a_503_and_not_to_be_tried_again(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        refused = await post(doors, "why?")
        return [refused.status_code, refused.headers["x-should-retry"]]

    world = await build(make, told)
    world.decide({"fault": {"kind": "transient"}})
    assert (await world.run(keeps)).value == [503, "false"]


async def test_what_it_raises_is_its_outcome(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        raise {1: ValueError("no"), 2: PermanentError("no", code="mine"), 3: SystemExit(3)}[outside.starts]

    world = await build(make, told)
    results = [await world.run(keeps) for _ in range(3)]
    assert [ended(result)[1] for result in results] == ["tool_failure"] * 3
    said = [result.error.message for result in results if result.error is not None]
    assert said == ["function raised ValueError: no", "no", "function called exit(3)"]


async def test_a_transient_failure_of_its_own_is_tried_again_from_the_journal(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        said = await say(doors, "why?")
        if outside.starts < 3:
            raise TransientError("the other side is away")
        return said

    world = await build(make, told)
    result = await world.run(keeps)
    assert (result.value, outside.starts, result.usage.micros) == ("42", 3, 10_000)


async def test_what_is_no_json_is_refused(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        return doors

    result = await (await build(make, told)).run(keeps)
    assert result.error is not None and "not JSON" in result.error.message


async def test_a_function_that_takes_too_long_is_stopped(make: Make) -> None:
    async def told(doors: Doors) -> Json:
        await asyncio.Event().wait()

    result = await (await build(make, told)).run(hurried)
    assert result.error is not None and "stopped after 0.2 s" in result.error.message
