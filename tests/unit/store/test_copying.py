"""Stores copied into others of each kind: all that a user can read comes along, and what waited there goes on here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.places import Place, Places
from tests.doubles.shapes import START, host, new_run, own, said
from tests.journals.fixtures import VERSIONS
from tests.journals.test_data_folders import unpacked
from tests.unit.store.copies import (
    EVERY,
    LARGE,
    Pair,
    copied,
    reading,
    source_of,
    store_at,
    target_of,
    world_at,
)

from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, StoreBusy, StoreError
from retinue.store.copying import HOSTS, TABLES, copy
from retinue.store.postgres import copying as postgres_copying
from retinue.store.sqlite_copying import sqlite_source

pytestmark = pytest.mark.rule("R16")


async def test_all_that_can_be_read_comes_along(pair: Pair) -> None:
    source, target = pair
    before = await reading(source)
    done = await asyncio.to_thread(copied, source, target)
    rows = {part.name: part.rows for part in done.parts}
    assert min(rows.values()) >= 1 and rows["keys"] == 2 and rows["blobs"] >= 2, rows
    assert await reading(target) == before
    assert await reading(source) == before, "the source is as it was"
    async with store_at(target) as store, store_at(source) as old:
        assert await store.incarnation() != await old.incarnation()
        for name in ("new-1", "new-2", "new-3"):
            await store.register(host(name))
        records = {record.run_id: record for record in await store.list_runs(EVERY)}
        assert {record.pid for record in records.values()} == {None}, "none is any host's here"
        assert done.held == sum(record.held for record in records.values()) > 0
        assert all(record.held is not record.status.terminal for record in records.values())
        assert (records["busy"].status, records["failed"].status) == (Status.queued, Status.failed)
        assert [each[0] for each in await store.hosts()] == ["new-1", "new-2", "new-3"]


@pytest.mark.promise("K2")
async def test_what_waited_is_answered_and_ends(pair: Pair) -> None:
    source, target = pair
    await asyncio.to_thread(copied, source, target)
    async with world_at(target, "of-the-copy") as made:
        newest = await made.store.newest()
        await made.settle()
        assert (await made.store.get("asking")).status is Status.waiting_for_input, "it is held"
        assert await made.store.hold("asking", False) == 1
        for answer in ("north", None, "done"):
            request = await made.asked("asking")
            status = "answered" if request.kind == "input" else "approved"
            await made.store.resolve(request.request_id, status, "ben", made.clock(), answer)
        result = await made.finish("asking")
        assert result.value == ["north", True, "done"]
        tail = await made.store.tail(newest, 1_000)
        assert tail and min(frame.seq for frame in tail) > newest, "numbers go on above those that were copied"
        again = await made.run("fan", ["d"], run_id="new", root_run_id="new")
        assert again.status is Status.completed
        assert await made.store.list_runs(RunQuery(held=True))


async def test_a_second_copy_changes_nothing_and_a_used_one_is_refused(across: Pair) -> None:
    source, target = across
    first = await asyncio.to_thread(copied, source, target)
    before = await reading(target)
    again = await asyncio.to_thread(copied, source, target)
    assert (first.again, again.again) == (False, True)
    assert [(part.name, part.rows, part.digest) for part in again.parts] == [
        (part.name, part.rows, part.digest) for part in first.parts
    ]
    assert await reading(target) == before
    async with store_at(target) as store:
        await store.hold("asking", False)
    with pytest.raises(InvalidInput, match=r"one of the two has gone on since: table runs has .* name an empty store"):
        await asyncio.to_thread(copied, source, target)


async def test_a_store_that_is_used_is_no_target(across: Pair) -> None:
    source, target = across
    async with store_at(target) as store:
        await store.submit([new_run("mine")])
    with pytest.raises(InvalidInput, match=r"has a store: name one that|holds a store already \(table runs\): name an"):
        await asyncio.to_thread(copied, source, target)
    async with store_at(target) as store:
        assert [record.run_id for record in await store.list_runs(EVERY)] == ["mine"]
        await store.submit([new_run("more")])


async def test_hosts_that_live_forbid_a_planned_move(across: Pair) -> None:
    source, target = across
    async with store_at(source) as store:
        assert [each[0] for each in await store.hosts()] == ["h1"], "filling left it, and this process lives"
        with pytest.raises(StoreBusy, match=r"hosts use .* \(1 alive\): stop all of them first"):
            await asyncio.to_thread(copied, source, target, keep_running=True)
        await store.retire("h1")
    done = await asyncio.to_thread(copied, source, target, keep_running=True)
    assert done.held == 0
    async with store_at(target) as store:
        await store.register(host("h2"))
        found = {lease.request.run_id for lease in await store.lease(host("h2"), "runs", 10, START)}
        assert "busy" in found, "it goes on by itself"


async def test_keys_are_wrapped_anew(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_KEY", "old")
    monkeypatch.setenv("NEW_KEY", "new")
    with places.new("postgres") as source, places.new("postgres") as target:
        async with store_at(source, key="${OLD_KEY}") as store:
            await store.submit([new_run("top", {"word": "marzipan"})])
        with source_of(source) as one, target_of(target) as other, pytest.raises(StoreError, match="give `store_key`"):
            copy(one, other)
        with source_of(source, key="${OLD_KEY}") as one, target_of(target, key="${NEW_KEY}") as other:
            copy(one, other)
        async with store_at(target, key="${NEW_KEY}") as store:
            assert await store.inputs(["top"]) == {"top": {"word": "marzipan"}}
        async with store_at(target, key="${OLD_KEY}") as store:
            with pytest.raises(StoreError, match="does not open with `store_key`"):
                await store.inputs(["top"])


@pytest.mark.parametrize("back", [False, True])
async def test_what_was_erased_stays_so_in_a_copy(across: Pair, back: bool) -> None:
    """A tenant without a key, and one that is `back` with another."""
    source, target = across
    async with store_at(source) as store:
        tenant = (await store.get("busy")).tenant_id
        assert await asyncio.to_thread(store.vault.destroy, tenant)
        if back:
            await store.submit([new_run("back", {"word": "marzipan"})])
    await asyncio.to_thread(copied, source, target)
    async with store_at(target) as store:
        await store.submit([new_run("more", {"word": "nougat"})])
        read = await store.inputs(["busy", "back", "more"])
        assert read == {"busy": None, "more": {"word": "nougat"}} | ({"back": {"word": "marzipan"}} if back else {})


async def test_without_keys_the_contents_stay_closed(across: Pair) -> None:
    source, target = across
    done = await asyncio.to_thread(copied, source, target, keys=False)
    assert "keys" not in {part.name for part in done.parts}
    async with store_at(target) as store:
        assert await store.inputs(["busy"]) == {"busy": None}


async def test_blobs_in_a_shared_place_stay_there(places: Places, tmp_path: Path) -> None:
    place = {"blobs": f"file://{tmp_path}/shared"}
    with places.new("sqlite") as source, places.new("postgres") as target:
        async with store_at(source, **place) as store:
            await store.submit([new_run("top", LARGE)])
        done = await asyncio.to_thread(copied, source, target)
        assert {part.name: part.rows for part in done.parts}["blobs"] == 0
        async with store_at(target, **place) as store:
            assert await store.inputs(["top"]) == {"top": LARGE}


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
async def test_a_data_folder_of_an_older_version_is_copied(folder: Path, places: Places, tmp_path: Path) -> None:
    """It stays of its version."""
    data = unpacked(folder, tmp_path)
    with places.new("postgres") as target:
        before = (data / "store.db").read_bytes()
        with sqlite_source(data) as one, target_of(target) as other:
            copy(one, other)
        assert (data / "store.db").read_bytes()[100:] == before[100:]
        found = await reading(target)
    assert found == await reading(Place("sqlite", tmp_path)) and len(found) > 6


async def test_an_empty_store_is_copied(places: Places) -> None:
    with places.new("sqlite") as source, places.new("postgres") as target, places.new("sqlite") as back:
        async with store_at(source):
            pass
        await asyncio.to_thread(copied, source, target)
        await asyncio.to_thread(copied, target, back)
        for place in (target, back):
            async with store_at(place) as store:
                assert (await store.list_runs(EVERY), await store.tail(0, 10)) == ([], [])
                await store.submit([new_run("first")])
                assert [frame.run_id for frame in await store.tail(0, 10)] == ["first"]


async def test_a_copy_is_of_one_moment_while_runs_are_written(across: Pair) -> None:
    """No acknowledged entry that was there before is missing, no position has a gap, and writing goes on after."""
    source, target = across
    async with store_at(source) as store:
        await store.register(host("writing"))
        await store.submit([new_run(name) for name in ("left", "right")])
        owners = [await own(store, name, host("writing")) for name in ("left", "right")]
        stopping, wrote = asyncio.Event(), threading.Event()

        def copy_slowly() -> None:
            """Something is written between the reading of one table and that of the next."""
            with source_of(source) as one, target_of(target) as other:
                insert = other.insert

                def lag(table: Any, columns: Any, rows: Any) -> None:
                    insert(table, columns, rows)
                    wrote.clear()
                    assert wrote.wait(30)

                other.insert = lag  # type: ignore[method-assign]
                copy(one, other)

        async def write() -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                for owner in owners:
                    await owner.append(said(f"s{number}", "y" * 500))
                    await owner.append(said("large", f"{number}" * 70_000))
                    wrote.set()

        before = [owner.position for owner in owners]
        writing = asyncio.create_task(write())
        await asyncio.to_thread(copy_slowly)
        stopping.set()
        await writing
        for owner in owners:
            await owner.append(said("after"))
        names = ("left", "right")
        written = {name: [frame async for frame in store.read(name)] for name in names}
    async with store_at(target) as store:
        for name, least in zip(names, before, strict=True):
            kept = [frame async for frame in store.read(name)]
            assert least <= kept[-1].position < written[name][-1].position
            assert kept == written[name][: len(kept)]
            assert (await store.get(name)).position == kept[-1].position


async def test_more_than_a_page_is_copied(across: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages end by rows and by bytes."""
    source, target = across
    monkeypatch.setattr(postgres_copying, "_ROWS", 7)
    async with store_at(source) as store:
        for page in range(3):
            await store.submit([new_run(f"run-{page}-{number}", "y" * 20_000) for number in range(400)])
        before = len(await store.list_runs(EVERY))
    done = await asyncio.to_thread(copied, source, target)
    assert {part.name: part.rows for part in done.parts}["runs"] == before > 1_200
    async with store_at(target) as store:
        assert len(await store.list_runs(EVERY)) == before


async def test_every_table_of_a_store_is_copied_or_left_out_on_purpose(places: Places) -> None:
    known = {table.name for table in TABLES} | {HOSTS}
    with places.new("sqlite") as place, places.new("postgres") as other:
        async with store_at(place) as store, store_at(other) as far:
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            assert {row[0] for row in await store._read(lambda c: c.execute(query).fetchall())} == known
            query = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
            found = {row[0] for row in await far._read(lambda c: c.execute(query).fetchall())}
            assert found == known | {"keys", "blobs"}


@contextmanager
def no_store() -> Iterator[None]:
    with pytest.raises(InvalidInput, match="has no store: nothing is to be copied"):
        yield


async def test_nothing_is_copied_from_nowhere(across: Pair) -> None:
    with no_store():
        await asyncio.to_thread(copied, *reversed(across))
