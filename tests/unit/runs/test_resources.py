"""What definitions need of the place they run in, what their tools add, and the pool their runs are queued in."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from tests.unit.runs.conftest import Make

from retinue import Resources
from retinue.runs.context import Context
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import ConfigError, InvalidInput
from retinue.runs.registry import Registry
from retinue.runs.resources import combined, lacking, pool_name, readable_name
from retinue.sessions.native import tool

pytestmark = pytest.mark.promise("B5")

GPU = Resources(gpus=1, memory="4GiB", labels={"disk": "ssd"})


def registry(*definitions: Any) -> Registry:
    module = ModuleType("shop")
    for number, definition in enumerate(definitions):
        setattr(module, f"d{number}", definition)
    return Registry([module])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpus": -1}, "cpus"),
        ({"cpus": 1.5}, "whole numbers"),
        ({"gpus": True}, "gpus"),
        ({"memory": "much"}, "4GiB"),
        ({"memory": -1}, "bytes"),
        ({"labels": {"disk": "a b"}}, "in(a,b)"),
        ({"labels": {"ray.io/node-id": "x"}}, "label of their own"),
        ({"custom": {"GPU": 1}}, "are fields"),
        ({"custom": {"npu": 2.5}}, "whole numbers"),
        ({"runtime_env": {"env_vars": object()}}, "plain JSON"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="Resources") as refused:
        Resources(**given)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [(512, 512), ("512", 512), ("1KB", 1000), ("2 MiB", 2 * 2**20), ("1.5GiB", 3 * 2**29), ("1T", 10**12)],
)
def test_memory_is_bytes_however_it_is_said(text: int | str, size: int) -> None:
    assert Resources(memory=text).memory == size


def test_a_pool_is_named_by_what_it_has() -> None:
    assert readable_name(Resources(cpus=2, gpus=0.5, custom={"npu": 1})) == "gpu0.5-cpu2-npu1"
    assert readable_name(Resources(dedicated=True, labels={"zone": "in(a,b)"})) == "dedicated-in-a-b"
    assert readable_name(Resources(runtime_env={"pip": ["torch"]})) == "env"
    names = {pool_name(needs) for needs in (GPU, Resources(gpus=1), Resources(gpus=1, runtime_env={"pip": ["x"]}))}
    assert len(names) == 3
    assert pool_name(GPU) == pool_name(Resources(**GPU.to_json()))
    assert len(pool_name(Resources(labels={f"k{n}": "v" * 30 for n in range(9)}))) < 60


def test_parts_give_the_most_of_each_amount_and_every_label() -> None:
    whole = combined("it", [("a", GPU), ("b", Resources(cpus=2, gpus=0.5, labels={"zone": "x"}, dedicated=True))])
    assert whole == Resources(cpus=2, gpus=1, memory="4GiB", labels={"disk": "ssd", "zone": "x"}, dedicated=True)
    assert lacking(whole, GPU) == []
    assert lacking(GPU, whole) == ["2 cpus", "label zone=x", "dedicated"]


def test_runs_of_an_agent_need_what_its_tools_need_whether_given_or_named() -> None:
    @tool(side_effect="read", needs=GPU)
    def embed(text: str) -> str:
        """Embed."""
        return text

    known = registry(
        agent("given", "Answer.", tools=[embed]),
        agent("named", "Answer.", tools=["embed"], needs=Resources(cpus=1)),
        agent("plain", "Answer."),
        embed,
    )
    assert known.pool_of("given") == pool_name(GPU)
    assert known.needs_of("named") == Resources(cpus=1, gpus=1, memory="4GiB", labels={"disk": "ssd"})
    assert (known.pool_of("plain"), known.pool_of("unknown")) == (None, None)
    assert set(known.pools) == {pool_name(known.needs_of(name)) for name in ("given", "named")}


def test_needs_that_contradict_each_other_are_refused_by_name() -> None:
    @tool(side_effect="read", needs=Resources(labels={"disk": "hdd"}))
    def archive(text: str) -> str:
        """Look it up in the archive."""
        return text

    with pytest.raises(ConfigError, match=r"agent 'clerk'.*'archive'.*disk='hdd'.*needs 'ssd'"):
        registry(agent("clerk", "Answer.", tools=[archive], needs=GPU))


def test_needs_are_no_part_of_a_version_and_none_are_none() -> None:
    assert agent("clerk", "Answer.").version == agent("clerk", "Answer.", needs=GPU).version
    assert registry(agent("clerk", "Answer.", needs=Resources())).pools == {}


@workflow(needs=GPU)
async def trained(ctx: Context, _: None) -> str:
    return "trained"


@workflow
async def plain(ctx: Context, _: None) -> str:
    return "plain"


@workflow(needs=Resources(cpus=1))
async def later(ctx: Context, _: dict[str, object]) -> None:
    return None


@workflow(follow_ups=[later])
async def both(ctx: Context, _: None) -> None:
    await ctx.run(plain, None)
    await ctx.gather("parts", {"a": (trained, None)})


async def test_children_and_follow_ups_are_queued_where_their_definitions_can_run(make_on_each: Make) -> None:
    world = await make_on_each(both, trained, plain)
    run_id = await world.submit(both)
    await world.settle()
    gpu, cpu = pool_name(GPU), pool_name(Resources(cpus=1))
    runs = {run.target: (run.pool, run.status.value) for run in await world.store.list_runs(RunQuery())}
    assert runs["trained"] == (gpu, "queued"), "nobody here serves that pool"
    assert runs["plain"] == ("workers", "completed")
    world.pools = (*world.pools, gpu, cpu)
    await world.finish(run_id)
    runs = {run.target: (run.pool, run.status.value) for run in await world.store.list_runs(RunQuery())}
    assert runs["later"] == (cpu, "completed")


@tool(side_effect="read", needs=GPU)
def embed(text: str) -> str:
    """Embed."""
    return text


@workflow
async def careless(ctx: Context, text: str) -> Any:
    return await ctx.call(embed, text=text)


@workflow(needs=Resources(gpus=2, memory="8GiB", labels={"disk": "ssd"}))
async def careful(ctx: Context, text: str) -> Any:
    return await ctx.call(embed, text=text)


async def test_a_workflow_that_calls_what_it_has_no_place_for_is_told(make: Make) -> None:
    world = await make(careless, careful, agent("holder", "Holds the tool.", tools=[embed]))
    refused = await world.finish(await world.submit(careless, "x"))
    assert refused.error is not None and refused.reason == "tool_failure"
    assert "1 gpus" in refused.error.message and "'careless'" in refused.error.message
    assert (await world.finish(await world.submit(careful, "x"))).value == "x"
