"""R5: whoever owns the run next finds the workspace as the journal says it is, and execs that were lost are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.sandboxes import Nodes
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, hold, holds, moves, ran, told

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError

pytestmark = [pytest.mark.promise("E2", "E4"), pytest.mark.rule("R5")]

SECOND = 'echo 2 >> log; if test -e "$STALL"; then rm "$STALL"; sleep 60; fi'
THIRD = "echo 3 >> log"


@workflow
async def steps(ctx: Context, given: dict[str, Any]) -> Any:
    """A head at generation 1, a write after it, an exec that is cut off, one more."""
    box = await ctx.sandbox("coder")
    await box.shell("echo 1 >> log")
    await box.snapshot()
    await box.write("other", "")
    said = ""
    try:
        await box.shell(SECOND, replayable=given.get("replayable"), env={"STALL": given.get("stall", "none")})
    except PermanentError as error:
        said = error.code
    await box.shell(THIRD)
    return [said, await box.read("log")]


async def begun(make: Make, folder: Path, moment: str, given: dict[str, Any]) -> tuple[World, Nodes, str]:
    """A run that stands still at a moment of its second exec."""
    world, nodes = await boxed(make, folder, steps)
    run_id = await world.submit(steps, given)
    if moment == "during":
        await world.until(lambda: f"sh -c {SECOND}" in nodes.begun and not Path(given["stall"]).exists())
    else:
        await hold(world, nodes, moment)
    return world, nodes, run_id


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("replayable", [True, False])
async def test_an_exec_that_was_cut_off_is_told_and_made_again_only_where_it_may_be(
    when: str, node: str, replayable: bool, make: Make, tmp_path: Path
) -> None:
    moment = when if when == "during" else f"{when} exec sh -c {SECOND}"
    stall = tmp_path / "stall"  # outside of the workspace: it stalls the first time only
    given = {"replayable": replayable, "stall": str(stall)}
    if when == "during":
        stall.touch()
    world, nodes, run_id = await begun(make, tmp_path, moment, given)
    await crash(world, nodes, node)
    result = await world.finish(run_id)
    assert result.value == (["", "1\n2\n3\n"] if replayable else ["lost_exec", "1\n3\n"])
    events = await moves(world, run_id)
    assert events.count("lost_exec") == 1
    way = "moved" if node == "b" else "attached" if when == "before" else "restored"
    assert events[:3] == ["opened", "snapshot", "lost_exec"] and events[3] == way
    [lost] = [one.facts for one in await told(world, run_id) if one.facts["event"] == "lost_exec"]
    assert lost["op"] == "sandbox.exec" and lost["key"].endswith("sandbox.exec#1")


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("replayable", [True, False])
async def test_what_has_ended_is_not_asked_for_again_and_the_workspace_is_as_it_was(
    node: str, replayable: bool, make_on_each: Make, tmp_path: Path
) -> None:
    world, nodes, run_id = await begun(make_on_each, tmp_path, f"before exec sh -c {THIRD}", {"replayable": replayable})
    before = await holds(world, nodes, run_id)
    await crash(world, nodes, node)
    done = len(nodes.done)
    assert (await world.finish(run_id)).value == ["", "1\n2\n3\n"]
    again = [operation for _, operation, _ in nodes.done[done:]]
    if node == "a":
        assert again[:1] == ["exec"], "the live workspace of this very generation is used as it is"
    elif replayable:
        assert again[:4] == ["restore", "write", "exec", "exec"], "what was done since the head, then the new one"
    else:
        assert again[:2] == ["restore", "exec"], "an exec that must not be repeated has a head of its own"
    assert before == {"log": "1\n2\n", "other": ""}
    assert (await holds(world, nodes, run_id, node)) == {"log": "1\n2\n3\n", "other": ""}


@pytest.mark.parametrize("node", ["a", "b"])
async def test_a_sandbox_that_cannot_be_brought_back_stops_the_run(node: str, make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, steps)
    nodes.refuse_after = 1  # the snapshot that is asked for is the last one
    run_id = await world.submit(steps, {"replayable": False})
    await hold(world, nodes, f"before exec sh -c {THIRD}")
    await crash(world, nodes, node)
    result = await world.finish(run_id)
    if node == "a":
        assert result.value == ["", "1\n2\n3\n"]
        return
    record = await world.store.get(run_id)
    assert (result.status, record.reason) == (Status.failed, "tool_failure")
    assert "cannot be brought back to generation 3" in (result.problem or "")
    assert "is not to be repeated" in (result.problem or "")
    assert (await moves(world, run_id))[-2:] == ["lost", "closed"]


async def test_a_sandbox_that_was_lost_and_is_brought_back_later_is_as_good_as_before(
    make: Make, tmp_path: Path
) -> None:
    world, nodes, run_id = await begun(make, tmp_path, f"before exec sh -c {THIRD}", {})
    await crash(world, nodes, "b")
    away = nodes.shelf.rename(tmp_path / "away")
    assert (await world.finish(run_id)).status is Status.failed
    lost = (await told(world, run_id))[-1].facts
    assert not lost["can_resume"] and not lost["can_snapshot"]
    away.rename(nodes.shelf)
    await world.retry(run_id)
    assert (await world.finish(run_id)).value == ["", "1\n2\n3\n"]
    again = (await told(world, run_id))[-1].facts
    assert again["can_resume"] and again["can_snapshot"]


async def test_two_owners_die_one_after_the_other(make: Make, tmp_path: Path) -> None:
    """The second dies while it makes again what was done since the head: the third begins at the head anew."""
    world, nodes, run_id = await begun(make, tmp_path, f"before exec sh -c {THIRD}", {})
    await crash(world, nodes, "b")
    await hold(world, nodes, f"after exec sh -c {SECOND}")
    await crash(world, nodes, "b")
    assert (await world.finish(run_id)).value == ["", "1\n2\n3\n"]
    assert (await moves(world, run_id)).count("moved") == 1, "only who has brought it says so"
    assert (await holds(world, nodes, run_id, "b"))["log"] == "1\n2\n3\n"


async def test_a_sandbox_that_was_being_made_is_made_anew(make: Make, tmp_path: Path) -> None:
    for number, moment in enumerate(("before create", "after create")):
        folder = tmp_path / str(number)
        folder.mkdir()
        world, nodes = await boxed(make, folder, steps)
        run_id = await world.submit(steps, {})
        await hold(world, nodes, moment)
        await crash(world, nodes)
        assert (await world.finish(run_id)).value == ["", "1\n2\n3\n"]
        assert (await moves(world, run_id)).count("opened") == 1


@workflow
async def waits(ctx: Context, given: Any) -> Any:
    box = await ctx.sandbox("coder")
    await box.shell("echo 1 >> log")
    said = await ctx.event("go")
    return [said, await box.read("log")] if given else said


@pytest.mark.parametrize("node", ["a", "b"])
async def test_a_run_that_waits_keeps_what_its_sandbox_holds(node: str, make_on_each: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, waits)
    run_id = await world.submit(waits, True)
    await world.settle()
    assert await moves(world, run_id) == ["opened", "snapshot"]
    assert nodes.released == [("a", run_id, False)]
    await crash(world, nodes, node)
    await world.store.signal(run_id, "go", 7, world.clock())
    assert (await world.finish(run_id)).value == [7, "1\n"]
    assert ran(nodes) == ["sh -c echo 1 >> log"]
    assert nodes.released[-1] == (node, run_id, True)


async def test_nothing_is_touched_before_a_step_needs_it(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, waits)
    run_id = await world.submit(waits, False)
    await world.settle()
    done = list(nodes.done)
    await crash(world, nodes, "b")
    await world.store.signal(run_id, "go", 7, world.clock())
    assert (await world.finish(run_id)).value == 7
    assert nodes.done == done and not (nodes.folder / "b").exists()


async def test_code_that_has_changed_touches_nothing(make: Make, tmp_path: Path) -> None:
    world, nodes, run_id = await begun(make, tmp_path, f"before exec sh -c {THIRD}", {})
    await crash(world, nodes, "b")
    done = list(nodes.done)
    world.redefine(_other)
    result = await world.finish(run_id)
    assert (result.status, result.reason) == (Status.failed, "replay_mismatch")
    assert nodes.done == done and not (nodes.folder / "b").exists()


@workflow(name="steps")
async def _other(ctx: Context, given: dict[str, Any]) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", "another beginning")
    return await box.read("log")


async def test_a_live_box_that_fails_is_brought_back(make: Make, tmp_path: Path) -> None:
    """A call that does not return leaves a workspace that nobody knows: the next one begins with what is known."""
    world, nodes = await boxed(make, tmp_path, steps)
    nodes.break_once = f"exec sh -c {SECOND}"
    result = await world.run(steps, {})
    assert result.value == ["", "1\n2\n3\n"]
    events = await moves(world, result.run_id)
    assert events[:3] == ["opened", "snapshot", "restored"], "the run waits with what is known, and has it again"


@workflow
async def adopting(ctx: Context, given: dict[str, Any]) -> Any:
    """A head, a write after it, and the head adopted again."""
    box = await ctx.sandbox("coder")
    await box.write("log", "head")
    head = await box.snapshot()
    await box.write("log", "newer")
    await box.adopt(head)
    return await box.read("log")


async def test_an_adoption_that_found_something_busy_has_touched_the_workspace(make: Make, tmp_path: Path) -> None:
    """Its workspace was emptied before it waited for what it was to be filled from."""
    world, nodes = await boxed(make, tmp_path, adopting)
    nodes.break_once, nodes.break_code = "adopt any", "busy"
    result = await world.run(adopting, {})
    assert result.value == "head"
    assert "restored" in await moves(world, result.run_id)


@workflow
async def numbers(ctx: Context, text: str) -> Any:
    """What a program said is what the workspace holds: it says something else each time it runs."""
    box = await ctx.sandbox("coder")
    said = await box.shell("echo $$ | tee log")
    await box.snapshot()
    await box.shell(THIRD)
    return [said.stdout, await box.read("log")]


async def test_a_workspace_of_an_owner_that_was_overtaken_is_not_taken_for_the_journals(
    make: Make, tmp_path: Path
) -> None:
    """The first owner's workspace has the right generation again when the third comes to its node, and holds what no
    outcome ever told."""
    world, nodes = await boxed(make, tmp_path, numbers)
    run_id = await world.submit(numbers, "it")
    await hold(world, nodes, "after exec")
    await crash(world, nodes, "b")
    await hold(world, nodes, f"before exec sh -c {THIRD}")
    await crash(world, nodes, "a")
    said, found = (await world.finish(run_id)).value
    assert found == f"{said}3\n"
    assert (await moves(world, run_id)).count("moved") == 2
