"""Where the MCP way in listens over HTTP, and whom it lets speak."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import mcp
import pytest
import pytest_asyncio
from mcp.shared.exceptions import MCPError
from tests.unit.ingress.face import MODES, Office, ask, open_office
from tests.unit.sessions.mcp.linking import Keeping, answered, caller, connections

from retinue.ingress.mcp.http import Place, read_place, serve_http
from retinue.ingress.mcp.tasks import TASKS
from retinue.runs.contracts import Json
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.sessions import Pause
from retinue.sessions.connections import RemoteResult
from retinue.sessions.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOKEN = "t0ken-of-sixteen-or-more"
VERSION = "2026-07-28"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with open_office(tmp_path_factory.mktemp("office")) as made:
        yield made


@asynccontextmanager
async def served(office: Office, targets: Sequence[str] = (), **options: Any) -> AsyncIterator[str]:
    """The address of a server on a free port of this machine."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    place = Place("127.0.0.1", 0, **options)
    serving = asyncio.create_task(serve_http(office.server(targets=targets), place, told.set_result))
    try:
        yield await told
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(office: Office) -> AsyncIterator[str]:
    async with served(office) as address:
        yield address


async def say(url: str, method: str, headers: dict[str, str] | None = None, **params: Json) -> httpx.Response:
    """A request of the new era, with the headers that belong to it unless others are given."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
    }
    name = params.get("name") or params.get("taskId")
    usual = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": method,
        **({"Mcp-Name": name} if name else {}),
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    async with httpx.AsyncClient() as client:
        return await client.post(url, json=body, headers={**usual, **(headers or {})}, timeout=30)


@pytest.mark.promise("H4")
@pytest.mark.parametrize("mode", MODES)
async def test_a_run_is_begun_and_waited_for_over_http(url: str, mode: str) -> None:
    async with mcp.Client(url, mode=mode, read_timeout_seconds=30) as agent:
        begun = await ask(agent, "submit_run", target="plain", input="why?")
        assert (await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20))["output"] == "42"


async def test_another_process_goes_on_with_an_old_client(office: Office, url: str) -> None:
    """No session is kept: what one server began with a client another one answers, on the same connection's headers."""
    async with served(office) as other, httpx.AsyncClient() as client:
        headers = {"Accept": "application/json, text/event-stream"}
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "old", "version": "1"},
        }
        begun = await client.post(
            url, json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, headers=headers
        )
        assert begun.status_code == 200
        assert "mcp-session-id" not in begun.headers
        again = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        listed = await client.post(other, json=again, headers={**headers, "MCP-Protocol-Version": "2025-11-25"})
        assert "submit_run" in listed.text


async def test_a_page_of_another_origin_or_name_does_not_reach_it(url: str) -> None:
    assert (await say(url, "tools/list", {"Host": "evil.example"})).status_code == 421
    assert (await say(url, "tools/list", {"Host": "127.0.0.1.evil.example:80"})).status_code == 421
    assert (await say(url, "tools/list", {"Origin": "http://evil.example"})).status_code == 403
    assert (await say(url, "tools/list", {"Origin": "http://localhost.evil.example"})).status_code == 403
    assert (await say(url, "tools/list", {"Origin": "http://localhost:3000"})).status_code == 200


async def test_names_that_were_allowed_reach_it(office: Office) -> None:
    async with served(office, names=("mcp.example.com",)) as url:
        assert (await say(url, "tools/list", {"Host": "mcp.example.com"})).status_code == 200
        assert (await say(url, "tools/list", {"Host": "mcp.example.com:8443"})).status_code == 200
        assert (await say(url, "tools/list", {"Origin": "https://mcp.example.com"})).status_code == 200
        assert (await say(url, "tools/list", {"Host": "other.example.com"})).status_code == 421


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}", "Bearer ÿ"]
)
async def test_without_the_token_nobody_speaks(office: Office, given: str | None) -> None:
    async with served(office, token=TOKEN) as url:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        said = await say(url, "tools/list", headers)  # type: ignore[arg-type]
        assert (said.status_code, said.headers["www-authenticate"]) == (401, 'Bearer realm="retinue"')
        assert "tools" not in said.text
        assert (await say(url, "tools/list", {"Authorization": f"bearer {TOKEN}"})).status_code == 200


async def test_the_header_that_balancers_route_by_names_the_task(url: str) -> None:
    said = await say(url, "tools/call", name="submit_run", arguments={"target": "await_truck"})
    task = said.json()["result"]["taskId"]
    for method in ("tasks/get", "tasks/cancel"):
        for wrong in ({"Mcp-Name": "other"}, {"Mcp-Name": ""}):
            refused = await say(url, method, wrong, taskId=task)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32020)
    assert (await say(url, "tasks/get", taskId=task)).json()["result"]["status"] == "working"
    assert (await say(url, "tasks/cancel", taskId=task)).json()["result"]["resultType"] == "complete"
    for gone in ("tasks/list", "tasks/result"):
        assert (await say(url, gone, taskId=task)).json()["error"]["code"] == -32601


async def test_what_is_no_request_is_refused_and_the_next_one_is_served(url: str) -> None:
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION}
    async with httpx.AsyncClient(headers=headers) as client:
        for body, status in (("{", 400), ("[]", 400), ("1" * 5_000, 400), ("x" * 5_000_000, 413)):
            said = await client.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=30)
            assert said.status_code == status, body[:20]
        assert (await client.get(url)).status_code == 405
    assert (await say(url, "tools/list")).status_code == 200


@pytest.mark.promise("D1")
async def test_retinue_calls_retinue_and_passes_its_questions_on(office: Office) -> None:
    """A run far away is a task of the call, its question a question of the call, in both directions the same form."""
    async with served(office, targets=("ship", "lose")) as url, connections() as pool:
        there = Server(name="office", url=url)
        link = Keeping()
        asked = await pool.call(there, "ship", {"id": "o-1", "amount": 2}, caller("k-far"), link, None)
        assert isinstance(asked, Pause)
        [question] = asked.questions
        assert (question.kind, question.message) == ("form", "Who packs it?")
        begun = [run for run in await office.client.runs(RunQuery(limit=1_000)) if run.target == "ship"]
        said = await pool.call(
            there, "ship", {"id": "o-1", "amount": 2}, caller("k-far"), answered(asked, {"answer": "Bo"}), None
        )
        assert isinstance(said, RemoteResult) and isinstance(said.structured, dict)
        assert said.structured["output"] == {"shipped": "o-1", "by": "Bo"}
        again = await pool.call(there, "ship", {"id": "o-1", "amount": 2}, caller("k-far"), Keeping(), None)
        assert isinstance(again, RemoteResult) and again.structured == said.structured
        assert len([run for run in await office.client.runs(RunQuery(limit=1_000)) if run.target == "ship"]) == len(
            begun
        )
        with pytest.raises(PermanentError, match="the parcel is lost"):
            await pool.call(there, "lose", {"input": None}, caller("k-lost"), Keeping(), None)


async def test_a_missing_tool_is_an_error_of_the_protocol(url: str) -> None:
    async with mcp.Client(url, mode=VERSION) as agent:
        with pytest.raises(MCPError, match="there is no tool 'fly': there are list_targets,"):
            await agent.call_tool("fly", {})


@pytest.mark.parametrize(
    ("text", "token", "names", "said"),
    [
        ("8931", None, (), "is no HOST:PORT"),
        ("localhost:http", None, (), "is no HOST:PORT"),
        ("localhost:70000", None, (), "is no HOST:PORT"),
        ("0.0.0.0:1", None, (), "it asks for no token"),
        ("192.0.2.1:1", None, (), "it asks for no token"),
        ("example.com:1", None, (), "it asks for no token"),
        ("0.0.0.0:1", TOKEN, (), "--allow-host"),
        ("127.0.0.1:1", "short", (), "shorter than 16"),
    ],
)
async def test_a_place_that_cannot_be_is_told(text: str, token: str | None, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace(".", r"\.")) as caught:
        read_place(text, token, names)
    assert TOKEN not in str(caught.value)


async def test_a_place_is_read() -> None:
    assert read_place("[::1]:0", None, ()) == Place("::1", 0)
    assert read_place("[::1]:0", None, ()).written == "[::1]"
    assert read_place("0.0.0.0:80", TOKEN, ("a",)) == Place("0.0.0.0", 80, TOKEN, ("a",))


async def test_a_port_that_somebody_has_is_told(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Place("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(InvalidInput, match="cannot be listened on: Address already in use; name another"):
            await serve_http(office.server(), place, print)
