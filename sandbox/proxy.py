"""The way out of a sandbox that lists hosts: a proxy for HTTP on a socket of the file system, asked for each host.

Owns what it lets through: a host that the profile lists, that the gate has allowed, at an address that was looked up
here and is the one that is connected to. Everything else is answered with 403 and the reason. What goes through a
tunnel it does not see. Knows no namespace: a forwarder inside leads here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from retinue.sandbox.folders import remove_tree
from retinue.sandbox.hosts import Listed, may_lead_to, parse_listed, plain_name, split_port
from retinue.sandbox.profiles import Profile

MOST_AT_ONCE = 64
LARGEST_HEAD = 64 * 1024
"""Bytes of a request's head."""
HEAD_SECONDS, CONNECT_SECONDS, IDLE_SECONDS = 15.0, 20.0, 300.0
_CHUNK = 64 * 1024
_CREDENTIALS = struct.Struct("3i")
_HOP = frozenset({b"proxy-connection", b"proxy-authorization", b"connection", b"keep-alive", b"te", b"upgrade"})

Allow = Callable[[str, int], bool]
"""Asks the gate whether a listed host (its name, a port) may be reached now."""


class Refused(Exception):
    """A request that is not passed on: the status of HTTP and the reason, for the program that made it."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@asynccontextmanager
async def way_out(profile: Profile, allow: Allow, uid: int | None) -> AsyncIterator[Path | None]:
    """The socket of a proxy while one exec runs, for nobody but user `uid` (None: ourselves); None without a list."""
    if profile.network != "listed":
        yield None
        return
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="retinue-"))
    path = folder / "proxy"
    proxy = Proxy(tuple(parse_listed(host) for host in profile.hosts), allow, os.geteuid() if uid is None else uid)
    try:
        server = await asyncio.start_unix_server(proxy.serve, path, limit=LARGEST_HEAD)
        await asyncio.to_thread(_give, folder, path, uid)
        try:
            yield path
        finally:
            server.close()
            await proxy.end()
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, folder))


def _give(folder: Path, path: Path, uid: int | None) -> None:
    path.chmod(0o600)
    if uid is not None:
        os.chown(path, uid, uid)
        os.chown(folder, uid, uid)


class Proxy:
    """Serves the connections of one exec."""

    def __init__(self, listed: tuple[Listed, ...], allow: Allow, uid: int) -> None:
        self._listed = listed
        self._allow = allow
        self._uid = uid
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a program, to its end."""
        task = asyncio.current_task()
        if task is None or len(self._open) >= MOST_AT_ONCE or not self._is_ours(writer):
            writer.close()
            return
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except Refused as refused:
            with suppress(OSError):
                writer.write(_reply(refused))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()

    async def end(self) -> None:
        """The exec is over: end what is still open."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the user of the exec is at the other end, as the kernel says."""
        peer: socket.socket = writer.get_extra_info("socket")
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return True
        _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
        return bool(uid == self._uid)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        method, target, version = _request_line(head)
        if method == "CONNECT":
            host, port = _place(target, None)
            out_reader, out_writer = await self._connect(host, port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            parts = urlsplit(target)
            if parts.scheme != "http" or not parts.netloc:
                raise Refused("400 Bad Request", f"{target[:200]!r} is no http:// address; https goes by CONNECT")
            host, port = _place(parts.netloc, 80)
            out_reader, out_writer = await self._connect(host, port)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            out_writer.write(_passed_on(head, method, path, version, parts.netloc))
        try:
            await _relay((reader, writer), (out_reader, out_writer))
        finally:
            out_writer.close()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a host that is listed, allowed, and where it should be."""
        if not any(listed.covers(host, port) for listed in self._listed):
            raise Refused("403 Forbidden", f"{host}:{port} is not among the hosts of this sandbox's profile")
        if not self._allow(host, port):
            raise Refused("403 Forbidden", f"the policy does not allow this run to reach {host}:{port}")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._reach(host, port)
        except TimeoutError:
            raise Refused("504 Gateway Timeout", f"{host}:{port} did not answer in {CONNECT_SECONDS:g} s") from None
        except OSError as error:
            raise Refused("502 Bad Gateway", f"{host}:{port} cannot be reached: {error.strerror or error}") from None

    async def _reach(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        good = [address for address in addresses if may_lead_to(host, address)]
        if not good:
            raise Refused("403 Forbidden", f"{host} leads to {', '.join(addresses)}, which is no public address")
        failure: OSError | None = None
        for address in good:
            try:
                return await asyncio.open_connection(address, port, limit=LARGEST_HEAD)
            except OSError as error:
                failure = error
        raise failure or OSError("nothing answers")


def _request_line(head: bytes) -> tuple[str, str, str]:
    try:
        method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    except (UnicodeDecodeError, ValueError):
        raise Refused("400 Bad Request", "this is no request of HTTP/1.1") from None
    if not version.startswith("HTTP/1."):
        raise Refused("505 HTTP Version Not Supported", f"{version[:20]}: the proxy speaks HTTP/1.1")
    return method, target, version


def _place(text: str, port: int | None) -> tuple[str, int]:
    try:
        name, own = split_port(text)
        host, wanted = plain_name(name), own or port
    except ValueError as error:
        raise Refused("400 Bad Request", str(error)) from None
    if wanted is None:
        raise Refused("400 Bad Request", f"{text[:200]!r} names no port")
    return host, wanted


def _passed_on(head: bytes, method: str, path: str, version: str, host: str) -> bytes:
    """A request as its server gets it: for this host, of this connection only."""
    lines = head.split(b"\r\n")[1:-2]
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in _HOP | {b"host"}]
    first = f"{method} {path} {version}\r\nHost: {host}\r\n".encode("latin-1")
    return first + b"".join(line + b"\r\n" for line in kept) + b"Connection: close\r\n\r\n"


def _reply(refused: Refused) -> bytes:
    body = f"{refused}\n".encode()
    head = f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _relay(one: Streams, other: Streams) -> None:
    """Both ways until both have ended, or nothing has come for long."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_pass(one[0], other[1]))
        group.create_task(_pass(other[0], one[1]))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                part = await reader.read(_CHUNK)
            if not part:
                break
            writer.write(part)
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()
    with suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
