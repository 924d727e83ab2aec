"""Random work in sandboxes with owners that die at random moments, on random nodes: nothing is lost or done twice.

Each step appends its name to a file of the workspace, so the file tells which steps it holds, how often, and in which
order. A step that must not be repeated and was cut off says so; all others are there exactly once.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, moves

from retinue.runs.context import Context
from retinue.runs.contracts import Json
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError
from retinue.runs.sandbox_handles import SandboxHandle

pytestmark = [pytest.mark.promise("E2", "E4"), pytest.mark.rule("R5")]

MOMENTS = ("before", "after")


@workflow
async def program(ctx: Context, steps: list[Json], state: dict[str, Any] | None = None) -> Any:
    """Do the steps from the one that the state names."""
    done = state or {"at": 0, "lost": []}
    box = await ctx.sandbox("coder", name="work")
    for at in range(done["at"], len(steps)):
        kind, name = steps[at]
        try:
            await do(box, kind, name)
        except PermanentError as error:
            if error.code != "lost_exec":
                raise
            done["lost"].append(name)
        if kind == "wait":
            await ctx.sleep(60)
        if kind == "checkpoint":
            await ctx.checkpoint("step", {**done, "at": at + 1})
    return {"log": (await box.read("log")).split() if "log" in _names(await box.list()) else [], "lost": done["lost"]}


async def do(box: SandboxHandle, kind: str, name: str) -> None:
    """One step; those that speak append their name to the log."""
    match kind:
        case "exec" | "once":
            await box.exec("sh", "-c", f"echo {name} >> log", replayable=kind == "exec")
        case "write":
            await box.write(f"{name}.txt", name)
            await box.shell(f"cat {name}.txt >> log; echo >> log")
        case "edit":
            await box.write("edited", "old")
            await box.edit("edited", "old", name)
            await box.shell("cat edited >> log; echo >> log")
        case "snapshot":
            await box.snapshot()
        case "fork":
            [copy] = await box.fork(1)
            await copy.shell(f"echo {name} >> log")
            await box.adopt(await copy.snapshot())
            await copy.close()


def _names(entries: Any) -> set[str]:
    return {entry.path for entry in entries}


KINDS = ("exec", "exec", "once", "write", "edit", "snapshot", "fork", "wait", "checkpoint")
SPEAKING = ("exec", "once", "write", "edit", "fork")


@pytest.mark.parametrize("seed", range(40))
async def test_what_a_sandbox_holds_is_what_the_journal_says(seed: int, make: Make, tmp_path: Path) -> None:
    chance = random.Random(seed)
    steps = [[chance.choice(KINDS), f"s{number}"] for number in range(chance.randint(3, 12))]
    world, nodes = await boxed(make, tmp_path, program)
    run_id = await world.submit(program, steps)
    for _ in range(chance.randint(2, 6)):
        nodes.held.clear()
        nodes.hold.add(
            f"{chance.choice(MOMENTS)} {chance.choice(['exec', 'exec', 'exec', 'write', 'edit', 'snapshot', 'adopt'])}"
        )
        nodes.skips = chance.randint(0, 2)
        await _until_held(world, nodes)
        await crash(world, nodes, chance.choice("ab"))
    nodes.skips = 0
    result = await world.finish(run_id)
    assert result.ok, result.problem
    wanted = [name for kind, name in steps if kind in SPEAKING and name not in result.value["lost"]]
    assert result.value["log"] == wanted, await moves(world, run_id)
    once = {name for kind, name in steps if kind == "once"}
    assert set(result.value["lost"]) <= once


async def _until_held(world: Any, nodes: Any) -> None:
    """Drive until an operation is held still, or the run has ended."""
    for _ in range(20):
        for _ in range(50):
            await world.lease()
            await world.pass_news()
            await _soon(world, nodes)
            if nodes.held or not world.active:
                break
        if nodes.held or not await world.wait_out():
            return


async def _soon(world: Any, nodes: Any) -> None:
    for _ in range(100):
        if nodes.held or not world.active:
            return
        await asyncio.sleep(0.001)
