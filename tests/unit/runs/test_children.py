"""Children are runs: joins hear what they should, nothing finished runs again, windows and sources hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import World, costs
from tests.unit.runs.conftest import Make

from retinue.host.rows import source_of
from retinue.runs.batch import JOB
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, RunFailed
from retinue.runs.identity import child_id
from retinue.runs.joins import all_of, best_effort, first_success, quorum, seconds

pytestmark = pytest.mark.promise("B2")

worked: list[int] = []
released: dict[int, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    worked.clear()
    released.clear()


def release(*numbers: int) -> None:
    for number in numbers:
        released.setdefault(number, asyncio.Event()).set()


async def work(number: int) -> int:
    worked.append(number)
    await released.setdefault(number, asyncio.Event()).wait()
    if number < 0:
        raise ValueError(f"no {number}")
    return number * 10


@workflow
async def worker(ctx: Context, number: int) -> int:
    return int(await ctx.step(work, number, repeatable=False))


@workflow
async def everyone(ctx: Context, numbers: list[int]) -> list[Any]:
    found = await ctx.map(worker, numbers)
    await ctx.sleep(60)
    return [(branch.index, branch.status.value, branch.value) for branch in found]


async def test_a_failed_branch_is_a_value_beside_the_others(make_on_each: Make) -> None:
    world = await make_on_each(everyone, worker)
    release(1, -2, 3)
    result = await world.run(everyone, [1, -2, 3])
    assert result.value == [[0, "completed", 10], [1, "failed", None], [2, "completed", 30]]
    children = await world.store.list_runs(RunQuery(parent_run_id=result.run_id))
    assert {(child.pool, child.depth, child.root_run_id) for child in children} == {("workers", 1, result.run_id)}
    key = next(intent.key for intent in await world.intents(result.run_id) if intent.effect == "children")
    assert {child.run_id for child in children} == {child_id(result.run_id, key, index) for index in range(3)}


async def test_a_dead_parent_costs_no_finished_child(make_on_each: Make) -> None:
    world = await make_on_each(everyone, worker)
    run_id = await world.submit(everyone, [1, 2, 3])
    release(1)
    await world.until(lambda: sorted(worked) == [1, 2, 3])
    key = (await world.until_journaled(run_id, lambda es: any(e.kind == "intent" for e in es)))[-2].key
    await world.until_journaled(child_id(run_id, "0/worker#0", 0), lambda es: es[-1].kind == "finished")
    await world.crash()
    group = (await world.store.look(run_id)).groups[key]
    assert (group.total, group.ok, group.pending) == (3, 1, 2)
    worked.clear()
    for index in (1, 2):
        await world.answer(child_id(run_id, "0/worker#0", index), "fail")
    result = await world.finish(run_id)
    assert [entry[1] for entry in result.value] == ["completed", "failed", "failed"]
    assert worked == []


@pytest.mark.rule("R12")
async def test_a_parent_journals_one_intent_and_one_outcome_for_all_its_children(make_on_each: Make) -> None:
    world = await make_on_each(everyone, worker)
    numbers = list(range(1, 61))
    release(*numbers)
    result = await world.run(everyone, numbers)
    assert [entry[2] for entry in result.value] == [number * 10 for number in numbers]
    mine = [e for e in await world.entries(result.run_id) if getattr(e, "effect", "") == "children"]
    assert [entry.kind for entry in mine] == ["intent", "outcome"]
    assert mine[1].content is None and mine[1].facts["total"] == 60


@workflow
async def joined(ctx: Context, given: dict[str, Any]) -> list[Any]:
    join = {"first": first_success, "two": lambda: quorum(2), "soon": lambda: best_effort("90s"), "all": all_of}
    found = await ctx.map(worker, given["numbers"], join=join[given["join"]]())
    await ctx.event("go")
    return [branch.index for branch in found]


async def hear(world: World, run_id: str) -> Any:
    """The result, after a replay of the join."""
    await world.crash()
    await world.store.signal(run_id, "go", None, START)
    return (await world.finish(run_id)).value


async def joined_by(world: World, run_id: str) -> None:
    await world.until_journaled(run_id, lambda es: any(e.kind == "outcome" and e.effect == "children" for e in es))


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("join", "first", "heard"), [("first", [2], [1]), ("two", [1, 3], [0, 2])])
async def test_a_join_hears_what_it_needs_and_cancels_the_rest(
    make_on_each: Make, join: str, first: list[int], heard: list[int]
) -> None:
    world = await make_on_each(joined, worker)
    run_id = await world.submit(joined, {"numbers": [1, 2, 3, 4], "join": join})
    await world.until(lambda: sorted(worked) == [1, 2, 3, 4])
    release(*first)
    await joined_by(world, run_id)
    assert await hear(world, run_id) == heard
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    assert sorted(child.status for child in children) == ["canceled"] * (4 - len(first)) + ["completed"] * len(first)


@pytest.mark.rule("R1")
async def test_a_join_of_many_that_was_cut_short_hears_the_same_after_a_crash(make_on_each: Make) -> None:
    world = await make_on_each(joined, worker)
    world.use(inline_branches=1)
    run_id = await world.submit(joined, {"numbers": [1, 2, 3, 4, 5], "join": "two"})
    await world.until(lambda: sorted(worked) == [1, 2, 3, 4, 5])
    release(1, 3)
    await joined_by(world, run_id)
    release(2, 4, 5)
    await world.settle()
    assert await hear(world, run_id) == [0, 2]


@workflow
async def sleeper(ctx: Context, seconds: float) -> float:
    if seconds:
        await ctx.sleep(seconds)
    return seconds


@workflow
async def raced(ctx: Context, times: list[float]) -> list[Any]:
    return [[b.index, b.status.value] for b in await ctx.map(sleeper, times, join=first_success())]


class DiesAfterCancel:
    """A journal whose owner never hears that the rest of its join was canceled."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.canceled: asyncio.Future[Any] | None = None

    def append(self, append: Any) -> asyncio.Future[Any]:
        applied = asyncio.ensure_future(self._store.append(append))
        if append.spawn is None or not append.spawn.cancel_rest:
            return applied
        self.canceled = applied
        return asyncio.get_running_loop().create_future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.rule("R1")
@pytest.mark.promise("C6")
@pytest.mark.parametrize("inline", [32, 0])
async def test_an_owner_that_dies_between_cancel_and_outcome_of_a_join_changes_nothing(
    make_on_each: Make, inline: int
) -> None:
    world = await make_on_each(raced, sleeper)
    journal = DiesAfterCancel(world.store)
    world.use(journal=journal, inline_branches=inline)
    run_id = await world.submit(raced, [9_000.0, 0.0, 9_000.0])
    await world.until(lambda: journal.canceled is not None and journal.canceled.done())
    await world.crash()
    world.use(journal=world.store)
    assert (await world.finish(run_id)).value == [[1, "completed"]]
    [outcome] = await world.outcomes(run_id)
    assert (outcome.facts["ok"], outcome.facts["failed"]) == (1, 0)


async def test_best_effort_goes_on_at_its_deadline_with_what_there_is(make_on_each: Make) -> None:
    world = await make_on_each(joined, worker)
    run_id = await world.submit(joined, {"numbers": [1, 2], "join": "soon"})
    await world.until(lambda: sorted(worked) == [1, 2])
    release(1)
    await world.until_journaled(run_id, lambda es: es[-1].kind == "parked")
    world.clock.advance(91)
    await world.store.tend(world.host, world.clock.now, 3_600.0)
    await joined_by(world, run_id)
    assert await hear(world, run_id) == [0]


async def test_a_join_out_of_reach_goes_on_with_what_failed(make: Make) -> None:
    world = await make(joined, worker)
    run_id = await world.submit(joined, {"numbers": [-1, -2], "join": "first"})
    release(-1, -2)
    await world.store.signal(run_id, "go", None, START)
    assert (await world.finish(run_id)).value == [0, 1]


def test_joins_and_durations_refuse_what_makes_no_sense() -> None:
    assert [seconds(text) for text in ("90s", "5m", "2h", "1d", "250ms", 3)] == [90, 300, 7200, 86400, 0.25, 3]
    for bad in ("5 minutes", "", "-3s", -1):
        with pytest.raises(InvalidInput):
            seconds(bad)
    with pytest.raises(InvalidInput):
        quorum(0)


@workflow
async def alone(ctx: Context, number: int) -> str:
    try:
        return str(await ctx.run(worker, number))
    except RunFailed as error:
        return f"{error.reason}: {error}"


async def test_one_child_gives_its_output_or_its_reason(make: Make) -> None:
    world = await make(alone, worker)
    release(4, -4)
    assert (await world.run(alone, 4)).value == "40"
    assert "tool_failure: worker: step work raised ValueError: no -4" in (await world.run(alone, -4)).value


async def test_a_cancel_reaches_every_child_first(make_on_each: Make) -> None:
    world = await make_on_each(everyone, worker)
    run_id = await world.submit(everyone, [1, 2])
    await world.until(lambda: sorted(worked) == [1, 2])
    assert await world.store.cancel(run_id, "bob", world.clock()) == 3
    result = await world.finish(run_id)
    assert result.reason is StopReason.canceled
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    assert [child.status for child in children] == [Status.canceled] * 2


spender = agent("spender", "Spend.", max_tokens=100)


@workflow
async def spread(ctx: Context, count: int) -> list[str]:
    found = await ctx.map(spender, [f"item {n}" for n in range(count)], window=2)
    return [branch.reason.value for branch in found]


@pytest.mark.promise("A5")
async def test_a_fan_out_without_money_waits_for_a_child_to_give_some_back(make_on_each: Make) -> None:
    world = await make_on_each(spread, spender)
    dear = costs({"answer": "x"}, "0.030000")
    cheap = costs({"answer": "y"}, "0.010000")
    lines = [{"match": {"input": "item 0"}, "decisions": [dear]}]
    lines += [{"match": {"input": "item 1"}, "decisions": [{**cheap, "latency_ms": 200}]}]
    world.script(*lines, {"match": {}, "decisions": [cheap]})
    looks = []
    look = world.store.look

    async def counted(run_id: str) -> Any:
        looks.append(run_id)
        return await look(run_id)

    world.store.look = counted  # type: ignore[method-assign]
    result = await world.run(spread, 3, budget=Budget(usd="0.06"))
    assert result.value[:2] == ["success"] * 2 and len(result.value) == 3
    assert len(looks) < 20


def rows(folder: Path, count: int) -> Any:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"id": f"r{n}", "n": n}) for n in range(count)]
    lines.insert(2, "{not json")
    path.write_text("\n".join(lines) + "\n")
    return source_of(path)


def change(source: Any) -> None:
    Path(source.path).write_text('{"n": 1}\n')


@workflow
async def row(ctx: Context, given: dict[str, Any]) -> int:
    return int(await ctx.step(work, given["n"]))


async def job(world: World, source: Any, window: int) -> str:
    given = {"target": "row", "source": source.model_dump(mode="json"), "window": window}
    return await world.submit(JOB, given)


@pytest.mark.promise("B5")
@pytest.mark.rule("R12")
async def test_rows_are_created_a_window_at_a_time_and_bad_ones_set_aside(make_on_each: Make, tmp_path: Path) -> None:
    world = await make_on_each(row)
    run_id = await job(world, rows(tmp_path, 10), window=4)
    await world.until(lambda: len(worked) == 4)
    [group] = (await world.store.look(run_id)).groups.values()
    assert (group.total, group.pending, group.exhausted) == (4, 4, False)
    release(0, 1)
    await world.until(lambda: len(worked) == 6)
    await world.crash()
    release(*range(10))
    result = await world.finish(run_id)
    assert result.value == {"total": 10, "ok": 10, "failed": 0, "rejected": 1}
    [letter] = await world.store.dead_letters()
    assert (letter.line, letter.reason) == (3, "not_json")
    children = await world.store.list_runs(RunQuery(parent_run_id=run_id, limit=100))
    assert sorted(child.input_id for child in children if child.input_id) == [f"r{n}" for n in range(10)]


@pytest.mark.promise("B5")
async def test_a_source_that_changed_is_refused(make: Make, tmp_path: Path) -> None:
    world = await make(row)
    source = rows(tmp_path, 3)
    change(source)
    result = await world.finish(await job(world, source, window=2))
    assert result.error is not None and "changed since the job began" in result.error.message


@pytest.mark.rule("R12")
async def test_a_large_fan_out_leaves_its_host_time_for_others(make: Make) -> None:
    """A host that is not heard of is taken for dead, and one that never looks hears of no signal."""
    world = await make(everyone, worker)
    world.use(spawn_chunk=1)
    run_id = await world.submit(everyone, list(range(100)))
    await world.lease()
    seen: set[int] = set()
    async with asyncio.timeout(30):
        while 100 not in seen:
            await asyncio.sleep(0)
            seen |= {group.total for group in world.active[run_id].news.groups.values()}
    assert len(seen) >= 100, "others had their turn after each chunk"
    await world.crash()
