"""The work in LangGraph with its SQLite checkpointer: graphs and entrypoints, async and sync.

Each way has a short pilot and the fastest is measured. Chosen in LangGraph's favour:
- durability="sync": a checkpoint is written before the next superstep begins. The writes of an entrypoint's tasks are
  only *begun* before its next step (no setting waits for them), which is less than the other engines promise.
- The saver switches the file to WAL; synchronous=FULL is asked for, so that a commit is on disk.
- The state holds the last payload only: with a list, each checkpoint would repeat all earlier ones.
- A child is a task of one superstep (`Send`), in this process: LangGraph has no children with runs of their own.
  Tasks of an entrypoint were slower (0.6 s for 1,000, 39 s for 10,000), and so was the async saver.
"""

from __future__ import annotations

import asyncio
import operator
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import aiosqlite
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from measure import (
    CHILDREN,
    PAYLOAD,
    PILOT_RUNS,
    PILOT_STEPS,
    SEQUENTIAL,
    STEPS,
    Stopwatch,
    bytes_in,
    counts_within_the_limit,
    report,
    runs_within_the_limit,
)

WAYS = ("async graph", "async tasks", "sync graph", "sync tasks")
THREADS = 32  # for concurrent runs of the sync saver, which locks its one connection: more only wait


class State(TypedDict):
    """What a graph's run carries from step to step."""

    left: int
    payload: str


class FanOut(TypedDict):
    """What the parent of a fan-out holds."""

    count: int
    total: Annotated[int, operator.add]


def step_of_graph(state: State) -> State:
    """A no-op step."""
    return {"left": state["left"] - 1, "payload": PAYLOAD}


@task
async def async_step(number: int) -> str:
    """A no-op step."""
    return PAYLOAD


@task
def sync_step(number: int) -> str:
    """A no-op step."""
    return PAYLOAD


def graph_of(saver: Any) -> Any:
    """One node that goes round until nothing is left: a superstep a step."""
    builder = StateGraph(State)
    builder.add_node("step", step_of_graph)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if state["left"] else END)
    return builder.compile(checkpointer=saver)


def async_tasks_of(saver: Any) -> Any:
    """An entrypoint that awaits one task after the other."""

    @entrypoint(checkpointer=saver)
    async def flow(count: int) -> str:
        for number in range(count):
            payload = await async_step(number)
        return payload

    return flow


def sync_tasks_of(saver: Any) -> Any:
    """The same without a loop."""

    @entrypoint(checkpointer=saver)
    def flow(count: int) -> str:
        for number in range(count):
            payload = sync_step(number).result()
        return payload

    return flow


def fan_out_of(saver: Any) -> Any:
    """All children in one superstep; the state adds up what they give back."""
    builder = StateGraph(FanOut)
    builder.add_node("child", lambda state: {"total": state["number"]})
    builder.add_conditional_edges(
        START, lambda state: [Send("child", {"number": number}) for number in range(state["count"])], ["child"]
    )
    return builder.compile(checkpointer=saver)


def options(thread: str, steps: int) -> dict[str, Any]:
    """How every run is started: one superstep more than steps, each checkpoint before the next superstep."""
    config = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 10}
    return {"config": config, "durability": "sync"}


@asynccontextmanager
async def async_saver(folder: Path) -> AsyncIterator[AsyncSqliteSaver]:
    """A fresh store of the async saver."""
    async with aiosqlite.connect(folder / "checkpoints.db") as connection:
        await connection.execute("PRAGMA synchronous = FULL")
        yield AsyncSqliteSaver(connection)


@contextmanager
def sync_connection(folder: Path) -> Iterator[sqlite3.Connection]:
    """The connection of a fresh store of the sync saver."""
    with closing(sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        yield connection


async def seconds_for(way: str, runs: int, steps: int, folder: Path) -> float:
    """Seconds for `runs` concurrent runs of `steps` steps in a fresh store."""
    if way.startswith("sync"):
        return await asyncio.to_thread(sync_seconds_for, way, runs, steps, folder)
    async with async_saver(folder) as saver:
        flow = graph_of(saver) if way == "async graph" else async_tasks_of(saver)
        first = {"left": steps, "payload": ""} if way == "async graph" else steps
        await flow.ainvoke({"left": 2, "payload": ""} if way == "async graph" else 2, **options("warm", 2))
        with Stopwatch() as watch:
            await asyncio.gather(*(flow.ainvoke(first, **options(f"run-{run}", steps)) for run in range(runs)))
        return watch.seconds


def sync_seconds_for(way: str, runs: int, steps: int, folder: Path) -> float:
    """The same with the sync saver: concurrent runs on threads."""
    with sync_connection(folder) as connection:
        flow = graph_of(SqliteSaver(connection)) if way == "sync graph" else sync_tasks_of(SqliteSaver(connection))
        first = {"left": steps, "payload": ""} if way == "sync graph" else steps
        flow.invoke({"left": 2, "payload": ""} if way == "sync graph" else 2, **options("warm", 2))
        with ThreadPoolExecutor(THREADS) as pool, Stopwatch() as watch:
            list(pool.map(lambda run: flow.invoke(first, **options(f"run-{run}", steps)), range(runs)))
    return watch.seconds


async def measured(way: str, runs: int, steps: int) -> tuple[float, int]:
    """(seconds, bytes of the closed store)."""
    with tempfile.TemporaryDirectory() as folder:
        return await seconds_for(way, runs, steps, Path(folder)), bytes_in(Path(folder))


async def piloted(way: str, runs: int, steps: int) -> tuple[float, int]:
    """The faster of two tries: a noisy one must not choose the way."""
    return min([await measured(way, runs, steps), await measured(way, runs, steps)])


def fan_out(count: int) -> float:
    """Seconds for `count` children of one run."""
    with tempfile.TemporaryDirectory() as folder, sync_connection(Path(folder)) as connection:
        flow = fan_out_of(SqliteSaver(connection))
        flow.invoke({"count": 10, "total": 0}, **options("warm", 10))
        with Stopwatch() as watch:
            final = flow.invoke({"count": count, "total": 0}, **options("fan-out", count))
        assert final["total"] == count * (count - 1) // 2
        return watch.seconds


async def main() -> None:
    """Pilots, then the figures."""
    one = {way: await piloted(way, 1, PILOT_STEPS) for way in WAYS}
    many = {way: await piloted(way, PILOT_RUNS, STEPS) for way in WAYS}
    print("pilots, seconds and bytes:", one, many, file=sys.stderr)
    way = min(one, key=lambda way: one[way])
    seconds, size = await measured(way, 1, SEQUENTIAL)
    report("langgraph_steps_1_run", SEQUENTIAL / seconds, "1/s", way)
    report("langgraph_bytes_per_step", (size - one[way][1]) / (SEQUENTIAL - PILOT_STEPS), "B", way)
    way = min(many, key=lambda way: many[way])
    runs = runs_within_the_limit(PILOT_RUNS, many[way][0])
    seconds, _ = await measured(way, runs, STEPS)
    report("langgraph_steps_1000_runs", runs * STEPS / seconds, "1/s", f"{way}, {runs:,} runs")
    seconds = fan_out(CHILDREN[0])
    report(f"langgraph_fanout_{CHILDREN[0]}", seconds, "s", "sync graph, Send")
    for count in counts_within_the_limit(seconds):
        report(f"langgraph_fanout_{count}", fan_out(count), "s", "sync graph, Send")


if __name__ == "__main__":
    asyncio.run(main())
