"""How sandboxes end, and go on: canceled runs, retries, forks of runs, what cannot be kept, what was long ago."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.sandboxes import files
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, hold, holds, moves, ran, told

from retinue.runs import sandbox_past
from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import workflow
from retinue.runs.doors import Doors
from retinue.runs.errors import PermanentError
from retinue.runs.journal import Checkpoint, Outcome

pytestmark = [pytest.mark.promise("E2", "E4"), pytest.mark.rule("R5")]

broken: list[str] = []


@workflow
async def sleeps(ctx: Context, text: str) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", text)
    await box.shell("echo $$ > pid; sleep 600", timeout="1h")


@pytest.mark.promise("B5")
async def test_a_cancel_ends_the_programs_and_closes_the_sandbox(make_on_each: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, sleeps)
    run_id = await world.submit(sleeps, "it")
    found: list[Path] = []

    def running() -> bool:
        found[:] = [one for one in nodes.folder.rglob("pid") if one.read_text()]
        return bool(found and nodes.begun)

    await world.until(running)
    pid = int(found[0].read_text())
    await world.store.cancel(run_id, "ben", world.clock())
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.canceled
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await moves(world, run_id) == ["opened", "closed"], "nothing is kept of what was cut off"
    [outcome] = [one for one in await world.outcomes(run_id) if one.name == "sandbox.exec"]
    assert outcome.result == "canceled"
    assert nodes.released[-1] == ("a", run_id, True)


async def test_a_cancel_does_not_wait_for_a_snapshot(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, pages)
    run_id = await world.submit(pages, 3)
    await hold(world, nodes, "before snapshot")
    await world.store.cancel(run_id, "ben", world.clock())
    await world.settle()
    assert (await world.store.get(run_id)).status is Status.canceled
    assert await moves(world, run_id) == ["opened", "closed"]


@workflow
async def pages(ctx: Context, most: int, state: dict[str, int] | None = None) -> Any:
    page = (state or {"page": 0})["page"]
    box = await ctx.sandbox("coder", name="work")
    await box.shell(f"echo {page} >> log")
    if page == most:
        return await box.read("log")
    await ctx.checkpoint("page", {"page": page + 1})


@workflow
async def fails(ctx: Context, text: str) -> Any:
    box = await ctx.sandbox("coder")
    await box.shell("echo 1 >> log")
    if broken:
        raise PermanentError("broken", code="broken")
    await box.shell("echo 2 >> log")
    return await box.read("log")


@pytest.mark.parametrize("node", ["a", "b"])
async def test_a_retry_goes_on_with_what_the_sandbox_held(node: str, make_on_each: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, fails)
    broken.append("it")
    run_id = await world.submit(fails, "it")
    assert (await world.finish(run_id)).status is Status.failed
    assert await moves(world, run_id) == ["opened", "snapshot", "closed"]
    broken.clear()
    await crash(world, nodes, node)
    await world.retry(run_id)
    result = await world.finish(run_id)
    assert result.value == "1\n2\n"
    assert ran(nodes).count("sh -c echo 1 >> log") == 1
    assert (await moves(world, run_id))[3:] == ["moved" if node == "b" else "attached", "snapshot", "closed"]


@workflow
async def long_one(ctx: Context, text: str) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("log", text)
    await box.snapshot()
    await box.shell("echo 1 >> log")
    await box.shell("echo 2 >> log")
    return await box.read("log")


async def test_a_fork_of_a_run_has_a_workspace_of_its_own(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, long_one)
    result = await world.run(long_one, "begun\n")
    before = list(nodes.done)
    fork_id = await world.fork(result.run_id, "sandbox.exec#1")
    await crash(world, nodes, "b")
    assert (await world.finish(fork_id)).value == "begun\n1\n2\n"
    done = [operation for _, operation, _ in nodes.done[len(before) :]]
    assert done == ["restore", "exec", "exec", "snapshot"], "the head, what was done since, and the step it begins with"
    [opened] = [one.facts for one in await told(world, result.run_id) if one.facts["event"] == "opened"]
    moved = (await told(world, fork_id))[0].facts
    assert moved["forked_from"] == moved["place"] == opened["sandbox_id"] != moved["sandbox_id"]
    again = await world.fork(fork_id, "sandbox.exec#1")
    assert (await world.finish(again)).value == "begun\n1\n2\n"


async def test_a_fork_at_a_checkpoint_has_what_was_kept_there(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, pages)
    result = await world.run(pages, 2)
    fork_id = await world.fork(result.run_id, "checkpoint:1")
    nodes.seeds.clear()
    assert (await world.finish(fork_id)).value == "0\n1\n2\n"
    ids = {one.facts["sandbox_id"] for run in (result.run_id, fork_id) for one in await told(world, run)}
    assert len(ids) == 2


@workflow
async def two(ctx: Context, text: str) -> Any:
    for name in ("one", "other"):
        await (await ctx.sandbox("coder", name=name)).write("log", text)
    return text


async def test_an_end_keeps_all_sandboxes_at_once(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, two)
    run_id = await world.submit(two, "it")
    nodes.hold.add("before snapshot")
    await world.until(lambda: nodes.held == ["before snapshot"] * 2)
    await crash(world, nodes)
    assert (await world.finish(run_id)).value == "it"
    assert (await moves(world, run_id))[-2:] == ["closed", "closed"]


async def test_a_sandbox_that_cannot_be_kept_goes_on_where_it_is(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, pages)
    nodes.refuse_after = 0
    run_id = await world.submit(pages, 2)
    await hold(world, nodes, "before exec sh -c echo 2 >> log")
    [state] = _states(await world.entries(run_id))[-1].values()
    assert (state.must_recreate, state.head_snapshot_id, state.generation) == (True, None, 2)
    await crash(world, nodes, "a")
    assert (await world.finish(run_id)).value == "0\n1\n2\n"
    events = await moves(world, run_id)
    assert events.count("not_kept") <= 3 and "the store of snapshots is full" in str(await told(world, run_id))


async def test_what_was_done_before_a_checkpoint_that_kept_nothing_cannot_be_made_again(
    make: Make, tmp_path: Path
) -> None:
    world, nodes = await boxed(make, tmp_path, pages)
    nodes.refuse_after = 0
    run_id = await world.submit(pages, 2)
    await hold(world, nodes, "before exec sh -c echo 2 >> log")
    await crash(world, nodes, "b")
    result = await world.finish(run_id)
    assert result.status is Status.failed and "is not known" in (result.problem or "")
    assert not (nodes.folder / "b").exists(), "nothing is made of what cannot be had"


@workflow
async def many(ctx: Context, count: int) -> Any:
    box = await ctx.sandbox("coder")
    for number in range(count):
        await box.write(f"file-{number}", str(number))
    return len(await box.list())


async def test_much_work_takes_a_head_of_its_own(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_past, "_MOST_OPERATIONS", 4)
    world, nodes = await boxed(make, tmp_path, many)
    run_id = await world.submit(many, 10)
    await hold(world, nodes, "before write file-9")
    outcomes = [one for one in await world.entries(run_id) if isinstance(one, Outcome) and "head" in one.facts]
    assert [one.facts["generation"] for one in outcomes] == [4, 8]
    done = len(nodes.done)
    await crash(world, nodes, "b")
    assert (await world.finish(run_id)).value == 10
    again = [detail for _, operation, detail in nodes.done[done:] if operation == "write"]
    assert again == ["file-8", "file-9"], "only what was done since"


async def guest(doors: Doors, text: str) -> Any:
    """An agent of another framework works in a sandbox through its doors."""
    opened = await doors.call("sandbox.open", manifest="coder")
    await asyncio.gather(
        *(
            doors.call("sandbox.exec", sandbox=opened["sandbox"], argv=["sh", "-c", f"echo {n} >> log"])
            for n in range(3)
        )
    )
    await doors.call("sandbox.exec", sandbox=opened["sandbox"], argv=["sh", "-c", "echo end >> log"])
    return (await doors.call("sandbox.read", sandbox=opened["sandbox"], path="log"))["text"]


@workflow
async def adopts(ctx: Context, text: str) -> Any:
    return await ctx.adopt(guest, text)


@pytest.mark.parametrize("node", ["a", "b"])
async def test_an_adopted_function_finds_its_sandbox_again(node: str, make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, adopts)
    run_id = await world.submit(adopts, "it")
    await hold(world, nodes, "after exec sh -c echo end >> log")
    await crash(world, nodes, node)
    assert sorted((await world.finish(run_id)).value.split()) == ["0", "1", "2", "end"]
    assert (await holds(world, nodes, run_id, node))["log"].endswith("end\n")


async def test_the_workspaces_of_two_runs_are_apart(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, long_one)
    runs = [await world.submit(long_one, f"{n}\n") for n in range(3)]
    assert [(await world.finish(run)).value for run in runs] == ["0\n1\n2\n", "1\n1\n2\n", "2\n1\n2\n"]
    assert len(list((nodes.folder / "a").iterdir())) == 3
    assert all(files(one / "tree") for one in (nodes.folder / "a").iterdir())


def _states(entries: Any) -> list[Any]:
    return [one.sandboxes for one in entries if isinstance(one, Checkpoint)]
