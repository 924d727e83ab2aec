"""Calls per second to a server's tool: the bare SDK client, gate and gateway and session, and a run with its journal.

    python -m benchmarks.capabilities.run [--quick] [--only PART] [--profile FILE]

All three talk with the same server (over stdio with a process of their own each), in turn, round by round in one
process; of the rounds the best counts, for each alike. `cpu_ms` is the processor time of this process for a call, which
other work on the machine changes least. Servers: an echo server of the Python SDK in both worlds of the protocol, and
`server-everything` of npm where Node.js is. Merges rows `mcp_...` into benchmarks/results.json.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mcp
from benchmarks.peers.table import merged
from mcp_types import CallToolResult
from tests.doubles.mcp_servers import NoServers, npm_server

from retinue import connect
from retinue.host import clock
from retinue.host.collector import calm_collector
from retinue.host.composition import Project, load_project
from retinue.host.settings import Settings, load_settings
from retinue.runs.capabilities import Caller, CallResult
from retinue.sessions.mcp.pool import McpConnections
from retinue.sessions.pins import pin, write_lock
from retinue.sessions.remote import Alone

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results.json"
ECHO = [sys.executable, str(HERE / "echo.py")]
POLICY = '@id("all") permit (principal, action, resource);\n' + "".join(
    f'@id("never-{number}") @reason("no") forbid (principal, action, resource) '
    f'when {{ context.tenant == "nobody-{number}" }};\n'
    for number in range(20)
)
WIDTHS = (1, 32)
CALLS = {"stdio": {1: 80, 32: 320}, "http": {1: 40, 32: 160}}
"""Calls of a round, by how many at once: short rounds find the moments when nobody else works."""
JOURNALED = {"stdio": {1: 80, 32: 1600}, "http": {1: 40, 32: 320}}
"""The same for calls with a journal: a run's own beginning and end, about 3 ms of processor time, are in the figure."""
ROUNDS = 15
Call = Callable[[int], Awaitable[None]]
Figure = tuple[float, float]
"""Calls per second, and milliseconds of this process's processor time for each."""


@dataclass(frozen=True)
class Peer:
    """A server and how it is spoken to; `target` is a command or an address."""

    name: str
    target: list[str] | str
    protocol: str


# -- servers -------------------------------------------------------------------------------------------------


@contextmanager
def listening(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A server process with a port, ended afterwards."""
    process = subprocess.Popen(
        command, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def peers(only: str) -> Iterator[list[Peer]]:
    """All servers that can be had here."""
    with listening([*ECHO, "http"], {}) as echo:
        assert echo.stdout is not None
        url = f"http://127.0.0.1:{int(echo.stdout.readline())}/mcp"
        found = [
            Peer("stdio_python", [*ECHO, "stdio"], "2026-07-28"),
            Peer("http_python", url, "2026-07-28"),
            Peer("http_python_legacy", url, "legacy"),
        ]
        try:
            command = npm_server("everything")
        except NoServers as error:
            print(f"without server-everything: {error}", file=sys.stderr)
            yield [one for one in found if only in one.name]
            return
        port = _free_port()
        with listening([*command, "streamableHttp"], {"PORT": str(port)}):
            _await_port(port)
            found.append(Peer("stdio_node", command, "legacy"))
            found.append(Peer("http_node", f"http://127.0.0.1:{port}/mcp", "legacy"))
            yield [one for one in found if only in one.name]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _await_port(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


# -- three ways to call --------------------------------------------------------------------------------------


@asynccontextmanager
async def bare(peer: Peer) -> AsyncIterator[Call]:
    """The SDK's client and nothing else."""
    target: Any = peer.target
    if isinstance(target, list):
        target = mcp.StdioServerParameters(command=target[0], args=target[1:])
    async with mcp.Client(target, mode=peer.protocol) as client:

        async def call(number: int) -> None:
            said = await client.session.call_tool("echo", {"message": f"r {number}"})
            assert isinstance(said, CallToolResult) and not said.is_error, said

        yield call


def caller(number: int) -> Caller:
    """Whoever calls; each call has a key of its own."""
    return Caller(
        run_id="r1",
        root_run_id="r1",
        tenant_id="default",
        principal_id="ana",
        agent="bench",
        route="api",
        depth=0,
        key=f"k{number}",
        epoch=1,
        deadline=clock.now_ns() + 60_000_000_000,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        budget={},
    )


@asynccontextmanager
async def gated(project: Project) -> AsyncIterator[Call]:
    """Arguments validated, the gate asked, the gateway and the session to the server; no run and no journal."""
    gateway = project.gateway
    numbers = itertools.count()

    async def call(number: int) -> None:
        who = caller(next(numbers))
        prepared = gateway.prepare("echo__echo", {"message": f"r {number}"})
        decision = gateway.decide(prepared, who, None)
        assert decision.outcome == "allow", decision
        said = await gateway.execute(prepared, who, Alone())
        assert isinstance(said, CallResult), said

    try:
        yield call
    finally:
        await gateway.close()


async def pinned_project(peer: Peer, folder: Path) -> Settings:
    """A project with the server declared and pinned."""
    place = {"command": peer.target} if isinstance(peer.target, list) else {"url": peer.target}
    declared = {**place, "protocol": peer.protocol, "tools": {"echo": {"side_effect": "read"}}}
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "rules.cedar").write_text(POLICY)
    given = {
        "modules": ["benchmarks.capabilities.work"],
        "capabilities": {"echo": declared},
        "max_tool_hops": 1_000_000,
        "principal": "ana",
        "actors": {"capacity": 64},
        "telemetry": {"emit_structured_events": False},
    }
    (folder / "retinue.yaml").write_text(json.dumps(given))
    settings = load_settings(folder)
    connections = McpConnections(os.environ)
    try:
        server = settings.servers["echo"]
        listing = await connections.list_tools(server)
        write_lock(folder, "echo", pin(server, listing, "ana", datetime(2026, 1, 1, tzinfo=UTC).isoformat()))
    finally:
        await connections.close()
    return settings


# -- measuring -----------------------------------------------------------------------------------------------


async def rate(call: Call, width: int, count: int) -> Figure:
    """So many calls with so many at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    before, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(width)))
    return count / (time.perf_counter() - before), (time.process_time() - worked) * 1_000 / count


async def journaled_rate(client: Any, width: int, count: int) -> Figure:
    """So many calls of so many runs at once, each with its journal."""
    each = count // width
    before, worked = time.perf_counter(), time.process_time()
    handles = [await client.submit("calls", {"run": run, "count": each}) for run in range(width)]
    await asyncio.gather(*(handle.result(120) for handle in handles))
    made = each * width
    return made / (time.perf_counter() - before), (time.process_time() - worked) * 1_000 / made


async def measure(peer: Peer, quick: bool, rounds: int, profile: str | None) -> dict[str, list[Figure]]:
    """Figures by `WAY_WIDTH`, a list of rounds each."""
    found: dict[str, list[Figure]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = await pinned_project(peer, folder / "project")
        ways = {
            "bare": await stack.enter_async_context(bare(peer)),
            "gateway": await stack.enter_async_context(gated(load_project(settings))),
        }
        client = await stack.enter_async_context(connect(settings=settings, local=True))
        for call in ways.values():
            await rate(call, 8, 64)
        await journaled_rate(client, 8, 64)
        if profile is not None:
            profiler = cProfile.Profile()
            profiler.enable()
            await rate(ways["gateway"], 32, 3_000)
            profiler.disable()
            profiler.dump_stats(profile)
        for _ in range(1 if quick else rounds):
            for width in WIDTHS:
                transport, part = peer.name.partition("_")[0], 4 if quick else 1
                count = CALLS[transport][width] // part
                for name, call in ways.items():
                    found.setdefault(f"{name}_{width}", []).append(await rate(call, width, count))
                found.setdefault(f"journal_{width}", []).append(
                    await journaled_rate(client, width, JOURNALED[transport][width] // part)
                )
    return found


def rows(peer: Peer, found: dict[str, list[Figure]]) -> list[dict[str, Any]]:
    """Lines of results.json: each way beside the bare client of the same rounds."""
    best = {name: max(figures)[0] for name, figures in found.items()}
    told = []
    for width in WIDTHS:
        bare_name = f"mcp_{peer.name}_bare_{width}"
        for way in ("bare", "gateway", "journal"):
            value, floor = best[f"{way}_{width}"], best[f"bare_{width}"]
            told.append(
                {
                    "name": f"mcp_{peer.name}_{way}_{width}",
                    "value": round(value, 1),
                    "unit": "1/s",
                    "against": None if way == "bare" else bare_name,
                    "ratio": None if way == "bare" else round(value / floor, 3),
                    "cpu_ms": round(min(cpu for _, cpu in found[f"{way}_{width}"]), 3),
                }
            )
    return told


def main() -> None:
    """Measure, print a table, merge into results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round; nothing is written")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured")
    parser.add_argument("--only", default="", help="only servers whose name contains this; nothing is written")
    parser.add_argument("--profile", help="write a profile of 3,000 calls through the gateway to this file")
    given = parser.parse_args()
    calm_collector()
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    told: list[dict[str, Any]] = []
    with peers(given.only) as servers:
        for peer in servers:
            lines = rows(peer, asyncio.run(measure(peer, given.quick, given.rounds, given.profile)))
            for line in lines:
                ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f} of bare"
                print(
                    f"{line['name']:34} {line['value']:>10,} {line['unit']:4} {line['cpu_ms']:.3f} ms {ratio}",
                    flush=True,
                )
            told += lines
    if not given.quick and not given.only and given.profile is None:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps(merged(known, told), indent=1) + "\n")


if __name__ == "__main__":
    main()
