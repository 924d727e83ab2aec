"""Which queue a run stands in: that of its definition, else that of what started it."""

from __future__ import annotations

import pytest
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.patterns.chain import chain

pytestmark = pytest.mark.promise("C5")


@workflow(queue="maps")
async def mapped(ctx: Context, _: None) -> str:
    return "mapped"


@workflow
async def plain(ctx: Context, _: None) -> str:
    return "plain"


@workflow
async def later(ctx: Context, _: dict[str, object]) -> None:
    return None


@workflow(follow_ups=[later])
async def both(ctx: Context, _: None) -> None:
    await ctx.run(mapped, None)
    await ctx.run(plain, None)


async def test_children_take_their_definitions_queue_or_their_parents(make_on_each: Make) -> None:
    world = await make_on_each(both, mapped, plain)
    run_id = await world.submit(both, queue="slow", priority=3)
    await world.finish(run_id)
    runs = {run.target: (run.queue, run.priority) for run in await world.store.list_runs(RunQuery())}
    assert runs == {"both": ("slow", 3), "mapped": ("maps", 3), "plain": ("slow", 3), "later": ("slow", 2)}


def test_a_queue_is_no_part_of_a_version() -> None:
    assert agent("clerk", "Answer.").version == agent("clerk", "Answer.", queue="slow").version
    assert chain("c", plain, mapped).version == chain("c", plain, mapped, queue="slow").version
    assert chain("c", plain, mapped, queue="slow").queue == "slow"

    async def same(ctx: Context, _: None) -> str:
        return "same"

    assert workflow(same).version == workflow(queue="slow")(same).version
