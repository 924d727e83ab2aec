"""The pool: who shares a connection, when it is closed, how often a dead server is tried, and what pins do."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.sessions.mcp.linking import (
    Keeping,
    answered,
    bad,
    call,
    caller,
    connections,
    http,
    stdio,
    talking,
    text_of,
)
from tests.unit.sessions.mcp.test_children import gone, until

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.sessions import Pause
from retinue.sessions.connections import Listing, Pinned
from retinue.sessions.mcp import inquiries
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.pins import digest_definition, digest_names
from retinue.sessions.servers import Server


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with talking() as (_, port):
        yield port


async def pid(pool: McpConnections, server: Server, run_id: str = "r1", tenant: str = "acme") -> int:
    who = caller(f"{run_id}-pid", run_id, tenant)
    return int(text_of(await pool.call(server, "pid", {}, who, Keeping(), None)))


def pins_of(listing: Listing) -> Pinned:
    return Pinned(
        {tool.name: digest_definition(tool) for tool in listing.tools}, digest_names(t.name for t in listing.tools)
    )


@pytest.mark.promise("D4")
async def test_a_scope_says_who_shares_a_connection() -> None:
    async with connections() as pool:
        run, worker, shared = (stdio(name=scope, scope=scope) for scope in ("run", "worker", "shared"))
        each = await asyncio.gather(
            *(pid(pool, server, run_id, tenant) for server in (run, worker, shared) for run_id, tenant in WHO)
        )
        assert len(set(each[0:3])) == 3
        assert each[3] == each[4] != each[5]
        assert each[6] == each[7] == each[8]


WHO = [("r1", "acme"), ("r2", "acme"), ("r3", "zeta")]


@pytest.mark.promise("D4")
async def test_a_run_that_ended_takes_its_own_connection_and_questions_along() -> None:
    async with connections() as pool:
        own, worker = stdio(name="own", scope="run", protocol="legacy"), stdio(name="worker", protocol="legacy")
        first, second = await asyncio.gather(pid(pool, own), pid(pool, worker))
        assert isinstance(await call(pool, worker, "order", key="q", subject="tea"), Pause)
        await pool.release("r1", False)
        assert not gone(first)
        await pool.release("r1", True)
        await until(lambda: gone(first))
        assert await pid(pool, worker) == second
        with pytest.raises(TransientError, match="connection that its question came over is gone"):
            await call(pool, worker, "order", answered(Pause(()), token=False), key="q", subject="tea")


@pytest.mark.promise("D4")
async def test_a_session_that_is_closed_takes_what_only_its_run_used_along() -> None:
    async with connections() as pool:
        own, worker = stdio(name="own", scope="run", protocol="legacy"), stdio(name="worker", protocol="legacy")
        mine, others, shared = await asyncio.gather(pid(pool, own), pid(pool, own, "r2"), pid(pool, worker))
        for server in (own, worker):
            assert isinstance(await call(pool, server, "order", key=f"q-{server.name}", subject="tea"), Pause)
        assert pool.held_sessions() == {("r1", "own"), ("r2", "own"), ("r1", "worker")}
        pool.end_session("r1", "own")
        pool.end_session("r1", "worker")
        assert pool.held_sessions() == {("r2", "own")}
        assert await pid(pool, own) != mine
        await until(lambda: gone(mine))
        assert (await pid(pool, own, "r2"), await pid(pool, worker)) == (others, shared)
        with pytest.raises(TransientError, match="connection that its question came over is gone"):
            await call(pool, worker, "order", answered(Pause(()), token=False), key="q-worker", subject="tea")


async def test_a_call_that_is_under_way_is_the_last_on_the_connection_of_a_closed_session() -> None:
    async with connections() as pool:
        server = stdio(scope="run")
        first = await pid(pool, server)
        slow = asyncio.create_task(call(pool, server, "slow", key="slow", seconds=1.0))
        await until(lambda: any(c.inquiries.busy for c in pool.connections))
        pool.end_session("r1", "talker")
        assert await pid(pool, server) != first
        assert text_of(await slow) == "done"
        await until(lambda: gone(first))


async def test_a_connection_that_nobody_uses_is_closed() -> None:
    async with connections() as pool:
        server = stdio(idle_seconds=1.0, protocol="legacy")
        number = await pid(pool, server)
        assert isinstance(await call(pool, server, "order", subject="tea"), Pause)
        await until(lambda: gone(number))
        assert await pid(pool, server) != number


async def test_many_first_calls_make_one_connection() -> None:
    async with connections() as pool:
        numbers = await asyncio.gather(*(pid(pool, stdio(), f"r{number}") for number in range(20)))
    assert len(set(numbers)) == 1


async def test_there_are_no_more_connections_than_allowed(port: int) -> None:
    async with connections(most=2) as pool:
        servers = [http(port, name=f"talker-{letter}") for letter in "abc"]
        for server in servers:
            assert text_of(await call(pool, server, "add", a=1, b=1)) == "2"
        busy = [asyncio.create_task(call(pool, server, "slow", key=server.name, seconds=5.0)) for server in servers[:2]]
        await until(lambda: sum(c.inquiries.busy for c in pool.connections) == 2)
        with pytest.raises(TransientError, match="all 2 connections") as raised:
            await call(pool, servers[2], "add", a=1, b=1)
        assert raised.value.code == "saturated"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


@pytest.mark.promise("D3")
async def test_a_server_that_died_is_started_again_at_once() -> None:
    async with connections() as pool:
        number = await pid(pool, stdio())
        os.kill(number, signal.SIGKILL)
        await until(lambda: not any(connection.alive for connection in pool.connections))
        link = Keeping()
        assert text_of(await call(pool, stdio(), "add", link, a=1, b=1)) == "2"
        assert link.losses == []


async def test_a_server_that_is_away_is_tried_less_and_less_often() -> None:
    async with connections() as pool:
        waits = []
        for _ in range(40):
            with pytest.raises(TransientError) as raised:
                await call(pool, http(9, name="away"), "add", a=1, b=1)
            assert raised.value.code == "not_made"
            waits.append(raised.value.retry_after)
        assert waits[0] is None and all(wait is not None and 0 < wait <= 1.0 for wait in waits[2:])


async def test_a_call_after_the_end_is_refused() -> None:
    async with connections() as pool:
        await pool.close()
        with pytest.raises(TransientError, match="closing"):
            await call(pool, stdio(), "add", a=1, b=1)


# -- cancelling ------------------------------------------------------------------------------------------


@pytest.mark.promise("D5")
@pytest.mark.parametrize("kind", ["stdio legacy", "stdio auto", "http legacy", "http auto"])
async def test_a_call_that_is_given_up_is_cancelled_at_the_server_and_no_other(
    kind: str, port: int, tmp_path: Path
) -> None:
    transport, protocol = kind.split()
    server = stdio(protocol=protocol) if transport == "stdio" else http(port, protocol=protocol)
    async with connections() as pool:
        paths = [tmp_path / "given-up", tmp_path / "goes-on"]
        calls = [
            asyncio.create_task(call(pool, server, "slow", key=path.name, seconds=seconds, path=str(path)))
            for path, seconds in zip(paths, (30.0, 1.5), strict=True)
        ]
        await until(lambda: all(path.exists() for path in paths))
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(calls[0], 20.0)
        await until(lambda: paths[0].read_text().split() == ["begun", "cancelled"])
        assert text_of(await calls[1]) == "done"
        assert paths[1].read_text().split() == ["begun", "ended"]


async def test_a_call_that_takes_too_long_is_cancelled_at_the_server(port: int, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    server = http(port, tools={"slow": {"side_effect": "read", "timeout": 1.5}})
    async with connections() as pool:
        with pytest.raises(TransientError, match=r"within 1.5 s") as raised:
            await call(pool, server, "slow", seconds=30.0, path=str(path))
        assert raised.value.code == "timeout"
        await until(lambda: path.read_text().split() == ["begun", "cancelled"])


@pytest.mark.promise("D5")
async def test_the_time_of_a_person_is_not_the_time_of_the_call() -> None:
    async with connections() as pool:
        server = stdio(protocol="legacy", timeout=2.0)
        pause = await call(pool, server, "order", subject="tea")
        assert isinstance(pause, Pause)
        asked = time.monotonic()
        await until(lambda: time.monotonic() - asked > 2.5)
        assert (
            text_of(await call(pool, server, "order", answered(pause, {"euros": 1}), subject="tea"))
            == "ordered tea for 1"
        )


# -- whose question it is --------------------------------------------------------------------------------


async def test_a_question_over_stdio_is_asked_of_the_only_call_that_is_left() -> None:
    server = stdio(protocol="legacy")
    async with connections() as pool:
        slow = asyncio.create_task(pool.call(server, "slow", {"seconds": 1.0}, caller("a", "r1"), Keeping(), None))
        await until(lambda: any(c.inquiries.busy for c in pool.connections))
        pause = await pool.call(server, "order", {"subject": "tea"}, caller("b", "r2"), Keeping(), None)
        assert isinstance(pause, Pause)
        assert text_of(await slow) == "done"
        link = answered(pause, {"euros": 2})
        result = await pool.call(server, "order", {"subject": "tea"}, caller("b", "r2"), link, None)
        assert text_of(result) == "ordered tea for 2"


async def test_a_question_that_could_be_of_two_runs_is_asked_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "SETTLE", 0.5)
    server = stdio(protocol="legacy")
    async with connections() as pool:
        slow = asyncio.create_task(pool.call(server, "slow", {"seconds": 3.0}, caller("a", "r1"), Keeping(), None))
        await until(lambda: any(c.inquiries.busy for c in pool.connections))
        with pytest.raises(PermanentError) as raised:
            await pool.call(server, "order", {"subject": "tea"}, caller("b", "r2"), Keeping(), None)
        assert raised.value.code == "raised"
        assert text_of(await slow) == "done"


async def test_questions_of_two_runs_over_http_find_their_runs(port: int) -> None:
    server = http(port, protocol="legacy")
    async with connections() as pool:
        ways = [pool.call(server, "order", {"subject": run}, caller(run, run), Keeping(), None) for run in ("r1", "r2")]
        pauses = await asyncio.gather(*ways)
        asked = [pause.questions[0].message for pause in pauses if isinstance(pause, Pause)]
        assert asked == ["How much for r1?", "How much for r2?"]


# -- pins ------------------------------------------------------------------------------------------------


async def hears_of(pool: McpConnections, tool: str, other_than: str | None) -> Pinned:
    """What the connection lists, once its server has said that there is this tool, and not as it was."""
    for _ in range(200):
        pins = pins_of(await pool.connections[0].listed())
        if pins.tools.get(tool, other_than) != other_than:
            return pins
        await asyncio.sleep(0.05)
    raise AssertionError("the connection has not heard of it")


@pytest.mark.promise("D5")
@pytest.mark.parametrize("kind", ["stdio legacy", "stdio auto", "http auto"])
async def test_a_tool_that_changed_is_not_called_and_the_others_are(kind: str, port: int) -> None:
    transport, protocol = kind.split()
    server = stdio(protocol=protocol) if transport == "stdio" else http(port, protocol=protocol)
    async with connections() as pool:
        await call(pool, server, "grow", name="extra")
        pins = await hears_of(pool, "extra", None)
        assert text_of(await pool.call(server, "extra", {}, caller(), Keeping(), pins)) == "extra"
        await call(pool, server, "grow", name="extra")
        await hears_of(pool, "extra", pins.tools["extra"])
        link = Keeping()
        with pytest.raises(PermanentError, match="retinue capabilities diff") as raised:
            await pool.call(server, "extra", {}, caller(), link, pins)
        assert (raised.value.code, link.losses) == ("pin_changed", ["pins_changed"])
        assert text_of(await pool.call(server, "add", {"a": 1, "b": 1}, caller(), Keeping(), pins)) == "2"


async def test_a_tool_that_is_not_there_is_not_called() -> None:
    async with connections() as pool:
        server = bad("misbehaves", "none")
        pins = pins_of(await pool.list_tools(server))
        with pytest.raises(PermanentError) as raised:
            await pool.call(server, "vanished", {}, caller(), Keeping(), pins)
    assert raised.value.code == "pin_changed"


async def test_a_declaration_that_changes_ends_no_call_that_is_under_way(port: int) -> None:
    async with connections() as pool:
        before, after = http(port), http(port, timeout=30.0)
        slow = [
            asyncio.create_task(call(pool, before, "slow", key=key, seconds=wait))
            for key, wait in (("a", 0.5), ("b", 1.5))
        ]
        await until(lambda: any(len(c.inquiries.calls) == 2 for c in pool.connections))
        assert text_of(await call(pool, after, "add", key="c", a=1, b=1)) == "2"
        assert [text_of(await one) for one in slow] == ["done", "done"]


async def test_a_call_that_waits_for_a_connection_hears_that_all_are_closed() -> None:
    async with connections() as pool:
        waiting = asyncio.create_task(call(pool, bad("misbehaves", "silent", connect_seconds=30.0), "work"))
        await until(lambda: any(slot.opening is not None for slot in pool._slots.values()))
        await pool.close()
        with pytest.raises(TransientError) as raised:
            await waiting
        assert raised.value.code == "not_made"
