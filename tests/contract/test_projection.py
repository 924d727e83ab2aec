"""The trace tables over a store that many nodes share: made anew on any of them, and never past an open transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.projects import project
from tests.unit.traces.conftest import Contents, contents

from retinue.host.alerting import AlertDesk
from retinue.host.composition import load_project, open_store, open_traces
from retinue.host.inline import inline_host
from retinue.host.projecting import catch_up
from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.store.store import Store
from retinue.traces.room import Traces

BOUND = 60.0
SECOND = 1_000_000_000


@pytest.fixture
def shared(places: Places) -> Iterator[Place]:
    """A database."""
    with places.new("postgres") as place:
        yield place


def node(folder: Path, place: Place) -> Settings:
    """The project as a node has it: a folder of its own, and the database of all; nobody keeps traces by himself."""
    given: dict[str, Any] = {"store": place.url, "telemetry": {"emit_structured_events": False}}
    return project(folder, modules=["tests.unit.host.desk"], settings=given)


async def work(settings: Settings, store: Store, rounds: int) -> None:
    """Some runs with children, calls and answers, to their ends."""
    async with inline_host(load_project(settings), store, alone=True) as (pool, _):
        client = Client(settings, store, pool)
        for number in range(rounds):
            told = [("clerk", f"What is {number}?"), ("many", 3), ("must_look", "broken" if number % 2 else "it")]
            handles = [await client.submit(*each) for each in told]
            for handle in handles:
                await client.wait(handle.run_id, BOUND)
        await client.close()


@pytest.fixture
async def store(tmp_path: Path, shared: Place) -> AsyncIterator[Store]:
    opened = open_store(node(tmp_path / "here", shared))
    yield opened
    await opened.close()


async def projected(settings: Settings, store: Store) -> Contents:
    """All that the tables of a node hold when they have caught up."""
    async with open_traces(settings, store) as traces:
        await catch_up(traces)
        return await contents(traces)


@pytest.mark.promise("C3", "I3")
@pytest.mark.rule("R11")
async def test_tables_made_anew_on_another_node_are_equal_and_those_left_behind_go_on(
    tmp_path: Path, shared: Place, store: Store
) -> None:
    here, there = node(tmp_path / "here", shared), node(tmp_path / "there", shared)
    await work(here, store, 2)
    before = await projected(here, store)
    assert len(before["run_requests"]) == 12 and before["tool_calls"]
    other = open_store(there)
    assert await projected(there, other) == before
    await work(there, other, 1)
    moved = await projected(there, other)
    await other.close()
    assert len(moved["run_requests"]) == 18
    assert await projected(here, store) == moved, (
        "the file that was left on the first node is not made anew, it goes on"
    )
    assert await projected(node(tmp_path / "third", shared), store) == moved


class Held:
    """A transaction of another program that has numbered an entry and stays open: a run's lease, once more."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, application_name="a stuck program")
        known = self.connection.execute("SELECT value::bigint FROM meta WHERE name = 'schema'").fetchone()
        self.connection.execute("SELECT begin_write(%s)", known)
        written = self.connection.execute(
            "INSERT INTO journal (run, position, epoch, schema, facts) SELECT run, 1000, epoch, schema, facts"
            " FROM journal WHERE position = 2 ORDER BY seq LIMIT 1 RETURNING seq"
        ).fetchone()
        assert written is not None
        self.seq = int(written[0])


@pytest.fixture
async def traces(tmp_path: Path, shared: Place, store: Store) -> AsyncIterator[Traces]:
    """The tables of a node, with some runs in them."""
    settings = node(tmp_path / "here", shared)
    await work(settings, store, 1)
    async with open_traces(settings, store) as opened:
        await catch_up(opened)
        yield opened


@pytest.mark.promise("C3", "I3")
@pytest.mark.rule("R11")
async def test_the_cursor_never_passes_an_open_transaction_and_nothing_is_missed(
    tmp_path: Path, shared: Place, store: Store, traces: Traces
) -> None:
    assert shared.url is not None
    before = traces.lag().seq
    held = await asyncio.to_thread(Held, shared.url)
    with closing(held.connection):
        await work(node(tmp_path / "here", shared), store, 1)
        await catch_up(traces)
        assert before <= traces.lag().seq < held.seq
        held.connection.commit()
    await catch_up(traces)
    assert traces.lag().seq > held.seq
    rows = (await traces.query(f"SELECT count(*)::INT AS n FROM leases WHERE seq = {held.seq}")).to_pylist()
    assert rows == [{"n": 1}], "what was committed late is there, once"
    assert await contents(traces) == await projected(node(tmp_path / "there", shared), store)


@pytest.mark.promise("K5")
@pytest.mark.rule("R11")
async def test_a_transaction_that_does_not_end_is_told_of_by_name_until_it_has(
    tmp_path: Path, shared: Place, store: Store, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    assert shared.url is not None
    settings, now = node(tmp_path / "here", shared), [1_000 * SECOND]
    desk = AlertDesk(settings, store, lambda: traces.lag().seq, channels={}, now_ns=lambda: now[0])
    held = await asyncio.to_thread(Held, shared.url)
    with closing(held.connection):
        await work(settings, store, 1)
        for seconds in (0, 30):
            now[0] += seconds * SECOND
            await desk.round()
            assert await store.alerts.listed() == []
        now[0] += SECOND
        with caplog.at_level(logging.WARNING, "retinue.host"):
            await desk.round()
        [alert] = await store.alerts.listed()
        assert (alert.kind, alert.subject) == ("traces_lag", "journal")
        pid = held.connection.info.backend_pid
        assert f"SELECT pg_terminate_backend({pid})" in alert.message and "a stuck program" in alert.message
        assert alert.message in caplog.text
        now[0] += 60 * SECOND
        await desk.round()
        assert [each.subject for each in await store.alerts.listed()] == ["journal"], "the tables are not at fault"
    await desk.round()
    assert await store.alerts.listed() == []
