"""Calls that their server makes tasks of: kept at once, followed to their end, gone on with in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.processes import running
from tests.unit.sessions.mcp.linking import DOUBLES, Keeping, answered, call, connections, http, text_of
from tests.unit.sessions.mcp.test_children import until

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.sessions import Pause, Resumption

pytestmark = pytest.mark.promise("D3")

TASKER = str(DOUBLES / "wire_servers" / "tasker.py")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running([TASKER, "0"]) as other:
        yield int(other.wait_for("ready").split()[1])


async def test_a_task_is_kept_at_once_and_followed_to_its_result(port: int) -> None:
    link = Keeping()
    async with connections() as pool:
        assert text_of(await call(pool, http(port), "work", link, seconds=0.3)) == "done"
    token = link.kept[0]
    assert token is not None and not token.once
    assert (token.content["kind"], str(token.content["task_id"])[:5]) == ("task", "task-")
    assert token.expires_at is not None
    assert (0.0, None, "at work") in link.steps


async def test_a_task_goes_on_in_another_process(port: int, tmp_path: Path) -> None:
    path, link = tmp_path / "work", Keeping()
    async with connections() as first:
        calling = asyncio.create_task(call(first, http(port), "work", link, seconds=1.0, path=str(path)))
        await until(lambda: bool(link.kept))
        async with connections() as second:
            going_on = Keeping(Resumption(link.kept[0], {}))
            assert text_of(await call(second, http(port), "work", going_on, seconds=1.0, path=str(path))) == "done"
        await calling
    assert path.read_text() == "begun\n"


async def test_a_question_of_a_task_is_answered_later(port: int) -> None:
    async with connections() as first:
        pause = await call(first, http(port), "order")
    assert isinstance(pause, Pause) and pause.token is not None
    assert (pause.questions[0].key, pause.questions[0].message) == ("amount", "How much?")
    async with connections() as second:
        link = answered(pause, {"euros": 7})
        assert text_of(await call(second, http(port), "order", link)) == "ordered for 7"
    kept = link.kept[-1]
    assert kept is not None and kept.content["answered"] == ["amount"]


async def test_a_task_of_a_call_that_is_given_up_is_cancelled(port: int, tmp_path: Path) -> None:
    path, link = tmp_path / "work", Keeping()
    async with connections() as pool:
        calling = asyncio.create_task(call(pool, http(port), "work", link, seconds=60.0, path=str(path)))
        await until(lambda: bool(link.kept))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: "cancelled" in path.read_text())


async def test_a_task_that_its_server_forgot_is_lost(port: int) -> None:
    link = Keeping()
    async with connections() as pool:
        await call(pool, http(port), "work", link)
        token = link.kept[0]
        assert token is not None
        token.content["task_id"] = "task-of-yesterday"
        going_on = Keeping(Resumption(token, {}))
        with pytest.raises(TransientError) as raised:
            await call(pool, http(port), "work", going_on)
    assert (raised.value.code, going_on.losses, going_on.kept) == ("lost", ["expired"], [None])


@pytest.mark.parametrize(("tool", "said"), [("broken", "the disk is full"), ("refused", "done")])
async def test_a_task_that_fails_says_why(port: int, tool: str, said: str) -> None:
    async with connections() as pool:
        with pytest.raises(PermanentError, match=said) as raised:
            await call(pool, http(port), tool)
    assert raised.value.code == "raised" and "\x1b" not in str(raised.value)


async def test_a_task_that_takes_too_long_is_still_there(port: int) -> None:
    link = Keeping()
    async with connections() as pool:
        with pytest.raises(TransientError) as raised:
            await call(pool, http(port, timeout=1.5), "work", link, seconds=3.0)
        assert raised.value.code == "timeout"
        going_on = Keeping(Resumption(link.kept[0], {}))
        assert text_of(await call(pool, http(port), "work", going_on, seconds=3.0)) == "done"
