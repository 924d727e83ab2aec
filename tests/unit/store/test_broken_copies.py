"""Copies that are killed, meet another, or find what they must not: what they leave, and how they go on."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.processes import python
from tests.doubles.shapes import START, new_run
from tests.unit.store.copies import (
    EVERY,
    Pair,
    copied,
    reading,
    source_of,
    store_at,
    target_of,
    world_at,
)

from retinue.runs.contracts import Status
from retinue.runs.errors import InvalidInput, SchemaMismatch, StoreBusy, StoreError
from retinue.store.copying import copy

pytestmark = pytest.mark.rule("R16")

PARTIAL = """
import sys
from tests.doubles.places import Place
from tests.unit.store.copies import copied, source_of, target_of
from retinue.store.copying import copy

between = sys.argv.index("/")
source, target = Place.of(*sys.argv[2:between]), Place.of(*sys.argv[between + 1:])
stop = sys.argv[1]

class Stopping:
    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        return getattr(self._target, name)

    def insert(self, table, columns, rows):
        self._target.insert(table, columns, rows if table.name != stop else rows[: len(rows) // 2])
        self.reached(table.name)

    def put_blobs(self, blobs):
        self._target.put_blobs(blobs[:1] if stop == "blobs" else blobs)
        self.reached("blobs")

    def finish(self):
        self._target.finish()
        self.reached("finish")

    def reached(self, name):
        if name == stop:
            print("reached", name, flush=True)
            sys.stdin.readline()

with source_of(source) as one, target_of(target) as other:
    copy(one, Stopping(other))
"""
"""A copy that stops in the middle of a table, with part of its rows written, and waits for its death."""


@pytest.mark.parametrize("stop", ["runs", "journal", "blobs", "finish"])
async def test_a_copy_that_was_killed_ends_as_any_other(across: Pair, stop: str) -> None:
    """Between the two tries the source goes on, and what the second brings is the newest."""
    source, target = across
    with python(PARTIAL, stop, *source.arguments, "/", *target.arguments) as other:
        await asyncio.to_thread(other.wait_for, "reached")
        if stop != "finish" and target.url is not None:
            with pytest.raises(StoreError, match="a copy into this store has not ended: repeat the command"):
                await asyncio.to_thread(target.open)
        other.kill()
    if stop == "finish" and target.url is not None:
        assert (await asyncio.to_thread(copied, source, target)).again
        return
    assert target.url is not None or not (target.folder / "data" / "store.db").exists()
    async with world_at(source, "later") as made:
        await made.run("fan", ["late"], run_id="late", root_run_id="late")
        await made.store.cancel("asking", "ben", START + 5)
    done = await asyncio.to_thread(copied, source, target)
    assert not done.again
    found = await reading(target)
    assert found == await reading(source) and found["late"]["result"].status is Status.completed
    left = [path.name for path in (*source.folder.rglob("*"), *target.folder.rglob("*")) if path.name.startswith("sna")]
    assert left == [], "what the dead one left is gone"


async def test_a_copy_of_another_store_is_not_continued(places: Places, filled: dict[str, Place]) -> None:
    with places.new("sqlite") as other, places.new("postgres") as target:
        source = filled["sqlite"]
        async with store_at(other) as store:
            await store.submit([new_run("mine")])
        with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as process:
            await asyncio.to_thread(process.wait_for, "reached")
        with pytest.raises(InvalidInput, match="is a copy of another store: name an empty one"):
            await asyncio.to_thread(copied, other, target)
        with pytest.raises(InvalidInput, match="is being filled by a copy: let that one end first"):
            await asyncio.to_thread(copied, target, other)


async def test_a_store_that_somebody_made_meanwhile_is_left_alone(places: Places, filled: dict[str, Place]) -> None:
    """What was copied waits beside it, until the command is given again."""
    source = filled["postgres"]
    with places.new("sqlite") as target:
        refused = pytest.raises(InvalidInput, match="was made while the copy was")
        with source_of(source) as one, refused, target_of(target) as other:
            copy(one, other)
            async with store_at(target) as store:
                await store.submit([new_run("mine")])
        with pytest.raises(InvalidInput, match="has a store: name one that has none"):
            await asyncio.to_thread(copied, source, target)
        async with store_at(target) as store:
            assert [record.run_id for record in await store.list_runs(EVERY)] == ["mine"]
        (target.folder / "data" / "store.db").unlink()
        await asyncio.to_thread(copied, source, target)
        assert await reading(target) == await reading(source)


async def test_two_copies_into_one_store_do_not_meet(across: Pair) -> None:
    source, target = across
    with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as other:
        await asyncio.to_thread(other.wait_for, "reached")
        with pytest.raises(StoreBusy, match="another process copies into"):
            await asyncio.to_thread(copied, source, target)


async def test_who_had_the_target_open_writes_nothing_into_it(places: Places, filled: dict[str, Place]) -> None:
    source = filled["sqlite"]
    with places.new("postgres") as target:
        async with store_at(target) as early:
            with python(PARTIAL, "journal", *source.arguments, "/", *target.arguments) as other:
                await asyncio.to_thread(other.wait_for, "reached")
                with pytest.raises(SchemaMismatch):
                    await early.submit([new_run("early")])
        await asyncio.to_thread(copied, source, target)
        assert await reading(target) == await reading(source)


async def test_a_difference_is_told_by_its_table(places: Places, filled: dict[str, Place]) -> None:
    """Whatever changes a row on its way, the target stays closed."""
    source = filled["sqlite"]
    with places.new("postgres") as target:
        assert target.url is not None
        with ExitStack() as stack:
            one, other = stack.enter_context(source_of(source)), stack.enter_context(target_of(target))
            insert = other.insert

            def harm(table: Any, columns: Any, rows: Any) -> None:
                insert(table, columns, rows)
                if table.name == "events":
                    with psycopg.connect(str(target.url)) as connection:
                        connection.execute("UPDATE events SET at = at + 1 WHERE num = (SELECT min(num) FROM events)")

            other.insert = harm  # type: ignore[method-assign]
            with pytest.raises(StoreError, match=r"table events is not the same after copying: .*stays closed"):
                copy(one, other)
        with pytest.raises(StoreError, match="a copy into this store has not ended"):
            await asyncio.to_thread(target.open)
