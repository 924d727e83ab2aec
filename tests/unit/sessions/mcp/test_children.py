"""Server processes: what they are given, and that nothing of them is left, however they or their host end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import psutil
import pytest
from tests.doubles.processes import python
from tests.unit.sessions.mcp.linking import TALKER, bad, call, connections, stdio, text_of

from retinue.runs.errors import PermanentError
from retinue.sessions.mcp.guardian import VARIABLE

HOST = """
import asyncio, os, sys
from tests.unit.sessions.mcp.linking import call, connections, stdio, text_of

async def main():
    async with connections() as pool:
        daemon = text_of(await call(pool, stdio(), "daemon"))
        server = text_of(await call(pool, stdio(), "pid"))
        wrapped = stdio(name="wrapped", command=("sh", "-c", f"'{sys.executable}' '{sys.argv[1]}' stdio; true"))
        inner = text_of(await call(pool, wrapped, "pid"))
        stubborn = stdio(name="stubborn", command=(sys.executable, sys.argv[1], "stdio", "stubborn"))
        deaf = text_of(await call(pool, stubborn, "pid"))
        print("pids", daemon, server, inner, deaf, flush=True)
        if sys.argv[2] == "wait":
            await asyncio.Event().wait()
        if sys.argv[2] == "vanish":
            os._exit(3)

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s")


@pytest.mark.promise("D4")
@pytest.mark.parametrize("end", ["killed", "vanish", "close"])
async def test_nothing_is_left_of_servers_when_their_host_ends(end: str) -> None:
    with python(HOST, TALKER, "wait" if end == "killed" else end) as host:
        pids = [int(pid) for pid in host.wait_for("pids").split()[1:]]
        assert len(pids) == 4
        if end == "killed":
            assert not any(gone(pid) for pid in pids)
            host.kill()
        else:
            host.ended()
        await until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.promise("D4")
async def test_a_new_host_ends_what_one_left_that_died_with_its_guardian() -> None:
    with python(HOST, TALKER, "wait") as host:
        pids = [int(pid) for pid in host.wait_for("pids").split()[1:]]
        guardians = [
            child for child in psutil.Process(host.process.pid).children() if "guardian.py" in str(child.cmdline())
        ]
        guardians[0].kill()
        host.kill()
        async with connections() as pool:
            assert text_of(await call(pool, stdio(), "add", a=1, b=1)) == "2"
            await until(lambda: all(gone(pid) for pid in pids))
            assert text_of(await call(pool, stdio(), "add", a=1, b=1)) == "2"


async def test_what_a_server_leaves_behind_is_ended_with_it() -> None:
    async with connections() as pool:
        daemon = int(text_of(await call(pool, stdio(idle_seconds=1.0), "daemon")))
        assert not gone(daemon)
        await until(lambda: gone(daemon))


async def test_a_server_sees_nothing_of_the_environment_but_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_SECRET_OF_ANOTHER", "hidden")
    monkeypatch.setenv("TALKER_TOKEN", "told")
    async with connections() as pool:
        result = await call(pool, stdio(env={"TOKEN": "${TALKER_TOKEN}", "MODE": "plain"}), "environment")
    seen = result.structured  # type: ignore[union-attr]
    assert isinstance(seen, dict)
    found = seen["result"] if isinstance(seen.get("result"), dict) else seen
    assert (found["TOKEN"], found["MODE"], found["PATH"]) == ("told", "plain", os.environ["PATH"])
    allowed = {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "TOKEN",
        "MODE",
    }
    assert set(found) <= allowed | {VARIABLE}


async def test_a_variable_that_is_not_there_is_named() -> None:
    async with connections() as pool:
        with pytest.raises(PermanentError, match="NO_SUCH_TOKEN") as raised:
            await call(pool, stdio(env={"TOKEN": "${NO_SUCH_TOKEN}"}), "add", a=1, b=1)
    assert raised.value.code == "not_made"


async def test_a_program_that_is_not_there_is_named() -> None:
    async with connections() as pool:
        with pytest.raises(PermanentError, match="no-such-program could not be started") as raised:
            await call(pool, stdio(command=("no-such-program", "x")), "add", a=1, b=1)
    assert raised.value.code == "not_made"


async def test_a_server_that_ignores_the_end_of_input_and_sigterm_is_killed() -> None:
    async with connections() as pool:
        server = stdio(command=(sys.executable, TALKER, "stdio", "stubborn"))
        pid = int(text_of(await call(pool, server, "pid")))
        os.kill(pid, signal.SIGTERM)
        assert text_of(await call(pool, server, "add", a=1, b=1)) == "2"
        async with asyncio.timeout(60):
            await pool.close()
        assert gone(pid)


async def test_what_a_server_complains_of_is_in_the_error_and_its_secrets_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BAD_TOKEN", "s3cr3t-value")
    async with connections() as pool:
        with pytest.raises(Exception, match="the database is locked") as raised:
            await call(pool, bad("dies", "at_start", env={"TOKEN": "${BAD_TOKEN}"}), "add")
    assert "s3cr3t-value" not in str(raised.value)
    assert "***" in str(raised.value) and "\x1b" not in str(raised.value)
