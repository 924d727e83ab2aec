"""An answer to a question with a schema is checked at every door: commands, keyboard, client, and MCP."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from mcp_types import ElicitResult
from tests.doubles.projects import project
from tests.unit.ingress import asking
from tests.unit.ingress.conftest import Command
from tests.unit.ingress.face import BOT, Office, ask, open_office, refused, user

from retinue.ingress.exits import Exit
from retinue.ingress.terminal import Terminal
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput

WRONG: dict[str, tuple[Json, str]] = {
    "the kind": ({"boxes": "many", "gift": True}, "field 'boxes' is 'many': give a whole number"),
    "a limit": ({"boxes": 12, "gift": True}, "field 'boxes' is 12: give at most 9"),
    "a missing field": ({"gift": True}, "field 'boxes' is missing: give a whole number"),
    "an unknown field": ({"boxes": 1, "ribbon": "red"}, "field 'ribbon' is not asked for"),
    "no object": (["boxes"], "the answer ['boxes'] is no JSON object: give the fields boxes, gift"),
    "a text": ("two", "field 'boxes' is 'two': give a whole number"),
}
DEEP: dict[str, tuple[Json, str]] = {
    "a part of a list": ({"parcels": [{"id": "a"}, {"id": 2}]}, "field 'parcels.1.id' is 2: should be of type string"),
    "a missing part": ({"parcels": [{}]}, "field 'parcels.0.id' is missing"),
    "a text": ("a", "the answer is 'a': should be of type object"),
}


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """The project of `asking`, hosted here, and the MCP way in."""
    async with open_office(tmp_path / "office", modules=[asking.MODULE]) as office:
        yield office


async def question(office: Office, target: str) -> PendingRequest:
    """Begin a run; what it asks."""
    handle = await office.client.submit(target, None, principal=BOT.principal)
    async for event in handle.events():
        if event.kind == "parked":
            break
    [asked] = await office.client.inbox(handle.run_id)
    return asked


async def output(office: Office, request: PendingRequest) -> Json:
    """How the run that asked ended."""
    return (await office.client.wait(request.run_id, 30)).value


Door = Callable[[Office, PendingRequest, Json], Awaitable[str | None]]
"""Answers; what it says when it refuses."""


async def to_client(office: Office, request: PendingRequest, value: Json) -> str | None:
    try:
        await office.client.answer(request.request_id, value)
    except InvalidInput as error:
        return str(error)
    return None


async def to_command(office: Office, request: PendingRequest, value: Json) -> str | None:
    shown = [value] if isinstance(value, str) else ["--value", json.dumps(value)]
    arguments = ["answer", request.request_id, *shown, "--project", str(office.client.settings.folder)]
    said = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "retinue.ingress.cli", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, told = await said.communicate()
    assert said.returncode == (Exit.usage if told else Exit.done)
    return told.decode() or None


async def to_tool(office: Office, request: PendingRequest, value: Json) -> str | None:
    async with office.agent("2026-07-28") as agent:
        arguments = {"request_id": request.request_id, "value": value}
        result = await agent.call_tool("answer", arguments)
        return result.content[0].text if result.is_error else None  # type: ignore[union-attr]


DOORS: dict[str, Door] = {"client": to_client, "command": to_command, "tool": to_tool}


async def refuses(office: Office, door: str, target: str, wrong: tuple[Json, str]) -> PendingRequest:
    """Give a wrong answer; the request, which is open still."""
    value, told = wrong
    request = await question(office, target)
    said = await DOORS[door](office, request, value)
    assert said is not None and told in said and f"request {request.request_id}: " in said, said
    assert f"`retinue answer {request.request_id} " in said or f"; retinue answer {request.request_id} " in said
    assert [one.request_id for one in await office.client.inbox(request.run_id)] == [request.request_id]
    return request


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_not_the_form_is_refused_and_the_question_stays_open(office: Office, what: str) -> None:
    request = await refuses(office, "client", "pack", WRONG[what])
    assert await to_client(office, request, {"boxes": 2}) is None
    assert await output(office, request) == {"boxes": 2, "gift": False}, "defaults are filled in"


@pytest.mark.parametrize("what", DEEP)
async def test_a_schema_that_is_no_plain_form_is_held_against_the_answer_too(office: Office, what: str) -> None:
    request = await refuses(office, "client", "gather", DEEP[what])
    assert await to_client(office, request, {"parcels": [{"id": "a"}]}) is None
    assert await output(office, request) == {"parcels": [{"id": "a"}]}


@pytest.mark.parametrize("door", DOORS)
async def test_every_door_refuses_and_takes_the_same(office: Office, door: str) -> None:
    for target, wrong, right in (
        ("pack", WRONG["a limit"], {"boxes": 3, "gift": True}),
        ("gather", DEEP["a part of a list"], {"parcels": []}),
    ):
        request = await refuses(office, door, target, wrong)
        assert await DOORS[door](office, request, right) is None
        assert await output(office, request) == right


async def test_a_form_of_one_field_takes_a_text(office: Office) -> None:
    request = await refuses(office, "command", "count", ("some", "field 'boxes' is 'some': give a whole number"))
    assert await to_command(office, request, "4") is None
    assert await output(office, request) == {"boxes": 4}


async def test_what_a_client_s_user_said_is_checked(office: Office) -> None:
    said = user(
        ElicitResult(action="accept", content={"boxes": 12}), ElicitResult(action="accept", content={"boxes": 1})
    )
    async with office.agent("2026-07-28", elicitation_callback=said) as agent:
        begun = await ask(agent, "submit_run", target="pack", input=None)
        told = await refused(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        assert "field 'boxes' is 12: give at most 9" in told
        ended = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
    assert ended["output"] == {"boxes": 1, "gift": False}
    assert [one.requested_schema["properties"]["boxes"]["maximum"] for one in said.asked] == [9, 9]


async def test_a_question_without_a_schema_takes_anything(office: Office) -> None:
    for value in ("7", {"boxes": "many"}, [1], None):
        request = await question(office, "chat")
        assert await to_client(office, request, value) is None
        assert await output(office, request) == value


def test_the_keyboard_is_asked_again_after_a_refusal(
    retinue: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(folder, modules=[asking.MODULE])
    monkeypatch.setattr(Terminal, "talks", True)
    monkeypatch.setattr(sys, "stdin", io.StringIO('two\n{"boxes": 12}\n{"boxes": 5}\n'))
    said = retinue("run", "pack", "null", "--local")
    assert said.code == Exit.done and json.loads(said.out) == {"boxes": 5, "gift": False}
    assert (
        "field 'boxes' is 'two': give a whole number" in said.err and "field 'boxes' is 12: give at most 9" in said.err
    )
    assert "--value '{\"boxes\": 1}'" in said.err, "it is told how"


def test_the_inbox_tells_what_to_type(retinue: Command, folder: Path) -> None:
    project(folder, modules=[asking.MODULE])
    for target, told in (("pack", "--value '{\"boxes\": 1}'`"), ("count", "TEXT`"), ("gather", "--value JSON`")):
        run = retinue("run", target, "null", "--local", "--json")
        assert run.code == Exit.asks
        assert f"{told}\n" in retinue("inbox", run.json["run_id"]).out
