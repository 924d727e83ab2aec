"""Pages that a person has to visit: asked for on a stream, in place of a result, and in place of the call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.sessions.mcp.linking import Keeping, answered, call, connections, http, stdio, talking, text_of

from retinue.runs.errors import PermanentError
from retinue.runs.sessions import Pause, Resumption, Token
from retinue.sessions.mcp import calls
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.servers import Server

KINDS = ["stdio legacy", "stdio auto", "http legacy", "http auto"]
FEWER = pytest.mark.parametrize("server", ["stdio legacy", "http auto"], indirect=True)
pytestmark = [pytest.mark.promise("D3"), pytest.mark.asyncio(loop_scope="module")]


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


def asks_for_the_page(pause: object, name: str | None = "e-1") -> Pause:
    assert isinstance(pause, Pause)
    [question] = pause.questions
    assert (question.kind, question.message) == ("url", "Sign in")
    assert question.asked == {"url": "https://example.com/sign-in?x=1", **({"id": name} if name else {})}
    return pause


def visit(path: Path) -> None:
    with path.open("a") as file:
        file.write("visited\n")


async def test_a_page_is_asked_for_and_the_call_goes_on_when_it_was_visited(
    pool: McpConnections, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    name = "e-1" if server.protocol == "legacy" else None  # 2026-07-28 has no names of pages
    pause = asks_for_the_page(await call(pool, server, "visit", path=str(path)), name)
    assert path.read_text().split() == ["asked"]
    assert text_of(await call(pool, server, "visit", answered(pause), path=str(path))) == "accept"
    assert path.read_text().split() == ["asked", "told"]
    pause = asks_for_the_page(await call(pool, server, "visit"), name)
    assert text_of(await call(pool, server, "visit", answered(pause, action="decline"))) == "decline"


async def test_a_call_that_needs_a_page_is_made_again_after_the_visit(
    pool: McpConnections, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    pause = asks_for_the_page(await call(pool, server, "enter", path=str(path)))
    assert path.read_text().split() == ["called"], "nothing is made again before the page was visited"
    assert pause.token is not None and pause.token.once
    unanswered = Keeping(Resumption(pause.token, {}))
    assert asks_for_the_page(await call(pool, server, "enter", unanswered, path=str(path))) == pause
    assert path.read_text().split() == ["called"]
    visit(path)
    link = answered(pause)
    assert text_of(await call(pool, server, "enter", link, path=str(path))) == "entered"
    assert (path.read_text().split(), link.kept) == (["called", "visited", "called"], [None])


@FEWER
async def test_it_is_made_again_in_another_process(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with connections() as pool:
        pause = asks_for_the_page(await call(pool, server, "enter", path=str(path)))
    assert pause.token is not None
    visit(path)
    link = answered(Pause(pause.questions, Token(dict(pause.token.content))))
    async with connections() as pool:
        assert text_of(await call(pool, server, "enter", link, path=str(path))) == "entered"


@FEWER
async def test_a_page_after_a_page_is_asked_for_too(pool: McpConnections, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "log"
    pause = asks_for_the_page(await call(pool, server, "enter", path=str(path), pages=2))
    visit(path)
    pause = asks_for_the_page(await call(pool, server, "enter", answered(pause), path=str(path), pages=2), "e-2")
    visit(path)
    assert text_of(await call(pool, server, "enter", answered(pause), path=str(path), pages=2)) == "entered"


@FEWER
async def test_a_page_that_is_declined_ends_the_call(pool: McpConnections, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "log"
    pause = await call(pool, server, "enter", path=str(path))
    with pytest.raises(PermanentError, match="a page that it needs was declined") as raised:
        await call(pool, server, "enter", answered(pause, action="decline"), path=str(path))
    assert (raised.value.code, path.read_text().split()) == ("refused", ["called"])


@FEWER
async def test_pages_without_end_are_refused(
    pool: McpConnections, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_ROUNDS", 3)
    path = tmp_path / "log"
    pause = await call(pool, server, "enter", path=str(path))
    for _ in range(2):
        pause = asks_for_the_page(await call(pool, server, "enter", answered(pause), path=str(path)))
    with pytest.raises(PermanentError, match="asks without end: 3 rounds"):
        await call(pool, server, "enter", answered(pause), path=str(path))


async def test_a_server_that_was_restarted_meanwhile_is_called_on_a_new_session(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with connections() as pool:
        with talking() as (_, port):
            server = http(port, protocol="legacy")
            pause = asks_for_the_page(await call(pool, server, "enter", path=str(path)))
        visit(path)
        with talking(port):
            link = answered(pause)
            assert text_of(await call(pool, server, "enter", link, path=str(path))) == "entered"
    assert pause.token is not None
    assert (link.losses, [kept and kept.content for kept in link.kept]) == (
        ["expired"],
        [None, pause.token.content, None],
    )
    assert path.read_text().split() == ["called", "visited", "called"]
