"""`retinue mcp` as a client starts it: a process at the other end of a pipe or of a port, and what it does with a
client that says nonsense, says nothing, or goes away."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp
import pytest
from mcp_types import CallToolResult
from tests.e2e.conftest import BOUND, COMMAND, Project, make_project

NOISE = """
import sys
print("a module that prints when it is imported")
print("and to stderr", file=sys.stderr)
assert sys.stdin.read() == "", "nothing but the server reads the wire"
"""
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
SUBMIT = {"target": "plain", "input": "why?"}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose module prints and reads when it is imported."""
    made = make_project(tmp_path_factory.mktemp("face") / "project")
    made.write("agents.py", NOISE + (made.folder / "agents.py").read_text("utf-8"))
    return made


@dataclass
class Wire:
    """A server at the other end of pipes of ours."""

    process: subprocess.Popen[bytes]
    seen: list[dict[str, Any]] = field(default_factory=list)

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        for one in messages:
            self.process.stdin.write(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, number: int) -> dict[str, Any]:
        """The reply to the request of that number; every line is a message."""
        assert self.process.stdout is not None
        while not (found := [one for one in self.seen if one.get("id") == number]):
            line = self.process.stdout.readline()
            assert line, "the server has gone"
            self.seen.append(json.loads(line))
        return found[0]

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(BOUND)


@contextmanager
def wired(project: Project, *words: str) -> Iterator[Wire]:
    """`retinue mcp --local WORDS`, ended whatever happens."""
    process = subprocess.Popen(
        [*COMMAND, "mcp", "--local", *words],
        cwd=project.folder,
        env=project.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield Wire(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def parameters(project: Project, *words: str) -> mcp.StdioServerParameters:
    """How a client starts it."""
    return mcp.StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "mcp", *words], env=project.environ, cwd=project.folder
    )


async def answered(agent: mcp.Client) -> str:
    """What an agent of the project answers to a run that is begun and waited for."""
    begun = await agent.call_tool("submit_run", SUBMIT)
    assert isinstance(begun, CallToolResult) and begun.structured_content, begun
    waits = {"run_id": begun.structured_content["run_id"], "timeout": 60}
    ended = await agent.call_tool("wait_run", waits)
    assert isinstance(ended, CallToolResult) and ended.structured_content, ended
    return str(ended.structured_content["output"])


@pytest.mark.promise("A9")
@pytest.mark.promise("H4")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_starts_it_and_runs_an_agent(office: Project, mode: str) -> None:
    async with mcp.Client(parameters(office, "--local"), mode=mode, read_timeout_seconds=BOUND) as agent:
        assert await answered(agent) == "yes"
    said = office.run("ps", "--json", code=0)
    assert said.json[0]["target"] == "plain"


@pytest.mark.promise("H4")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_finds_it_at_a_port(office: Project, mode: str) -> None:
    process = office.start("mcp", "--local", "--http", "127.0.0.1:0", "--json")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["token"] is False
        async with mcp.Client(told["url"], mode=mode, read_timeout_seconds=BOUND) as agent:
            assert await answered(agent) == "yes"
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 143
    finally:
        process.kill()
        _, err = process.communicate()
    assert "Traceback" not in err, err


def test_nonsense_is_survived_and_nothing_but_messages_is_on_the_wire(office: Project) -> None:
    with wired(office) as wire:
        wire.say(b"\n", b"{\n", b"\xff\xfe\n", b"[1,2]\n", b"x" * 5_000_000 + b"\n", HELLO)
        assert wire.hear(1)["result"]["serverInfo"]["name"] == "retinue"
        wire.say({"jsonrpc": "2.0", "method": "notifications/initialized"}, LIST)
        assert len(wire.hear(2)["result"]["tools"]) == 10
        call = {"name": "list_targets", "arguments": {}}
        wire.say({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})
        assert "plain" in wire.hear(3)["result"]["content"][0]["text"]


@pytest.mark.parametrize("spoken", [True, False], ids=["spoken", "silent"])
def test_it_ends_with_its_client(office: Project, spoken: bool) -> None:
    with wired(office) as wire:
        if spoken:
            wire.say(HELLO)
            wire.hear(1)
        assert wire.process.stdin is not None
        wire.process.stdin.close()
        assert wire.end() == 0


def test_it_ends_when_it_is_told_to_though_its_client_stays(office: Project) -> None:
    with wired(office) as wire:
        wire.say(HELLO)
        wire.hear(1)
        wire.process.send_signal(signal.SIGTERM)
        assert wire.end() == 143


def test_a_client_that_reads_nothing_more_holds_nothing_up(office: Project) -> None:
    with wired(office) as wire:
        wire.say(HELLO)
        wire.hear(1)
        assert wire.process.stdout is not None
        wire.process.stdout.close()
        wire.say(LIST)
        assert wire.end() == 0


def test_a_project_that_cannot_be_loaded_ends_it_with_the_reason(tmp_path: Path) -> None:
    broken = make_project(tmp_path / "broken")
    broken.write("retinue.yaml", "modules: [nowhere]\n")
    with wired(broken) as wire:
        wire.say(HELLO)
        code = wire.end()
        assert wire.process.stderr is not None
        said = wire.process.stderr.read().decode()
        assert code == 2, said
        assert "nowhere" in said
