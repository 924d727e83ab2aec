"""Attempts to use the way out for more than it is: other hosts, other addresses, hidden requests, too many of them.

A real server stands outside and the real proxy before it; the programs speak to it from inside, through the forwarder
or by the socket. One backend has a network for it; the other one refuses a profile that lists hosts.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.escapes.planting import NEIGHBOUR
from tests.escapes.trials import UID, Cell, Outcome, cell

from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import roots
from retinue.sandbox.backends.port import Surroundings
from retinue.sandbox.egress import forwarding, proxy
from retinue.sandbox.profiles import BUILD

_ASK = """
import json, os, socket, sys, time
place, request = sys.argv[1:3]
def reach():
    return socket.create_connection(("127.0.0.1", 3128), 5)
def ask():
    got = b""
    with reach() as s:
        s.sendall(request.encode("latin-1"))
        s.settimeout(1)
        try:
            while more := s.recv(65536):
                got += more
        except OSError:
            got += b" (no more)"
    return got.decode("latin-1")
"""
_TUNNEL = "CONNECT PLACE HTTP/1.1\r\n\r\n"
_GET = "GET http://PLACE/ HTTP/1.1\r\nHost: x\r\n"
_POST = "POST http://PLACE/ HTTP/1.1\r\nHost: x\r\n"
_SECOND = "GET /second HTTP/1.1\r\nHost: evil.example\r\n\r\n"


@dataclass
class Server:
    """Answers every request that it finds, as lenient ones do, and notes what it was asked."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while line := await reader.readline():
                words = line.decode("latin-1").strip()
                if words.endswith(("HTTP/1.1", "HTTP/1.0")) or words.lower().startswith("host"):
                    self.asked.append(words)
                if not words:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached")
                    await writer.drain()
        except OSError as error:
            self.asked.append(f"broken off: {error}")
        finally:
            self.open -= 1
            writer.close()


@dataclass(frozen=True, slots=True)
class Out:
    """A confinement with a way out; `listed` are the hosts of its profile, `allowed` what the gate says of each."""

    at: Cell
    server: Server

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def run(
        self, code: str, request: str = _TUNNEL, *, listed: tuple[str, ...] = (), allowed: bool = True
    ) -> ExecResult:
        """A program inside; the server is listed unless others are."""
        hosts = tuple(host.replace("PORT", str(self.server.port)) for host in listed) or (self.place,)
        profile = BUILD.model_copy(update={"hosts": hosts})
        asked = request.replace("PLACE", self.place).replace("PORT", str(self.server.port))
        return await self.led(replace(self.at, profile=profile), (_ASK + code, self.place, asked), allowed)

    async def led(self, at: Cell, words: tuple[str, ...], allowed: bool) -> ExecResult:
        async with proxy.way_out(at.profile, lambda host, port: allowed, UID) as way:
            assert way is not None
            argv = forwarding.wrapped(("python3", "-I", "-S", "-c", *words), roots.PROXY)
            around = Surroundings(dict(forwarding.VARIABLES), way)
            return await at.backend.exec(at.place, at.profile, Exec(argv=argv, timeout=20), around)


@asynccontextmanager
async def _served() -> AsyncIterator[Server]:
    made = Server()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def _asks(request: str, *listed: str, allowed: bool = True, bad: str = "") -> Callable[[Out], Awaitable[Outcome]]:
    """The request reaches the server or, where there is a `bad` word, the server sees that."""

    async def attempt(out: Out) -> Outcome:
        done = await out.run("print(ask())", request, listed=listed, allowed=allowed)
        asked = "; ".join(out.server.asked)
        got = bad in asked if bad else out.server.connections > 0
        return Outcome("open" if got else "stopped", f"{done.stdout.strip()[-100:]}{done.stderr[-80:]} {asked}")

    return attempt


async def _direct(out: Out) -> Outcome:
    code = "s = socket.create_connection(('127.0.0.1', int(place.split(':')[1])), 2); print('reached')"
    done = await out.run(code)
    return Outcome("open" if out.server.connections else "stopped", done.stderr[-60:].strip())


async def _honest(out: Out) -> None:
    """The way is there, else everything would be stopped."""
    done = await out.run("print(ask())", _GET + "\r\n")
    assert "reached" in done.stdout, done
    assert out.server.asked == ["GET / HTTP/1.1", f"host: {out.place}"], out.server.asked


async def _slow(out: Out) -> Outcome:
    """A head that never ends is not waited for, and all of them together hold up nobody for longer."""
    patience, proxy.HEAD_SECONDS = proxy.HEAD_SECONDS, 1.0
    code = """
held = [reach() for _ in range(30)]
for s in held:
    s.sendall(b"GET http://")
began = time.monotonic()
ends = [s.recv(100) for s in held]
print(time.monotonic() - began < 5 and all(b"408" in end for end in ends))
"""
    try:
        done = await out.run(code)
    finally:
        proxy.HEAD_SECONDS = patience
    return Outcome("stopped" if done.stdout.strip() == "True" else "open", done.stdout.strip() + done.stderr[-80:])


async def _crowd(out: Out) -> Outcome:
    code = """
held = []
for _ in range(90):
    s = reach()
    s.settimeout(1)
    s.sendall(request.encode())
    held.append(s)
def answer(s):
    try:
        return s.recv(100)
    except OSError:
        return b""
print(sum(b"200" in answer(s) for s in held))
"""
    done = await out.run(code)
    count = out.server.connections
    return Outcome("stopped" if 0 < count <= proxy.MOST_AT_ONCE else "open", f"{count} at once {done.stderr[-80:]}")


async def _stranger(out: Out) -> Outcome:
    """Another user of the machine at the socket: its folder is not his, and the kernel says who is there."""
    profile = BUILD.model_copy(update={"hosts": (out.place,)})
    code = "import os, socket, sys; user = int(sys.argv[3]); os.setgroups([]); os.setresgid(user, user, user); "
    code += "os.setresuid(user, user, user); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    code += "s.sendall(sys.argv[2].encode()); print(s.recv(100))"
    said = ""
    async with proxy.way_out(profile, lambda host, port: True, UID) as way:
        for user in (NEIGHBOUR, os.geteuid()) if UID is not None else ():
            argv = [sys.executable, "-I", "-S", "-c", code, str(way), _TUNNEL.replace("PLACE", out.place), str(user)]
            done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
            said += done.stdout + done.stderr[-60:]
    return Outcome("open" if out.server.connections else "stopped", said)


async def _outlives(out: Out) -> Outcome:
    """A tunnel of a process that stays is over with the exec."""
    code = """
s = reach()
s.sendall(request.encode())
print(s.recv(100))
if os.fork() == 0:
    os.setsid()
    while True:
        s.sendall(b"x")
        time.sleep(0.05)
"""
    done = await out.run(code)
    for _ in range(100):
        if not out.server.open:
            break
        await asyncio.sleep(0.02)
    return Outcome("stopped" if out.server.connections == 1 and not out.server.open else "open", done.stdout.strip())


ATTEMPTS: dict[str, Callable[[Out], Awaitable[Outcome]]] = {
    "go past the proxy": _direct,
    "reach a host that is not listed": _asks(_TUNNEL, "example.org"),
    "reach a listed host that the policy refuses": _asks(_TUNNEL, allowed=False),
    "reach this machine by a listed name": _asks("CONNECT localhost:PORT HTTP/1.1\r\n\r\n", "localhost:PORT"),
    "reach an address written as a number": _asks("CONNECT 2130706433:PORT HTTP/1.1\r\n\r\n", "2130706433:PORT"),
    "reach an address that is not listed": _asks("CONNECT 127.0.0.1:PORT HTTP/1.1\r\n\r\n", "*.example.org:PORT"),
    "reach another port of a listed host": _asks(_TUNNEL, "127.0.0.1"),
    "name another Host": _asks("GET http://PLACE/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", bad="evil"),
    "name another Host in the address": _asks("GET http://evil.example@PLACE/ HTTP/1.1\r\n\r\n", bad="evil"),
    "hide a Host behind a bare line feed": _asks(_GET + "X: y\nHost: evil.example\r\n\r\n", bad="evil"),
    "hide a Host behind a bare return": _asks(_GET + "X: y\rHost: evil.example\r\n\r\n", bad="evil"),
    "hide a Host behind a space": _asks(_GET + "Host : evil.example\r\n\r\n", bad="evil"),
    "hide a Host in a folded line": _asks(_GET + "X: y\r\n Host: evil.example\r\n\r\n", bad="evil"),
    "send a second request": _asks(f"{_GET}\r\n{_SECOND}", bad="second"),
    "send a second request as a body of two lengths": _asks(
        f"{_POST}Content-Length: 0\r\nContent-Length: {len(_SECOND)}\r\n\r\n{_SECOND}", bad="second"
    ),
    "send a second request behind a body in chunks": _asks(
        f"{_POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{_SECOND}", bad="second"
    ),
    "send a second request behind the last chunk": _asks(
        f"{_POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{_SECOND}", bad="second"
    ),
    "send a head without end": _asks(_GET + "X: " + "y" * 90_000, bad="GET"),
    "hold up the proxy with slow heads": _slow,
    "open too many connections": _crowd,
    "reach the proxy as another user": _stranger,
    "keep a tunnel beyond the exec": _outlives,
}


async def attempts_at_the_way_out(name: str) -> dict[str, Outcome]:
    """All of them under a confinement; where it has no way out the refusal stops them."""
    found = {}
    with cell(name) as at:
        try:
            async with _served() as server:
                await _honest(Out(at, server))
        except SandboxRefused as refused:
            return dict.fromkeys(ATTEMPTS, Outcome("stopped", str(refused)))
        for attempt, act in ATTEMPTS.items():
            async with _served() as server:
                found[attempt] = await act(Out(at, server))
    return found
