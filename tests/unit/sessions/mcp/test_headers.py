"""Tools that change under a call: the headers that they want, and what they are while a call of them waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.sessions.mcp.linking import Keeping, answered, call, caller, connections, http, talking, text_of
from tests.unit.sessions.mcp.test_pool import hears_of, pins_of

from retinue.runs.errors import PermanentError
from retinue.runs.sessions import Pause
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with talking() as (_, port):
        yield http(port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[McpConnections]:
    async with connections() as made:
        yield made


async def reroute(pool: McpConnections, server: Server, header: str) -> None:
    """Have the tool want another header; the connection knows what it wanted before, and hears nothing."""
    assert text_of(await call(pool, server, "reroute", header=header)) == header


async def test_a_call_with_headers_of_before_is_sent_again_with_those_of_now(
    pool: McpConnections, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    assert text_of(await call(pool, server, "routed", region="north", path=str(path))) == "north"
    await reroute(pool, server, "Zone")
    assert text_of(await call(pool, server, "routed", region="south", path=str(path))) == "south"
    assert path.read_text().split() == ["north", "south"], "the first of the two was turned away"


@pytest.mark.promise("D5")
async def test_it_is_not_sent_again_to_a_tool_that_is_another_one_now(
    pool: McpConnections, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    pins = pins_of(await pool.list_tools(server))
    await reroute(pool, server, "Area")
    link = Keeping()
    with pytest.raises(PermanentError, match="retinue capabilities diff") as raised:
        await pool.call(server, "routed", {"region": "east", "path": str(path)}, caller(), link, pins)
    assert (raised.value.code, link.losses, path.exists()) == ("pin_changed", ["pins_changed"], False)


@pytest.mark.promise("D5")
async def test_a_call_that_waits_does_not_go_on_with_a_tool_that_was_changed(
    pool: McpConnections, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    pins = pins_of(await pool.list_tools(server))
    pause = await pool.call(server, "visit", {"path": str(path)}, caller(), Keeping(), pins)
    assert isinstance(pause, Pause)
    await call(pool, server, "grow", name="visit")
    await hears_of(pool, "visit", pins.tools["visit"])
    link = answered(pause)
    with pytest.raises(PermanentError, match="retinue capabilities diff") as raised:
        await pool.call(server, "visit", {"path": str(path)}, caller(), link, pins)
    assert (raised.value.code, link.losses, link.kept) == ("pin_changed", ["pins_changed"], [])
