"""The way out of a sandbox that lists hosts: a proxy for HTTP on a socket of the file system, asked for each host.

Owns what it lets through: a host that the profile lists, that the gate has allowed, at an address that was looked up
here and is the one that is connected to. Everything else is answered with 403 and the reason. A plain request is passed
on as one request for its host, and nothing after it; what goes through a tunnel it does not see. Knows no namespace: a
forwarder inside leads here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from retinue.sandbox.egress.heads import CHUNKED, Refused, chunk_length, parse_head, passed_on, place_of, target_of
from retinue.sandbox.egress.hosts import Listed, may_lead_to, parse_listed
from retinue.sandbox.profiles import Profile
from retinue.sandbox.scratch import take

MOST_AT_ONCE = 64
LARGEST_HEAD = 64 * 1024
"""Bytes of a request's head."""
HEAD_SECONDS, CONNECT_SECONDS, IDLE_SECONDS = 15.0, 20.0, 300.0
_CHUNK = 64 * 1024
_CREDENTIALS = struct.Struct("3i")

Allow = Callable[[str, int], bool]
"""Asks the gate whether a listed host (its name, a port) may be reached now."""


@asynccontextmanager
async def way_out(profile: Profile, allow: Allow, uid: int | None) -> AsyncIterator[Path | None]:
    """The socket of a proxy while one exec runs, for nobody but user `uid` (None: ourselves); None without a list."""
    if profile.network != "listed":
        yield None
        return
    scratch = take()
    path = scratch.folder / "proxy"
    proxy = Proxy(tuple(parse_listed(host) for host in profile.hosts), allow, os.geteuid() if uid is None else uid)
    try:
        server = await asyncio.start_unix_server(proxy.serve, path, limit=LARGEST_HEAD)
        try:
            await asyncio.to_thread(_give, scratch.folder, path, uid)
            yield path
        finally:
            server.close()
            await proxy.end()
    finally:
        await asyncio.shield(asyncio.to_thread(scratch.remove))


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
        self._over = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a program, to its end."""
        task = asyncio.current_task()
        if task is None or self._over or len(self._open) >= MOST_AT_ONCE or not self._is_ours(writer):
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except Refused as refused:
            with suppress(OSError):
                writer.write(_reply(refused))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            if not self._over:
                raise
        finally:
            self._open.discard(task)
            writer.close()

    async def end(self) -> None:
        """The exec is over: end what is still open, and what comes yet."""
        self._over = True
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
        head = parse_head(await _head_of(reader))
        program = reader, writer
        if head.method == "CONNECT":
            server = await self._connect(*place_of(head.target, None))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            passing = _relay(program, server)
        else:
            target = target_of(head)
            server = await self._connect(target.host, target.port)
            server[1].write(passed_on(head, target))
            passing = _exchange(program, server, head.length)
        try:
            await passing
        finally:
            server[1].close()

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


async def _head_of(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        why = f"the head of the request has more than {LARGEST_HEAD:,} bytes"
        raise Refused("431 Request Header Fields Too Large", why) from None
    except TimeoutError:
        raise Refused("408 Request Timeout", f"no whole request came in {HEAD_SECONDS:g} s") from None


def _reply(refused: Refused) -> bytes:
    body = f"{refused}\n".encode()
    head = f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _exchange(program: Streams, server: Streams, length: int) -> None:
    """One request with its body there, the answer back. ConnectionAbortedError when the program sends more than that:
    a server would take it for another request, whose host nobody has looked at.
    """
    back = asyncio.create_task(_pass(server[0], program[1]))
    there = asyncio.create_task(_only_body(program[0], server[1], length))
    try:
        await asyncio.wait({back, there}, return_when=asyncio.FIRST_COMPLETED)
        if not back.done():
            there.result()
            await back
    finally:
        for task in (back, there):
            task.cancel()
        await asyncio.gather(back, there, return_exceptions=True)


async def _only_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    try:
        if length == CHUNKED:
            await _pass_chunks(reader, writer)
        else:
            await _pass_bytes(reader, writer, length)
    except (Refused, ValueError, asyncio.IncompleteReadError) as error:
        raise ConnectionAbortedError(f"the body of a request does not end as it should: {error}") from None
    while more := await reader.read(_CHUNK):
        if more.strip(b"\r\n"):
            raise ConnectionAbortedError("a program sends more than one request")


async def _pass_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chunks to the last one, and the fields that may come after it; ValueError for a line that is too long."""
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            line = await reader.readline()
        length = chunk_length(line)
        writer.write(line)
        if not length:
            break
        await _pass_bytes(reader, writer, length)
        async with asyncio.timeout(IDLE_SECONDS):
            end = await reader.readexactly(2)
        if end != b"\r\n":
            raise ValueError("a chunk is longer than announced")
        writer.write(end)
    async with asyncio.timeout(IDLE_SECONDS):
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("fields after the last chunk are not passed on")
    writer.write(b"\r\n")


async def _pass_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    while length:
        async with asyncio.timeout(IDLE_SECONDS):
            part = await reader.read(min(length, _CHUNK))
            if not part:
                raise asyncio.IncompleteReadError(part, length)
            writer.write(part)
            await writer.drain()
        length -= len(part)


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
