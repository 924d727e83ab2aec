"""Retries have one owner: spaced, bounded, obedient to the server, durable when they are long."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.doubles.worlds import SECOND, calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.journal import Attempt
from retinue.runs.ports import RetryPolicy
from retinue.sessions.native import tool

pytestmark = pytest.mark.promise("C5")

faults: list[Exception] = []
tried: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    faults.clear()
    tried.clear()


@tool(side_effect="read")
def flaky() -> str:
    """Fails as often as the test says."""
    tried.append(1)
    if faults:
        raise faults.pop(0)
    return "there"


caller = agent("caller", "Calls.", tools=[flaky])


@workflow
async def fetch(ctx: Context, _: None) -> str:
    return str(await ctx.call(flaky))


async def attempts(world: Any, run_id: str) -> list[Attempt]:
    return [entry for entry in await world.entries(run_id) if isinstance(entry, Attempt)]


async def test_a_transient_fault_is_tried_again_and_a_permanent_one_is_not(make_on_each: Make) -> None:
    world = await make_on_each(fetch, caller)
    faults[:] = [TransientError("away"), TransientError("away")]
    result = await world.run(fetch)
    assert (result.value, len(tried)) == ("there", 3)
    assert [attempt.number for attempt in await attempts(world, result.run_id)] == [1, 2]
    tried.clear()
    faults[:] = [PermanentError("no such thing", code="missing")]
    result = await world.run(fetch)
    assert (result.reason, len(tried)) == (StopReason.tool_failure, 1)


async def test_tries_are_bounded_and_the_last_error_is_told(make: Make) -> None:
    world = await make(fetch, caller)
    faults[:] = [TransientError(f"away {number}") for number in range(9)]
    result = await world.run(fetch)
    assert (result.reason, len(tried)) == (StopReason.tool_failure, 3)
    assert result.error is not None and "away 2" in result.error.message


async def test_the_servers_wish_is_honoured_and_waited_out_durably(make_on_each: Make) -> None:
    world = await make_on_each(fetch, caller)
    world.use(retry=RetryPolicy(attempts=3, in_memory=5.0))
    faults[:] = [TransientError("slow down", retry_after=90)]
    run_id = await world.submit(fetch)
    await world.settle()
    record = await world.store.get(run_id)
    [attempt] = await attempts(world, run_id)
    assert (record.status, record.reason) == (Status.waiting, StopReason.retry_later)
    assert record.wake_at == attempt.not_before and attempt.not_before - attempt.at == 90 * SECOND
    assert attempt.error.retry_after == 90
    await world.crash()
    assert (await world.finish(run_id)).value == "there"
    assert len(tried) == 2


async def test_tries_are_counted_across_owners(make_on_each: Make) -> None:
    world = await make_on_each(fetch, caller)
    faults[:] = [TransientError("away", retry_after=60)] * 9
    run_id = await world.submit(fetch)
    for _ in range(2):
        await world.settle()
        await world.crash()
        await world.wait_out()
    assert (await world.finish(run_id)).reason is StopReason.tool_failure
    assert len(tried) == 3


async def test_a_short_wait_stays_in_memory(make: Make) -> None:
    world = await make(fetch, caller)
    world.use(retry=RetryPolicy(attempts=3, base=0.001, cap=0.001, in_memory=5.0))
    world.clock.step = 1_000_000
    faults[:] = [TransientError("away")]
    run_id = await world.submit(fetch)
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.completed
    assert "parked" not in [entry.kind for entry in await world.entries(run_id)]


def test_pauses_grow_with_jitter_within_bounds() -> None:
    policy = RetryPolicy(base=0.5, cap=8.0)
    chance = random.Random(1)
    for attempt in range(1, 12):
        drawn = [policy.delay(attempt, chance, None) for _ in range(200)]
        top = min(8.0, 0.5 * 2 ** (attempt - 1))
        assert min(drawn) >= 0 and max(drawn) <= top
        assert max(drawn) > top * 0.8 and len(set(drawn)) > 100
    assert policy.delay(1, chance, 17.5) == 17.5
    assert policy.delay(1, chance, 1e9) == 3600.0


async def test_a_model_fault_is_tried_again_by_the_same_rules(make_on_each: Make) -> None:
    world = await make_on_each(caller)
    fault = {"kind": "transient", "retry_after": 30, "times": 2}
    world.decide({"answer": "ok", "fault": fault})
    result = await world.run(caller, "go")
    assert result.value == "ok"
    assert [attempt.error.retry_after for attempt in await attempts(world, result.run_id)] == [30, 30]
    world.decide({"fault": {"kind": "permanent"}})
    assert (await world.run(caller, "go")).reason is StopReason.model_failure


async def test_a_failed_tool_is_an_observation_for_an_agent(make: Make) -> None:
    world = await make(caller)
    faults[:] = [PermanentError("gone", code="missing")]
    world.decide(calls("flaky"), {"answer": "it is gone"})
    result = await world.run(caller, "go")
    assert result.value == "it is gone"
    [seen] = [e for e in await world.entries(result.run_id) if e.kind == "record" and e.topic == "observation"]
    assert seen.facts["result"] == "error" and seen.content["data"]["code"] == "missing"
