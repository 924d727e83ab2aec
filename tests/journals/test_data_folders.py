"""Data folders of older versions: opened, they are migrated and their runs go on; older processes are kept out."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import START, host, new_run
from tests.doubles.worlds import ALLOW_ALL, World
from tests.journals.fixtures import VERSIONS
from tests.journals.record import KEPT, MOST_RUNS, definitions_of, drive

from retinue.runs.contracts import Status
from retinue.runs.errors import SchemaMismatch
from retinue.store import opening
from retinue.store.sqlite import SqliteStore
from retinue.store.statements import migrations

pytestmark = [pytest.mark.promise("C7"), pytest.mark.rule("R16")]

OLDER = [folder for folder in VERSIONS if folder.name == "v1"]


def unpacked(folder: Path, place: Path) -> Path:
    """The data folder of a version, as its runtime left it."""
    data = place / "data"
    shutil.copytree(folder / "data" / "keys", data / "keys")
    (data / "store.db").write_bytes(gzip.decompress((folder / "data" / "store.db.gz").read_bytes()))
    return data


def schema_of(data: Path) -> int:
    connection = apsw.Connection(str(data / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(connection.execute("PRAGMA user_version").fetchall()[0][0])
    finally:
        connection.close()


@asynccontextmanager
async def world_of(folder: Path, place: Path) -> AsyncIterator[World]:
    """A world over an unpacked data folder; its host is none that the folder knows."""
    module = definitions_of(folder)
    store = SqliteStore(place / "data", patience=5.0)
    made = World(store, (*module.DEFINITIONS, *module.AGENTS), place, ALLOW_ALL)
    made.host = host("of-today")
    await made.begin()
    try:
        yield made
    finally:
        await store.retire(made.host.host_id)
        await store.close()


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
async def test_the_runs_of_an_older_data_folder_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    data, module = unpacked(folder, tmp_path), definitions_of(folder)
    before = schema_of(data)
    async with world_of(folder, tmp_path) as made:
        assert schema_of(data) == len(migrations()) >= before
        made.script(*module.SCRIPT)
        made.clock.advance(86_400)
        frames = len(await made.store.tail(0, MOST_RUNS))
        runs = {name: f"run-{number:04d}" for number, name in enumerate(KEPT, start=1)}
        assert not any([(await made.store.get(run_id)).status.terminal for run_id in runs.values()])
        for name, run_id in runs.items():
            await drive(made, module, name, run_id)
            head = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[0])
            result = await made.store.result(run_id)
            assert result is not None and made.failures == []
            if run_id == "run-0001":
                assert [result.status, result.reason, result.value] == head["ends"]["run-0001"]
            assert [result.status, result.reason] == head["ends"]["run-0001"][:2]
        tail = await made.store.tail(0, MOST_RUNS)
        assert len(tail) > frames and [frame.seq for frame in tail] == sorted({frame.seq for frame in tail})
        new = await made.run("small", 3, run_id="new", root_run_id="new", effect_scope="new")
        assert (new.status, new.value) == (Status.completed, 9)


async def test_a_newer_store_is_not_opened_by_an_older_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await SqliteStore(tmp_path / "data").close()
    newest = len(migrations())
    monkeypatch.setattr(opening, "migrations", lambda: migrations()[:-1])
    with pytest.raises(SchemaMismatch, match=f"has schema {newest}, this version knows {newest - 1}: use the newer"):
        SqliteStore(tmp_path / "data")
    assert schema_of(tmp_path / "data") == newest


OLD_PROCESS = """
import asyncio, sys, time
from pathlib import Path
from retinue.runs.errors import SchemaMismatch
from retinue.store.lock import WriterLock
from retinue.store.opening import connect
from retinue.store.sqlite_pen import SqlitePen
from retinue.store.writer import Writer

data, go = Path(sys.argv[1]), Path(sys.argv[2])

def touch(connection):
    connection.execute("UPDATE runs SET priority = priority + 1").fetchall()

async def main():
    writer = Writer(SqlitePen(lambda: connect(data / "store.db"), WriterLock(data / "store.lock", 10.0), 1))
    await writer.submit(touch)
    print("wrote", flush=True)
    while not go.exists():
        await asyncio.sleep(0.01)
    try:
        await writer.submit(touch)
        print("told nothing", flush=True)
    except SchemaMismatch as error:
        print("told", error, flush=True)
    writer.close()

asyncio.run(main())
"""
"""A process of the time of schema 1, with the store open: all it has of that time is the number it writes."""


@pytest.mark.parametrize("folder", OLDER, ids=lambda folder: folder.name)
async def test_a_process_that_was_there_before_the_migration_writes_no_more(folder: Path, tmp_path: Path) -> None:
    data, go = unpacked(folder, tmp_path), tmp_path / "go"
    with python(OLD_PROCESS, data, go) as old:
        await asyncio.to_thread(old.wait_for, "wrote")
        store = SqliteStore(data, patience=5.0)
        try:
            go.touch()
            said = await asyncio.to_thread(old.wait_for, "told")
            newest = len(migrations())
            assert f"the store has schema {newest} and this process writes schema 1: restart it" in said
            assert await asyncio.to_thread(old.ended) == 0
            highest = await store._read(lambda c: c.execute("SELECT max(priority) FROM runs").fetchall())
            assert highest == [(1,)], "what it wrote before counts, what it wrote after does not"
            await store.register(host())
            await store.submit([new_run("new")])
            assert [lease.request.run_id for lease in await store.lease(host(), "", 1, START, only="new")] == ["new"]
        finally:
            await store.close()


async def test_a_migration_that_fails_half_way_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = unpacked(OLDER[0], tmp_path)
    broken = [migrations()[0], "ALTER TABLE runs ADD COLUMN extra TEXT; INSERT INTO nowhere VALUES (1);"]
    monkeypatch.setattr(opening, "migrations", lambda: broken)
    with pytest.raises(Exception, match="nowhere"):
        SqliteStore(data)
    monkeypatch.undo()
    assert schema_of(data) == 1
    store = SqliteStore(data)
    columns = await store._read(lambda c: [row[1] for row in c.execute("PRAGMA table_info(runs)")])
    await store.close()
    assert schema_of(data) == len(migrations()) and "extra" not in columns
