"""Calls over connections: results, progress, questions and their answers, over both worlds and both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.unit.sessions.mcp.linking import Keeping, answered, call, connections, http, stdio, talking, text_of

from retinue.runs.errors import PermanentError
from retinue.runs.sessions import Pause
from retinue.sessions.connections import RemoteResult
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ["stdio legacy", "stdio auto", "http legacy", "http auto"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with talking() as (_, port):
        yield port


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, port: int) -> Server:
    transport, protocol = request.param.split()
    name = f"{transport}-{protocol}"
    return stdio(name=name, protocol=protocol) if transport == "stdio" else http(port, name=name, protocol=protocol)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[McpConnections]:
    async with connections() as made:
        yield made


async def test_a_tool_returns_its_result(pool: McpConnections, server: Server) -> None:
    link = Keeping()
    result = await call(pool, server, "add", link, a=2, b=3)
    assert isinstance(result, RemoteResult)
    assert (text_of(result), result.structured, result.is_error) == ("5", {"result": 5}, False)
    wire = link.wires[0]
    modern = server.protocol == "auto"
    assert (wire.server, wire.transport) == (server.name, server.transport)
    assert wire.protocol == ("2026-07-28" if modern else "2025-11-25")
    assert (wire.session_id is not None) == (server.transport == "http" and not modern)
    assert len(wire.pins) == 64


async def test_progress_is_passed_on_without_what_moves_a_terminal(pool: McpConnections, server: Server) -> None:
    link = Keeping()
    assert text_of(await call(pool, server, "slow", link, seconds=0.2)) == "done"
    assert link.steps == [(part, 4, f"part {part}") for part in (1, 2, 3, 4)]


async def test_a_call_carries_its_key_and_its_trace(pool: McpConnections, server: Server) -> None:
    result = await call(pool, server, "meta", key="the key")
    assert isinstance(result, RemoteResult) and isinstance(result.structured, dict)
    assert result.structured["retinue/idempotencyKey"] == "the key"
    assert result.structured["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_question_pauses_the_call_and_its_answer_goes_on(pool: McpConnections, server: Server) -> None:
    pause = await call(pool, server, "order", subject="tea")
    assert isinstance(pause, Pause)
    question = pause.questions[0]
    assert (question.kind, question.message) == ("form", "How much for tea?")
    schema = question.asked["schema"]
    assert isinstance(schema, dict) and "euros" in schema["properties"]
    result = await call(pool, server, "order", answered(pause, {"euros": 4}), subject="tea")
    assert text_of(result) == "ordered tea for 4"


async def test_a_declined_question_ends_the_call(pool: McpConnections, server: Server) -> None:
    pause = await call(pool, server, "order", subject="tea")
    with pytest.raises(PermanentError) as raised:
        await call(pool, server, "order", answered(pause, action="decline"), subject="tea")
    assert raised.value.code == "raised"


async def test_sampling_is_refused_unless_it_was_declared(pool: McpConnections, server: Server) -> None:
    with pytest.raises(PermanentError) as raised:
        await call(pool, server, "rhyme", subject="tea")
    assert raised.value.code == "raised"


async def test_sampling_that_was_declared_is_a_question(pool: McpConnections, server: Server) -> None:
    open_minded = server.model_copy(update={"sampling": True})
    pause = await call(pool, open_minded, "rhyme", subject="tea")
    assert isinstance(pause, Pause)
    assert pause.questions[0].kind == "sampling"
    assert pause.questions[0].asked["maxTokens"] == 20
    result = await call(pool, open_minded, "rhyme", answered(pause, "sea"), subject="tea")
    assert text_of(result) == "sea"


async def test_what_a_tool_complains_of_is_bounded_and_plain(pool: McpConnections, server: Server) -> None:
    with pytest.raises(PermanentError) as raised:
        await call(pool, server, "fail", word="no tea")
    assert raised.value.code == "raised"
    assert "no tea" in str(raised.value) and "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 700


async def test_a_listing_says_what_the_server_has(pool: McpConnections, server: Server) -> None:
    listing = await pool.list_tools(server)
    assert {"add", "slow", "order"} <= {tool.name for tool in listing.tools}
    assert listing.server_info["name"] == "talker"
    add = next(tool for tool in listing.tools if tool.name == "add")
    assert (add.description, set(add.input_schema["properties"])) == ("Add two numbers.", {"a", "b"})  # type: ignore[arg-type]
