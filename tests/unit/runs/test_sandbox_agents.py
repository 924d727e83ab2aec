"""An agent with a sandbox: six tools on one workspace, errors as what it sees, its turns as heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.worlds import calls
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, hold, moves, ran, shell, told

from retinue.runs.agent_sandbox import check_sandboxes
from retinue.runs.contracts import Json, Status
from retinue.runs.definitions import agent
from retinue.runs.errors import ConfigError, InvalidInput
from retinue.runs.journal import Checkpoint, Record
from retinue.runs.registry import Registry
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("E1", "A1"), pytest.mark.rule("R5")]

coder = agent("coder", "Write programs.", sandbox="coder")
TOOLS = ("shell", "python", "read_file", "write_file", "edit_file", "list_files")


async def seen(world: Any, run_id: str) -> list[Any]:
    """What the model was shown of its calls."""
    entries = await world.entries(run_id)
    return [one.content["data"] for one in entries if isinstance(one, Record) and one.topic == "observation"]


async def test_an_agent_has_six_tools_on_one_workspace(make_on_each: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make_on_each, tmp_path, coder)
    world.decide(
        calls("write_file", path="add.py", content="print(1 + 1)\n"),
        shell("python3 add.py; exit 4"),
        calls("edit_file", path="add.py", old="1 + 1", new="20 + 22"),
        calls("python", code="import runpy; runpy.run_path('add.py')"),
        calls("read_file", path="add.py"),
        calls("list_files"),
        {"answer": "It prints 42."},
    )
    result = await world.run(coder, "add")
    assert result.value == "It prints 42."
    wrote, ended, edited, python, read, listed = await seen(world, result.run_id)
    assert (wrote["path"], edited["path"]) == ("add.py", "add.py")
    assert (ended["exit_code"], ended["stdout"]) == (4, "2\n"), "a command that fails is a result"
    assert python["stdout"] == "42\n" and read["text"] == "print(20 + 22)\n"
    assert ([entry["path"] for entry in listed["entries"]], listed["cut"]) == (["add.py"], False)
    entries = await world.entries(result.run_id)
    heads = [
        state.head_generation for one in entries if isinstance(one, Checkpoint) for state in one.sandboxes.values()
    ]
    assert heads == [1, 2, 3, 4, 4, 4], "a turn that changed nothing takes no snapshot"
    assert (await moves(world, result.run_id)) == ["opened", *["snapshot"] * 4, "closed"]


async def test_a_model_is_told_that_a_listing_is_not_all(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, coder)
    world.decide(
        shell("seq 1001 | xargs touch; mkdir d; touch d/a"), calls("list_files"), calls("list_files", path="d")
    )
    result = await world.run(coder, "look")
    _, most, all_ = await seen(world, result.run_id)
    assert (len(most["entries"]), most["cut"]) == (1_000, True)
    assert (len(all_["entries"]), all_["cut"]) == (1, False)


async def test_the_model_is_told_of_six_tools_and_how_to_call_them(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, coder)
    assert coder.tool_names == TOOLS
    for name in TOOLS:
        spec = world.services.gateway.capability(name).spec
        assert spec.input_schema["additionalProperties"] is False and len(spec.description) > 40
        assert "sandbox" not in spec.input_schema["properties"] and "title" not in str(spec.input_schema)


async def test_mistakes_are_seen_by_the_model_and_it_goes_on(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, coder)
    world.decide(
        calls("read_file", path="absent.txt"),
        calls("write_file", path="../outside", content="x"),
        calls("edit_file", path="a", old="", new="x"),
        shell("sleep 60", timeout=0.2),
        {"answer": "I see."},
    )
    result = await world.run(coder, "try")
    absent, outside, empty, slow = await seen(world, result.run_id)
    assert absent == {"error": "there is no file absent.txt", "code": "no_file"}
    assert outside["code"] == "outside" and empty["code"] == "invalid_arguments"
    assert "old" in empty["error"] and slow["limits"] == ["timeout"] and slow["exit_code"] is None
    assert result.value == "I see."


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("moment", ["before exec", "after exec"])
async def test_an_agent_goes_on_in_the_workspace_of_its_turn(
    moment: str, node: str, make: Make, tmp_path: Path
) -> None:
    world, nodes = await boxed(make, tmp_path, coder)
    world.decide(
        calls("write_file", path="log", content="1\n"),
        shell("echo 2 >> log"),
        calls("read_file", path="log"),
        {"answer": "done"},
    )
    run_id = await world.submit(coder, "write")
    await hold(world, nodes, moment)
    await crash(world, nodes, node)
    assert (await world.finish(run_id)).value == "done"
    assert (await seen(world, run_id))[-1]["text"] == "1\n2\n"
    assert (await moves(world, run_id)).count("lost_exec") == 1


async def test_an_agent_whose_sandbox_is_lost_stops(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, coder)
    nodes.refuse_after = 0
    world.decide(shell("echo 1 > log"), shell("echo 2 > log"), {"answer": "done"})
    run_id = await world.submit(coder, "write")
    await hold(world, nodes, "before exec sh -c echo 2 > log")
    await crash(world, nodes, "b")
    result = await world.finish(run_id)
    assert result.status is Status.failed and "cannot be brought back to generation 1" in (result.problem or "")
    assert ran(nodes) == ["sh -c echo 1 > log"]


async def test_calls_of_one_turn_are_made_in_their_order(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, coder)
    together: dict[str, Json] = {
        "tool_calls": [
            {"name": "shell", "arguments": {"command": "cat new || echo 0 > new"}},
            {"name": "write_file", "arguments": {"path": "new", "content": "1\n"}},
            {"name": "shell", "arguments": {"command": "cat new"}},
        ]
    }
    world.decide(together, {"answer": "done"})
    result = await world.run(coder, "write")
    assert [one.get("stdout") for one in await seen(world, result.run_id)] == ["", None, "1\n"]


def test_a_tool_of_an_agents_own_may_not_take_the_name_of_one_of_its_sandbox() -> None:
    @tool(side_effect="read")
    def shell(command: str) -> str:
        """Another shell."""
        return command

    with pytest.raises(InvalidInput, match="has a sandbox and a tool named 'shell'"):
        agent("two", "Work.", sandbox="coder", tools=[shell])
    with pytest.raises(InvalidInput, match="give the name of a manifest"):
        agent("none", "Work.", sandbox=7)


def test_another_sandbox_is_another_version() -> None:
    versions = {agent("it", "Work.", **given).version for given in ({}, {"sandbox": "coder"}, {"sandbox": "builder"})}
    assert len(versions) == 3


async def test_a_manifest_that_is_not_there_is_found_when_the_project_is_loaded(make: Make, tmp_path: Path) -> None:
    _, nodes = await boxed(make, tmp_path, coder)
    registry = Registry([], [coder, agent("other", "Work.", sandbox="codr"), agent("bare", "Talk.")])
    assert registry.sandboxes == {"coder": "coder", "other": "codr"}
    with pytest.raises(ConfigError, match=r"agent 'other': sandbox='codr'.*did you mean coder"):
        check_sandboxes(registry.sandboxes, nodes.node("a").manifest)
    check_sandboxes({"coder": "coder"}, nodes.node("a").manifest)


async def test_output_is_told_while_a_command_runs(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, coder)
    world.clock.step = 300_000_000
    world.decide(shell("for n in 1 2 3 4 5 6; do echo $n; sleep 0.05; done"), {"answer": "done"})
    result = await world.run(coder, "count")
    output = [one for one in await world.entries(result.run_id) if isinstance(one, Record) and one.topic == "output"]
    assert output and output[0].facts["key"].endswith("shell#0") and output[0].content["stdout"].startswith("1\n")
    assert len({one.facts["place"] for one in output}) == 1
    [opened] = [one for one in await told(world, result.run_id) if one.facts["event"] == "opened"]
    assert opened.facts["place"] == output[0].facts["place"]
