"""R9 and R5: an exec is bounded by the deadline that is on record, and a cancel leaves no state without its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.sandboxes import FolderSandboxes
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, hold, moves, ran, told

from retinue.runs.capabilities import Caller, CallResult, Prepared
from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import workflow
from retinue.sessions.gateway import CapabilityGateway


@workflow
async def twice(ctx: Context, given: Any) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", "0\n")
    await box.shell("echo 1 >> log", timeout=900)
    await ctx.event("go")
    await box.shell("echo 2 >> log", timeout=900)
    return await box.read("log")


@workflow
async def once(ctx: Context, given: Any) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", "0\n")
    await box.snapshot()
    await box.shell("echo 1 >> log", replayable=False)
    return await box.read("log")


@pytest.mark.rule("R9")
@pytest.mark.promise("E4")
@pytest.mark.parametrize("late", [1.0, 200.0])
async def test_an_exec_has_the_deadline_that_is_on_record(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    world, nodes = await boxed(make, tmp_path, twice)
    execute, restore = CapabilityGateway.execute, FolderSandboxes.restore
    given: list[tuple[Any, int, float]] = []

    async def spy(self: CapabilityGateway, call: Prepared, caller: Caller, *more: Any) -> CallResult:
        if call.capability.name == "sandbox.exec":
            on_record = [one for one in await world.intents(run_id) if one.name == "sandbox.exec"][-1]
            left = (caller.deadline - world.clock()) / 1e9
            given.append((on_record.facts.get("deadline"), caller.deadline, left))
        result: Any = await execute(self, call, caller, *more)
        return result

    async def slow(self: FolderSandboxes, *words: Any) -> Any:
        world.clock.advance(late)
        return await restore(self, *words)

    monkeypatch.setattr(CapabilityGateway, "execute", spy)
    monkeypatch.setattr(FolderSandboxes, "restore", slow)
    run_id = await world.submit(twice)
    await world.settle()
    await crash(world, nodes, "b")
    await world.store.signal(run_id, "go", None, world.clock())
    assert (await world.finish(run_id)).value == "0\n1\n2\n"
    assert len(given) == 2 and all(deadline == used for deadline, used, _ in given)
    assert all(left >= 900 for _, _, left in given), "the command has all of its own time"


@pytest.mark.rule("R5")
@pytest.mark.promise("E2")
@pytest.mark.parametrize("moment", ["before snapshot", "after snapshot"])
@pytest.mark.parametrize("end", ["cancel", "deadline"])
async def test_an_end_while_an_exec_is_kept_leaves_no_generation_that_no_outcome_tells(
    make_on_each: Make, tmp_path: Path, moment: str, end: str
) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, once)
    run_id = await world.submit(once, deadline=world.clock() + 100 * 10**9)
    nodes.skips = 1
    await hold(world, nodes, moment)
    assert ran(nodes) == ["sh -c echo 1 >> log"]
    nodes.hold.clear()
    if end == "cancel":
        await world.store.cancel(run_id, "ben", world.clock())
    else:
        world.clock.advance(200)
        world.active[run_id].take(await world.store.look(run_id))
    await world.settle()
    assert (await world.store.get(run_id)).status is (Status.canceled if end == "cancel" else Status.failed)
    assert [one.facts["generation"] for one in await told(world, run_id)][-1] == 1
    if end == "cancel":
        return
    await world.retry(run_id)
    assert (await world.finish(run_id)).value == "0\n1\n", "the workspace is brought back to before"
    assert "lost" not in await moves(world, run_id)
