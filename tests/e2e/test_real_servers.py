"""Real servers from npm and PyPI in a real project: declared, pinned, listed, called by a workflow and an agent, asked
back through the inbox, and one of them killed while it works."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.doubles.mcp_servers import NPM, PYPI, NoServers, everything_over_http, npm_server, pypi_server
from tests.doubles.projects import decides, project

from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.pinning import compare
from retinue.runs.contracts import PendingRequest, Status
from retinue.sessions.pins import write_lock

pytestmark = [pytest.mark.promise("D1"), pytest.mark.timeout(300)]

MODULE = '''
from typing import Any

from pydantic import BaseModel

from retinue import Context, agent, workflow


class Call(BaseModel):
    name: str
    arguments: dict[str, Any] = {}


@workflow
async def use(ctx: Context, calls: list[Call]) -> list[Any]:
    """Make these calls, one after the other."""
    return [await ctx.call(call.name, **call.arguments) for call in calls]


clerk = agent("clerk", "Use what the servers offer.", tools=["files__*", "notes__*", "clock__convert_time"])
'''
READS: dict[str, Any] = {"side_effect": "read"}
SETTLES: dict[str, Any] = {"side_effect": "write", "idempotency": "idempotent"}
_BOUND = 60.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A project that has declared and pinned all of them."""
    folder = tmp_path_factory.mktemp("real")
    try:
        for name in NPM:
            npm_server(name)
    except NoServers as error:
        pytest.skip(str(error))
    (folder / "documents").mkdir()
    (folder / "documents" / "hello.txt").write_text("Good morning.\n")
    (folder / "real_servers_agents.py").write_text(MODULE)
    for words in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m Begin"):
        subprocess.run(["git", "-C", folder / "documents", *words.split()], check=True)
    with everything_over_http() as url:
        made = project(
            folder,
            decides(
                {
                    "tool_calls": [
                        {"name": "files__write_file", "arguments": {"path": "note.txt", "content": "from the clerk"}}
                    ]
                },
                {"tool_calls": [{"name": "notes__create_entities", "arguments": {"entities": [ENTITY]}}]},
                {"answer": "noted"},
            ),
            modules=["real_servers_agents"],
            settings={"capabilities": declared(folder, url)},
        )
        for found in asyncio.run(compare(made, made.servers.values())):
            assert found.problem == "" and found.pinned is not None, f"{found.server}: {found.problem}"
            write_lock(folder, found.server, found.pinned)
        yield made


ENTITY = {"name": "clerk", "entityType": "agent", "observations": ["writes notes"]}


def declared(folder: Path, url: str) -> dict[str, Any]:
    documents = str(folder / "documents")
    everything = dict.fromkeys(("echo", "get-structured-content", "get-tiny-image", LONG), READS)
    return {
        "local": {"command": npm_server("everything", "stdio"), "tools": everything},
        "web": {"url": url, "tools": everything},
        "files": {
            "command": npm_server("filesystem", documents),
            "cwd": "documents",
            "tools": {"read_text_file": READS, "write_file": SETTLES},
        },
        "notes": {
            "command": npm_server("memory"),
            "env": {"MEMORY_FILE_PATH": str(folder / "notes.jsonl")},
            "tools": {"read_graph": READS, "create_entities": SETTLES},
        },
        "repo": {"command": pypi_server("git", "--repository", documents), "tools": {"git_log": READS}},
        "clock": {"command": pypi_server("time"), "tools": {"convert_time": READS}},
        "books": {"command": pypi_server("sqlite", "--db-path", "books.db"), "tools": {"read_query": READS}},
    }


LONG = "trigger-long-running-operation"


def calling(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def test_every_server_is_called_by_a_workflow(settings: Settings) -> None:
    noon = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    calls = [
        calling("local__echo", message="over stdio"),
        calling("web__echo", message="over HTTP"),
        calling("web__get-structured-content", location="Chicago"),
        calling("local__get-tiny-image"),
        calling("files__read_text_file", path="hello.txt"),
        calling("files__write_file", path="written.txt", content="by a run"),
        calling("notes__create_entities", entities=[{**ENTITY, "name": "workflow"}]),
        calling("notes__read_graph"),
        calling("repo__git_log", repo_path=str(settings.folder / "documents"), max_count=1),
        calling("clock__convert_time", **noon),
        calling("books__create_table", query="CREATE TABLE books (title TEXT)"),
        calling("books__write_query", query="INSERT INTO books VALUES ('Emma')"),
        calling("books__read_query", query="SELECT title FROM books"),
    ]
    async with connect(settings=settings, local=True) as client:
        said = await (await client.submit("use", calls)).result(_BOUND)
        table = await client.query(
            "SELECT DISTINCT source, side_effect FROM tool_calls WHERE value IS NOT NULL ORDER BY ALL"
        )
    assert said[:2] == ["Echo: over stdio", "Echo: over HTTP"]
    assert said[2]["conditions"] and isinstance(said[2]["temperature"], int | float)
    assert [block["type"] for block in said[3]] == ["text", "image", "text"] and len(said[3][1]["data"]) > 1_000
    assert said[4] == {"content": "Good morning.\n"}
    assert (settings.folder / "documents" / "written.txt").read_text() == "by a run"
    assert [entity["name"] for entity in said[7]["entities"]] == ["workflow"]
    assert "Begin" in json.dumps(said[8])
    assert "T20:00:00+09:00" in json.dumps(said[9])
    assert "Emma" in json.dumps(said[12])
    assert {row["source"] for row in table.to_pylist()} == {f"mcp:{name}" for name in settings.capabilities}
    assert children() == []


async def test_an_agent_uses_all_tools_of_servers(settings: Settings) -> None:
    async with connect(settings=settings, local=True) as client:
        found = client.project.registry.get("clerk")
        assert len([name for name in found.tool_names if name.startswith("files__")]) > 10  # type: ignore[union-attr]
        assert await (await client.submit("clerk", "take a note")).result(_BOUND) == "noted"
    assert (settings.folder / "documents" / "note.txt").read_text() == "from the clerk"
    assert "writes notes" in (settings.folder / "notes.jsonl").read_text()


@pytest.mark.promise("D4")
@pytest.mark.parametrize("server", ["local", "web"])
async def test_a_servers_question_is_answered_through_the_inbox(settings: Settings, server: str) -> None:
    async with connect(settings=settings, local=True) as client:
        run = await client.submit("use", [calling(f"{server}__trigger-elicitation-request")])
        question = await asked(client, run.run_id)
        await client.answer(question.request_id, {"name": "Ana", "check": True})
        [said] = await run.result(_BOUND)
    assert "Ana" in json.dumps(said)


@pytest.mark.promise("D4", "D5")
async def test_a_server_that_is_killed_at_work_is_started_anew_and_its_reading_call_repeated(
    settings: Settings,
) -> None:
    async with connect(settings=settings, local=True) as client:
        run = await client.submit("use", [calling(f"local__{LONG}", duration=2, steps=4)])
        server = await at_work(client, run.run_id)
        server.kill()
        [said] = await run.result(_BOUND)
        progress = await client.query(
            f"SELECT count(*) AS n FROM events WHERE topic = 'progress' AND run_id = '{run.run_id}'"
        )
    assert "Long running operation completed" in said
    assert progress.to_pylist()[0]["n"] > 0
    assert children() == []


async def asked(client: Client, run_id: str) -> PendingRequest:
    """The first question of a run."""
    async with asyncio.timeout(_BOUND):
        while True:
            found = [one for one in await client.inbox() if one.run_id == run_id]
            if found:
                return found[0]
            assert (await client.get(run_id)).status is not Status.failed
            await asyncio.sleep(0.05)


async def at_work(client: Client, run_id: str) -> psutil.Process:
    """The process of the server that has told of progress."""
    async with asyncio.timeout(_BOUND):
        async for event in client.events(run_id):
            if "progress" in event.model_dump_json():
                break
    [server] = [child for child in children() if "mcp-server-everything" in " ".join(child.cmdline())]
    return server


def children() -> list[psutil.Process]:
    """The processes of servers that runs have started."""
    below = [(child, " ".join(child.cmdline())) for child in psutil.Process().children(recursive=True)]
    return [child for child, words in below if "mcp-server-" in words and not words.endswith("streamableHttp")]


def test_every_kind_of_server_is_here() -> None:
    assert sorted([*NPM, *PYPI]) == ["everything", "filesystem", "git", "memory", "sqlite", "time"]
