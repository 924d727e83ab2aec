"""Sandboxes in a run: opened, worked in, forked, adopted, kept at checkpoints and closed with it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, moves, ran, told

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError
from retinue.runs.journal import Checkpoint, Outcome

pytestmark = [pytest.mark.promise("E1", "E2"), pytest.mark.rule("R5")]


@workflow
async def works(ctx: Context, text: str) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("a/b.txt", text)
    await box.edit("a/b.txt", "one", "two")
    ended = await box.shell("cat a/b.txt; echo oops >&2; exit 3", timeout="30s")
    names = [entry.path for entry in await box.list(".", depth=2)]
    return [ended.exit_code, ended.stdout, ended.stderr, names, await box.read("a/b.txt")]


async def test_a_workflow_works_in_a_sandbox(make_on_each: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, works)
    result = await world.run(works, "one")
    assert result.value == [3, "two", "oops\n", ["a", "a/b.txt"], "two"]
    assert await moves(world, result.run_id) == ["opened", "snapshot", "closed"]
    outcomes = [one for one in await world.outcomes(result.run_id) if "generation" in one.facts]
    assert [(one.name, one.facts["generation"]) for one in outcomes] == [
        ("sandbox.open", 0),
        ("sandbox.write", 1),
        ("sandbox.edit", 2),
        ("sandbox.exec", 3),
    ]
    assert nodes.released == [("a", result.run_id, True)]
    assert len({one.facts["sandbox"] for one in outcomes}) == 1


@workflow
async def forks(ctx: Context, count: int) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("number", "0")
    boxes = await box.fork(count)
    await asyncio.gather(*(one.shell(f"echo {place} > number") for place, one in enumerate(boxes)))
    best = await boxes[-1].snapshot()
    await box.adopt(best)
    await boxes[0].close()
    return [await box.read("number"), await boxes[1].read("number")]


async def test_forks_are_apart_and_the_best_one_is_adopted(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, forks)
    result = await world.run(forks, 4)
    assert result.value == ["3\n", "1\n"]
    opened = [one.facts for one in await told(world, result.run_id) if one.facts["event"] == "opened"]
    assert [one["forked_from"] is None for one in opened] == [True, False, False, False, False]
    assert len({one["sandbox_id"] for one in opened}) == 5
    assert (await moves(world, result.run_id)).count("closed") == 5


@pytest.mark.parametrize("count", [0, 257])
async def test_forks_without_measure_are_refused(make: Make, tmp_path: Path, count: int) -> None:
    world, _ = await boxed(make, tmp_path, forks)
    result = await world.run(forks, count)
    assert result.error is not None and f"fork({count}): give 1 to 256" in result.error.message


@workflow
async def child(ctx: Context, given: dict[str, Any]) -> str:
    box = await ctx.sandbox("coder", given["snapshot"])
    await box.shell(f"echo {given['n']} >> log")
    return await box.snapshot()


@workflow
async def parent(ctx: Context, count: int) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", "begun\n")
    snapshot = await box.snapshot()
    branches = await ctx.map(child, [{"snapshot": snapshot, "n": n} for n in range(count)])
    await box.adopt(branches[2].value)
    return await box.read("log")


async def test_children_work_in_forks_and_the_parent_adopts_one(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, parent, child)
    assert (await world.run(parent, 3)).value == "begun\n2\n"


@workflow
async def pages(ctx: Context, most: int, state: dict[str, int] | None = None) -> Any:
    state = state or {"page": 0}
    box = await ctx.sandbox("coder", name="work")
    await box.shell(f"echo {state['page']} >> log")
    if state["page"] == most:
        return await box.read("log")
    await ctx.checkpoint("page", {"page": state["page"] + 1})


async def test_a_checkpoint_keeps_what_the_sandbox_holds(make_on_each: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make_on_each, tmp_path, pages)
    result = await world.run(pages, 2)
    assert result.value == "0\n1\n2\n"
    entries = await world.entries(result.run_id)
    kept = [one for one in entries if isinstance(one, Checkpoint)]
    for checkpoint in kept:
        [state] = checkpoint.sandboxes.values()
        assert state.head_generation == state.generation == checkpoint.number
    assert (await moves(world, result.run_id)) == ["opened", "snapshot", "snapshot", "snapshot", "closed"]


@workflow
async def mistakes(ctx: Context, text: str) -> Any:
    said = []
    box = await ctx.sandbox("coder")
    await box.write("kept", "as it was")
    for attempt in (
        ctx.sandbox("codr"),
        box.read("absent"),
        box.edit("absent", "a", "b"),
        box.write("../out", "x"),
        ctx.call("sandbox.exec", sandbox="nothing", argv=["true"]),
        ctx.call("sandbox.exec", sandbox=box.id, argv=[]),
        ctx.call("shell", command="true"),
        ctx.sandbox("coder", "s1-absent"),
        box.adopt("s1-absent"),
    ):
        try:
            await attempt
        except PermanentError as error:
            said.append(error.code)
    said.append(str(await box.read("kept")))
    await box.close()
    try:
        await box.shell("true")
    except PermanentError as error:
        said.append(error.code)
    return said


async def test_mistakes_are_told_with_their_code_and_change_nothing(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, mistakes)
    result = await world.run(mistakes, "")
    wanted = ["manifest", "no_file", "no_file", "outside", "no_sandbox", "invalid_arguments", "no_sandbox"]
    assert result.value == [*wanted, "no_snapshot", "no_snapshot", "as it was", "closed"]
    assert ran(nodes) == []


async def test_a_host_without_sandboxes_says_so(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, works)
    world.use(sandboxes=None)
    result = await world.run(works, "one")
    assert result.status is Status.failed and "this host has no sandboxes" in (result.problem or "")


@workflow
async def at_once(ctx: Context, count: int) -> Any:
    box = await ctx.sandbox("coder")
    await asyncio.gather(*(box.shell(f"echo {n} >> log") for n in range(count)))
    return await box.read("log")


async def test_calls_in_one_sandbox_are_made_in_the_order_they_were_asked_for(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, at_once)
    result = await world.run(at_once, 6)
    assert result.value == "0\n1\n2\n3\n4\n5\n"
    outcomes = [one for one in await world.entries(result.run_id) if isinstance(one, Outcome)]
    assert [one.facts["generation"] for one in outcomes if one.name == "sandbox.exec"] == [1, 2, 3, 4, 5, 6]


@workflow
async def looks(ctx: Context, count: int) -> Any:
    box = await ctx.sandbox("coder")
    for number in range(count):
        await box.write("file", str(number))


async def test_a_manifest_is_looked_up_once_and_aside_from_the_event_loop(make: Make, tmp_path: Path) -> None:
    """Its version is a digest of all that it takes in: that may take long."""
    world, nodes = await boxed(make, tmp_path, looks)
    assert (await world.run(looks, 5)).ok
    assert len(nodes.looks) == 1 and threading.main_thread().ident not in nodes.looks
