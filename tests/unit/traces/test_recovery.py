"""What the tables survive: kill -9, another store, damage, a full disk, cancellation; nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.traces.books import Book, Run
from tests.unit.traces.conftest import Open, contents, drain
from tests.unit.traces.journeys import tale

from retinue.runs.contracts import Status, StopReason
from retinue.runs.errors import StoreBusy, StoreError
from retinue.traces.file import NAME

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)


def killed_after(lines: int, folder: Path, runs: int) -> bool:
    """Project in a process that is killed after so many batches; whether it had ended by itself."""
    with start("projecting.py", folder, runs, 23) as process:
        assert process.stdout is not None
        for _ in range(lines):
            if not process.stdout.readline():
                return process.wait() == 0
        process.kill()
    return False


@pytest.mark.promise("I3")
async def test_a_projection_killed_again_and_again_gives_the_tables_of_an_undisturbed_one(
    tmp_path: Path, open_traces: Open
) -> None:
    book = tale(40)
    kills = 0
    while not await asyncio.to_thread(killed_after, 4 + kills % 3, tmp_path / "killed", 40):
        kills += 1
        assert kills < 50, "no progress"
    assert kills >= 4
    undisturbed = await open_traces(book, "undisturbed")
    await drain(undisturbed)
    killed = await open_traces(book, "killed")
    assert await killed.project() == 0, "the killed one had projected everything"
    assert await contents(killed) == await contents(undisturbed)
    ledger = (await killed.query("SELECT sum(frames)::BIGINT AS frames, max(seq) AS seq FROM ingest")).to_pylist()
    assert ledger == [{"frames": len(book.frames), "seq": len(book.frames)}]


@pytest.mark.promise("I3")
async def test_a_clock_that_was_set_back_between_two_owners_changes_nothing_after_a_restart(open_traces: Open) -> None:
    book = Book()
    run = Run(book, "jumping").accept().lease()
    book.tick(-20_000)
    run.lease()
    undisturbed = await open_traces(book, "undisturbed")
    restarted = await open_traces(book, "restarted")
    await restarted.project()
    await restarted.close()
    await undisturbed.project()
    run.finish(Status.completed, StopReason.success)
    restarted = await open_traces(book, "restarted")
    for traces in (undisturbed, restarted):
        await drain(traces)
    assert await contents(restarted) == await contents(undisturbed)


async def rebuilt(open_traces: Open, before: Book, after: Book) -> bool:
    """Whether tables made from one book are made anew for another, and right in any case."""
    first = await open_traces(before)
    await drain(first)
    await first.close()
    second = await open_traces(after)
    moved = await drain(second)
    fresh = await open_traces(after, "fresh")
    await drain(fresh)
    assert await contents(second) == await contents(fresh)
    return moved == len(after.frames)


@pytest.mark.rule("R11")
async def test_another_incarnation_of_the_store_rebuilds(open_traces: Open) -> None:
    assert await rebuilt(open_traces, tale(4), tale(4, book=Book("store-2")))


@pytest.mark.rule("R11")
async def test_a_cursor_beyond_the_stores_newest_frame_rebuilds(open_traces: Open) -> None:
    shorter = tale(4)
    shorter.frames = shorter.frames[:10]
    assert await rebuilt(open_traces, tale(4), shorter)


@pytest.mark.rule("R11")
async def test_another_frame_at_the_cursor_rebuilds(open_traces: Open) -> None:
    before = tale(4, seed=2)
    other = tale(6, seed=3)
    assert len(other.frames) > len(before.frames)
    assert await rebuilt(open_traces, before, other)


@pytest.mark.rule("R11")
async def test_the_same_store_goes_on_without_a_rebuild(open_traces: Open) -> None:
    longer = tale(4)
    shorter = tale(4)
    shorter.frames = shorter.frames[:10]
    assert not await rebuilt(open_traces, shorter, longer)


@pytest.mark.parametrize("suffix", ["", ".wal"])
async def test_a_damaged_file_is_set_aside_and_rebuilt(tmp_path: Path, open_traces: Open, suffix: str) -> None:
    book = tale(6)
    with start("projecting.py", tmp_path / "data", 6, 20) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.kill()
    path = tmp_path / "data" / f"{NAME}{suffix}"
    damaged = bytearray(path.read_bytes())
    for place in range(len(damaged) // 4, len(damaged), 97):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    traces = await open_traces(book)
    assert await drain(traces) == len(book.frames)
    fresh = await open_traces(book, "fresh")
    await drain(fresh)
    assert await contents(traces) == await contents(fresh)
    assert path.with_name(f"{path.name}.previous").read_bytes() == damaged


@contextmanager
def holding(path: Path) -> Iterator[int]:
    """Another process that has the file open; its id."""
    holder = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.stdin.close()


async def test_a_file_that_another_process_has_is_refused_and_left_alone(tmp_path: Path, open_traces: Open) -> None:
    (tmp_path / "data").mkdir()
    with holding(tmp_path / "data" / NAME) as pid, pytest.raises(StoreBusy) as refused:
        await open_traces(Book())
    assert f"another process has the trace tables {tmp_path / 'data' / NAME} open" in str(refused.value)
    assert str(pid) in str(refused.value)
    assert not list((tmp_path / "data").glob("*.previous"))
    await open_traces(Book())


async def test_tables_of_another_version_are_rebuilt(tmp_path: Path, open_traces: Open) -> None:
    book = tale(3)
    traces = await open_traces(book)
    await drain(traces)
    await traces.close()
    rename = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute(\"UPDATE ingest SET schema = 'older'\")"
    command = [sys.executable, "-c", rename, str(tmp_path / "data" / NAME)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    traces = await open_traces(book)
    assert await drain(traces) == len(book.frames)


async def test_a_full_disk_costs_time_and_no_rows(tmp_path: Path, open_traces: Open) -> None:
    with start("filling.py", tmp_path / "data", 60) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert "StoreFull" in said
    book = tale(60)
    traces = await open_traces(book)
    assert await traces.project() == 0
    fresh = await open_traces(book, "fresh")
    await drain(fresh)
    assert await contents(traces) == await contents(fresh)


async def test_a_cancelled_projection_neither_loses_nor_repeats(open_traces: Open) -> None:
    book = tale(10)
    traces = await open_traces(book)
    while traces.lag().seq < len(book.frames):
        task = asyncio.create_task(traces.project(50))
        for _ in range(traces.lag().seq % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await traces.project(20)
    fresh = await open_traces(book, "fresh")
    await drain(fresh)
    assert await contents(traces) == await contents(fresh)


async def test_closed_tables_say_so(open_traces: Open) -> None:
    traces = await open_traces(tale(1))
    await traces.close()
    await traces.close()
    with pytest.raises(StoreError, match="not open"):
        await traces.query("SELECT 1")
    with pytest.raises(StoreError, match="are closed"):
        await traces.project()
