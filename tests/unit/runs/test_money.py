"""Money and words are effects: reserved before they are paid, charged when nobody knows, never out of order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.worlds import World, calls, costs
from tests.unit.runs.conftest import Make

from retinue.runs.contracts import Budget, StopReason, Usage
from retinue.runs.definitions import agent
from retinue.runs.journal import AnyEntry
from retinue.runs.messages import ModelPort, ModelProfile, ModelReply, ModelRequest, OnDelta
from retinue.sessions.native import tool

pytestmark = pytest.mark.rule("R4")


class Witness:
    """A model port that looks into the journal, as it is stored, before it lets a call through."""

    def __init__(self, inner: ModelPort, world: World) -> None:
        self.inner = inner
        self.world = world
        self.seen: list[list[AnyEntry]] = []
        self.stuck = False

    def profile(self, request: ModelRequest) -> ModelProfile:
        return self.inner.profile(request)

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        self.seen.append(await self.world.entries(request.run_id))
        if self.stuck:
            await asyncio.Event().wait()
        return await self.inner.complete(request, on_delta)

    async def close(self) -> None:
        await self.inner.close()


def watch(world: World) -> Witness:
    witness = Witness(world.services.models, world)
    world.use(models=witness)
    return witness


thinker = agent("thinker", "Think.", max_tokens=100)


async def test_a_paid_call_is_intended_and_reserved_on_disk_before_it_is_made(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.decide(costs({"answer": "42"}, "0.030000"))
    witness = watch(world)
    result = await world.run(thinker, "why?")
    [intent] = [entry for entry in witness.seen[0] if entry.kind == "intent"]
    assert intent.reserved == Usage(steps=1, input_tokens=10, output_tokens=100, micros=30_000)
    assert intent.content["messages"][-1]["content"]
    assert result.usage == Usage(steps=1, input_tokens=10, output_tokens=5, micros=30_000)


async def test_a_free_call_may_ride_with_the_next_commit_but_in_order(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.decide({"answer": "42"})
    witness = watch(world)
    result = await world.run(thinker, "why?")
    assert [entry.kind for entry in witness.seen[0]] == ["accepted"]
    kinds = [(entry.kind, getattr(entry, "effect", "")) for entry in await world.entries(result.run_id)]
    model = [place for place, kind in enumerate(kinds) if kind[1] == "model"]
    assert [kinds[place][0] for place in model] == ["intent", "outcome"] and kinds[-1][0] == "finished"


async def test_a_crash_during_a_paid_call_costs_what_was_reserved(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.script(
        {"match": {"agent": "thinker"}, "decisions": [costs({"answer": "42"}, "0.010000")]},
        {"match": {"agent": "dear"}, "decisions": [costs({"answer": "x"}, "0.050000")]},
    )
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(thinker, "why?")
    await world.until(lambda: len(witness.seen) == 1)
    await world.crash()
    witness.stuck = False
    result = await world.finish(run_id)
    [lost] = [entry for entry in await world.entries(run_id) if entry.kind == "attempt"]
    assert (lost.error.code, lost.charged.micros, lost.charged.steps) == ("interrupted", 50_000, 1)
    assert result.usage.micros == 60_000
    assert result.usage.steps == 2


async def test_a_crash_leaves_no_money_for_a_second_try_when_the_budget_is_the_first(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.decide(costs({"answer": "42"}, "0.050000"))
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(thinker, "why?", budget=Budget(usd="0.09"))
    await world.until(lambda: len(witness.seen) == 1)
    await world.crash()
    result = await world.finish(run_id)
    assert result.reason is StopReason.budget_exhausted
    assert (len(witness.seen), result.usage.micros) == (1, 50_000)


async def test_a_cancel_during_a_paid_call_costs_what_was_reserved(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.decide(costs({"answer": "42"}, "0.050000"))
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(thinker, "why?")
    await world.until(lambda: len(witness.seen) == 1)
    await world.store.cancel(run_id, "bob", world.clock())
    result = await world.finish(run_id)
    assert (result.reason, result.usage.micros) == (StopReason.canceled, 50_000)


@pytest.mark.parametrize("how", ["deadline", "code", "cancel"])
async def test_a_run_that_ends_before_its_lost_call_is_settled_pays_for_it(make_on_each: Make, how: str) -> None:
    """Its owner died during a paid call, and what it comes back to is its end."""
    world = await make_on_each(thinker)
    world.decide(costs({"answer": "42"}, "0.050000"))
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(thinker, "why?", deadline=world.clock() + 60_000_000_000)
    await world.until(lambda: len(witness.seen) == 1)
    await world.crash()
    match how:
        case "deadline":
            world.clock.advance(61)
        case "code":
            world.redefine(agent("thinker", "Think.", max_tokens=100, version="2"))
        case _:
            await world.store.cancel(run_id, "bob", world.clock())
    result = await world.finish(run_id)
    reasons = {"deadline": StopReason.deadline_exceeded, "code": StopReason.replay_mismatch}
    assert result.reason is reasons.get(how, StopReason.canceled)
    assert (result.usage.micros, (await world.store.get(run_id)).usage.micros) == (50_000, 50_000)


async def test_what_a_lost_call_has_cost_is_paid_once_when_the_run_is_retried(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    world.decide(costs({"answer": "42"}, "0.050000"))
    witness = watch(world)
    witness.stuck = True
    run_id = await world.submit(thinker, "why?", budget=Budget(seconds=60))
    await world.until(lambda: len(witness.seen) == 1)
    await world.crash()
    world.clock.advance(61)
    assert (await world.finish(run_id)).usage.micros == 50_000
    witness.stuck = False
    await world.retry(run_id)
    result = await world.finish(run_id)
    assert result.ok and result.usage.micros == 100_000


made: list[str] = []


@tool(side_effect="read")
def peek(name: str) -> str:
    """Look without touching."""
    made.append("peek " + name)
    return name


@tool(side_effect="write", idempotency="idempotent")
def put(name: str) -> str:
    """Change something."""
    made.append("put " + name)
    return name


async def test_nothing_is_written_before_the_soft_steps_it_depends_on(make_on_each: Make) -> None:
    made.clear()
    worker = agent("worker", "Work.", tools=[peek, put])
    world = await make_on_each(worker)
    world.decide(calls("peek", name="a"), calls("put", name="b"), {"answer": "done"})
    orders: list[list[Any]] = []
    gateway = world.services.gateway
    execute = gateway.execute

    async def looking(call: Any, caller: Any, link: Any = None) -> Any:
        orders.append(
            [call.capability.name, *(e.name for e in await world.outcomes(caller.run_id) if e.effect == "call")]
        )
        return await execute(call, caller, link)

    gateway.execute = looking
    result = await world.run(worker, "go")
    assert result.value == "done"
    assert orders == [["peek"], ["put", "peek"]]
    outcomes = [outcome.name for outcome in await world.outcomes(result.run_id) if outcome.effect == "call"]
    assert outcomes == ["peek", "put"]


async def test_a_soft_step_that_was_lost_is_done_again(make_on_each: Make) -> None:
    made.clear()
    worker = agent("worker", "Work.", tools=[peek], asks=True)
    world = await make_on_each(worker)
    world.decide(calls("peek", name="a"), {"answer": "done"})
    witness = watch(world)
    run_id = await world.submit(worker, "go")
    await world.until(lambda: len(witness.seen) == 2)
    await world.crash()
    lost = "outcome" not in [entry.kind for entry in await world.entries(run_id)]
    result = await world.finish(run_id)
    assert result.value == "done"
    assert made == ["peek a"] * (2 if lost else 1)


async def test_strict_durability_makes_every_step_durable_before_the_next(make_on_each: Make) -> None:
    worker = agent("worker", "Work.", tools=[peek])
    world = await make_on_each(worker)
    world.use(strict=True)
    world.decide(calls("peek", name="a"), {"answer": "done"})
    witness = watch(world)
    await world.run(worker, "go")
    names = [entry.name for entry in witness.seen[1] if entry.kind == "outcome" and entry.effect != "gate"]
    assert names == ["scripted:model.jsonl", "peek"]


async def test_a_paid_call_that_waits_to_be_tried_again_is_not_charged_for_the_wait(make_on_each: Make) -> None:
    world = await make_on_each(thinker)
    fault = {"kind": "transient", "retry_after": 60, "times": 1}
    world.decide(costs({"answer": "42", "fault": fault}, "0.050000"))
    run_id = await world.submit(thinker, "why?", budget=Budget(usd="0.06"))
    await world.settle()
    await world.crash()
    result = await world.finish(run_id)
    assert (result.value, result.usage.micros) == ("42", 50_000)
