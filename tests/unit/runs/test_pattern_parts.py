"""Parts of patterns belong to the project: found with the pattern, prompts read, conflicts and gaps told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Branch
from retinue.runs.control import RunQuery
from retinue.runs.definitions import AgentSpec, agent, workflow
from retinue.runs.errors import ConfigError, UnknownName
from retinue.runs.options import Prompt
from retinue.runs.patterns.chain import chain
from retinue.runs.patterns.parallel import parallel
from retinue.runs.registry import Registry

pytestmark = pytest.mark.promise("B1")

NEWS = """
from retinue.runs.definitions import agent
from retinue.runs.options import prompt
from retinue.runs.patterns.chain import chain
from retinue.runs.patterns.parallel import parallel

writer = agent("writer", prompt("writer/v1"))
both = parallel("both", {"a": chain("deep", agent("inner", prompt("inner/v2"))), "b": writer})
"""


@pytest.fixture
def news(tmp_path: Path) -> ModuleType:
    """A module with two prompts beside it, one of them for an agent that only a nested pattern names."""
    for name in ("writer/v1", "inner/v2"):
        path = tmp_path / "prompts" / f"{name}.md"
        path.parent.mkdir(parents=True)
        path.write_text(f"You are {name}.\n")
    (tmp_path / "news.py").write_text(NEWS)
    spec = importlib.util.spec_from_file_location("news", tmp_path / "news.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parts_are_known_with_their_pattern_and_their_prompts_are_read(news: ModuleType) -> None:
    registry = Registry([news])
    assert registry.names() == ["both", "deep", "inner", "writer"]
    for name, text in (("inner", "You are inner/v2."), ("writer", "You are writer/v1.")):
        found = registry.get(name)
        assert isinstance(found, AgentSpec) and isinstance(found.instructions, Prompt)
        assert found.instructions.text == text


def test_a_part_that_is_another_definition_of_a_known_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="two definitions are named 'writer'"):
        Registry([], [agent("writer", "Write."), chain("x", agent("writer", "Write better."))])


def test_a_part_by_name_must_be_there() -> None:
    with pytest.raises(UnknownName, match="workflow 'x' has the part 'wrter', which is not there: writer, x"):
        Registry([], [agent("writer", "Write."), chain("x", "wrter")])
    assert Registry([], [agent("writer", "Write."), chain("x", "writer")]).get("x").name == "x"


@workflow
async def quick(ctx: Context, given: str) -> str:
    return given


@workflow
async def slow(ctx: Context, given: str) -> str:
    await ctx.sleep("1h")
    return given


def broken(branches: list[Branch]) -> bool:
    raise ValueError(f"cannot judge {len(branches)}")


@pytest.mark.promise("B2")
async def test_a_rule_that_raises_fails_its_step_and_leaves_no_child_running(make_on_each: Make) -> None:
    @workflow
    async def watching(ctx: Context, given: list[str]) -> int:
        return len(await ctx.map(either, given, enough=broken))

    @workflow
    async def either(ctx: Context, given: str) -> str:
        return str(await ctx.run(slow if given == "slow" else quick, given))

    world = await make_on_each(watching, either, quick, slow)
    result = await world.run(watching, ["quick", "slow"])
    assert result.error is not None and "cannot judge 1" in result.error.message
    await world.settle()
    everything = await world.store.list_runs(RunQuery(root_run_id=result.run_id))
    assert all(run.status.terminal for run in everything)


async def test_no_calls_make_no_group(make: Make) -> None:
    @workflow
    async def empty(ctx: Context, given: None) -> dict[str, Branch]:
        return await ctx.gather("none", {})

    nested = parallel("nested", {"only": empty})
    assert (await (await make(nested)).run(nested)).value["sections"] == {"only": {}}
