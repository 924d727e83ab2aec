"""Calls that go on in another process or on another connection: a retry, a stream that is read on, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.processes import python
from tests.unit.sessions.mcp.linking import Keeping, answered, call, connections, http, stdio, talking, text_of
from tests.unit.sessions.mcp.test_children import until

from retinue.runs.errors import TransientError
from retinue.runs.sessions import Pause, Reply, Resumption, Token


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A talker that lives as long as these tests do."""
    with talking() as (_, port):
        yield port


KEY = "0123456789abcdef0123456789abcdef"

HOST = """
import asyncio, json, sys
from tests.unit.sessions.mcp.linking import Keeping, call, connections, http

class Telling(Keeping):
    async def keep(self, token):
        if token is not None:
            print("token", json.dumps(token.content), flush=True)

async def main():
    port, tool, arguments = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    async with connections() as pool:
        pause = await call(pool, http(port, protocol="legacy"), tool, Telling(), **arguments)
        print("paused", json.dumps([pause.token.content, [q.key for q in pause.questions]]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def link_for(content: dict[str, Any], keys: list[str] | None = None, reply: Any = None) -> Keeping:
    replies = {key: Reply(action="accept", content=reply) for key in keys or []}
    return Keeping(Resumption(Token(content), replies))


@pytest.mark.promise("D3")
async def test_a_retry_goes_on_in_another_process_and_is_sent_once(port: int) -> None:
    async with connections() as first:
        pause = await call(first, http(port), "order", subject="tea")
    assert isinstance(pause, Pause) and pause.token is not None
    assert (pause.token.content["kind"], pause.token.once) == ("mrtr", True)
    link = answered(pause, {"euros": 4})
    async with connections() as second:
        assert text_of(await call(second, http(port), "order", link, subject="tea")) == "ordered tea for 4"
    assert link.kept == [None]


async def test_a_retry_without_all_replies_is_not_sent(port: int) -> None:
    async with connections() as pool:
        pause = await call(pool, http(port), "order", subject="tea")
        assert isinstance(pause, Pause)
        link = Keeping(Resumption(pause.token, {}))
        again = await call(pool, http(port), "order", link, subject="tea")
        assert isinstance(again, Pause)
        assert (again.questions, again.token, link.kept) == (pause.questions, pause.token, [])


async def test_a_retry_outlives_a_server_that_keeps_its_key() -> None:
    async with connections() as pool:
        with talking(key=KEY) as (_, port):
            pause = await call(pool, http(port), "order", subject="tea")
        with talking(port, key=KEY):
            result = await call(pool, http(port), "order", answered(pause, {"euros": 4}), subject="tea")
    assert text_of(result) == "ordered tea for 4"


@pytest.mark.promise("D3")
async def test_a_retry_that_the_server_does_not_take_is_lost() -> None:
    async with connections() as pool:
        with talking() as (_, port):
            pause = await call(pool, http(port), "order", subject="tea")
        with talking(port):
            link = answered(pause, {"euros": 4})
            with pytest.raises(TransientError) as raised:
                await call(pool, http(port), "order", link, subject="tea")
    assert (raised.value.code, link.losses, link.kept) == ("lost", ["expired"], [None])


@pytest.mark.promise("D3")
async def test_a_question_on_a_stream_is_answered_in_another_process(port: int, tmp_path: Path) -> None:
    path = tmp_path / "orders"
    arguments = json.dumps({"subject": "tea", "path": str(path)})
    with python(HOST, str(port), "order", arguments) as host:
        token, keys = json.loads(host.wait_for("paused").partition(" ")[2])
        host.kill()
    assert token["kind"] == "sse"
    link = link_for(token, keys, {"euros": 4})
    async with connections() as pool:
        server = http(port, protocol="legacy")
        result = await call(pool, server, "order", link, subject="tea", path=str(path))
    assert text_of(result) == "ordered tea for 4"
    assert path.read_text() == "tea 4\n"


async def test_a_stream_that_was_taken_up_is_let_go_of_with_its_run(port: int) -> None:
    server = http(port, protocol="legacy")
    async with connections() as first:
        pause = await call(first, server, "order", subject="tea")
        assert isinstance(pause, Pause)
    async with connections() as second:
        asked = await call(second, server, "order", Keeping(Resumption(pause.token, {})), subject="tea")
        assert isinstance(asked, Pause) and asked.questions == pause.questions
        assert second.held_sessions() == {("r1", "talker")} and second.connections[0].alive
        await second.release("r1", True)
        assert second.connections == []


@pytest.mark.promise("D3")
async def test_a_call_on_a_stream_is_read_on_in_another_process(port: int, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    with python(HOST, str(port), "slow", json.dumps({"seconds": 2.0, "path": str(path)})) as host:
        token = json.loads(host.wait_for("token").partition(" ")[2])
        host.kill()
    async with connections() as pool:
        link = link_for(token)
        assert text_of(await call(pool, http(port, protocol="legacy"), "slow", link, seconds=2.0)) == "done"
    assert path.read_text().split() == ["begun", "ended"]
    assert link.steps[-1] == (4, 4, "part 4")


async def test_a_stream_whose_answer_has_come_is_read_to_it(port: int, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    with python(HOST, str(port), "slow", json.dumps({"seconds": 1.0, "path": str(path)})) as host:
        token = json.loads(host.wait_for("token").partition(" ")[2])
        host.kill()
    await until(lambda: path.read_text().endswith("ended\n"))
    async with connections() as pool:
        for _ in range(2):
            result = await call(pool, http(port, protocol="legacy"), "slow", link_for(token), seconds=1.0)
            assert text_of(result) == "done"


@pytest.mark.promise("D3")
async def test_a_stream_of_a_server_that_forgot_is_lost() -> None:
    with talking() as (_, port):
        async with connections() as pool:
            pause = await call(pool, http(port, protocol="legacy"), "order", subject="tea")
    with talking(port):
        async with connections() as pool:
            link = answered(pause, {"euros": 4})
            with pytest.raises(TransientError) as raised:
                await call(pool, http(port, protocol="legacy"), "order", link, subject="tea")
    assert (raised.value.code, link.losses, link.kept) == ("lost", ["expired"], [None])


async def test_a_stream_of_a_server_that_is_away_is_still_good() -> None:
    with talking() as (_, port):
        async with connections() as pool:
            pause = await call(pool, http(port, protocol="legacy"), "order", subject="tea")
    async with connections() as pool:
        link = answered(pause, {"euros": 4})
        with pytest.raises(TransientError) as raised:
            await call(pool, http(port, protocol="legacy"), "order", link, subject="tea")
    assert (raised.value.code, link.kept) == ("not_made", [])


@pytest.mark.promise("D3")
async def test_a_question_over_stdio_ends_with_its_connection() -> None:
    async with connections() as pool:
        pause = await call(pool, stdio(protocol="legacy"), "order", subject="tea")
    assert isinstance(pause, Pause) and pause.token is None
    link = answered(pause, {"euros": 4})
    async with connections() as pool:
        with pytest.raises(TransientError) as raised:
            await call(pool, stdio(protocol="legacy"), "order", link, subject="tea")
    assert (raised.value.code, link.losses) == ("lost", ["closed"])


@pytest.mark.promise("D3")
@pytest.mark.parametrize("protocol", ["legacy", "auto"])
async def test_a_server_that_was_restarted_while_idle_is_called_on_a_new_session(protocol: str) -> None:
    async with connections() as pool:
        with talking() as (_, port):
            first = Keeping()
            assert text_of(await call(pool, http(port, protocol=protocol), "add", first, a=1, b=1)) == "2"
        with talking(port):
            second = Keeping()
            assert text_of(await call(pool, http(port, protocol=protocol), "add", second, a=1, b=2)) == "3"
    if protocol == "legacy":
        assert second.losses == ["expired"]
        assert second.wires[-1].session_id != first.wires[-1].session_id


@pytest.mark.promise("D3")
@pytest.mark.parametrize("protocol", ["legacy", "auto"])
async def test_a_server_that_is_killed_in_a_call_has_lost_the_reply(protocol: str, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    async with connections() as pool:
        with talking() as (talker, port):

            class Killing(Keeping):
                def progress(self, done: float, total: float | None, message: str) -> None:
                    talker.kill()

            link = Killing()
            with pytest.raises(TransientError) as raised:
                await call(pool, http(port, protocol=protocol), "slow", link, seconds=20.0, path=str(path))
        assert (raised.value.code, link.losses) == ("lost", ["broken"])
        with talking(port):
            assert text_of(await call(pool, http(port, protocol=protocol), "add", a=1, b=2)) == "3"
