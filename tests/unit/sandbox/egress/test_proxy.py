"""The proxy with real sockets: what it lets through, what it refuses and why, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sandbox.egress.ways import HELLO, asked, leading, server, way, yes

from retinue.sandbox.egress import proxy
from retinue.sandbox.egress.proxy import way_out
from retinue.sandbox.profiles import STRICT

pytestmark = [pytest.mark.promise("E4")]


def get(place: str) -> bytes:
    return f"GET http://{place}/ HTTP/1.1\r\n\r\n".encode()


def post(place: str, fields: str, body: str) -> bytes:
    return f"POST http://{place}/ HTTP/1.1\r\n{fields}\r\n{body}".encode()


async def test_a_listed_host_that_is_allowed_is_reached() -> None:
    said: list[tuple[str, int]] = []
    async with server() as heard:
        async with way(heard.place, allow=lambda host, port: not said.append((host, port))) as path:
            assert await asked(path, get(heard.place)) == HELLO
        assert said == [("127.0.0.1", heard.port)]
        head = f"GET / HTTP/1.1\r\nhost: {heard.place}\r\nconnection: close\r\n\r\n"
        assert b"".join(heard.got) == head.encode()


async def test_the_gate_is_asked_for_listed_hosts_only_and_its_no_holds() -> None:
    said: list[str] = []
    async with server() as heard:
        async with way("example.org", allow=lambda host, port: bool(said.append(host))) as path:
            for request in (get(heard.place), f"CONNECT {heard.place} HTTP/1.1\r\n\r\n".encode()):
                answer = await asked(path, request)
                assert answer.startswith(b"HTTP/1.1 403 ") and b"is not among the hosts" in answer
            assert said == []
            answer = await asked(path, get("example.org"))
            assert b"403" in answer and b"the policy does not allow this run to reach example.org:80" in answer
        assert said == ["example.org"] and heard.got == []


async def test_a_name_is_looked_up_once_and_connected_to_where_that_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer, which leads to this machine, is never asked for (DNS rebinding)."""
    async with server() as heard:
        resolve = leading(["192.0.2.1"], ["127.0.0.1"])
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        monkeypatch.setattr(proxy, "may_lead_to", lambda host, address: address == "192.0.2.1")
        monkeypatch.setattr(proxy, "CONNECT_SECONDS", 0.3)
        async with way(f"example.org:{heard.port}") as path:
            answer = await asked(path, get(f"example.org:{heard.port}"))
            assert b"504" in answer or b"502" in answer
            assert b"leads to 127.0.0.1" in await asked(path, get(f"example.org:{heard.port}"))
        assert heard.got == []


async def test_of_many_addresses_only_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def connect(host: str, port: int, **_: object) -> None:
        tried.append(host)
        raise ConnectionRefusedError(111, "Connection refused")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", leading(["127.0.0.1", "93.184.215.14", "10.0.0.1", "93.184.215.15"]))
    monkeypatch.setattr(proxy.asyncio, "open_connection", connect)
    async with way("example.org") as path:
        assert b"502 Bad Gateway" in await asked(path, get("example.org"))
    assert tried == ["93.184.215.14", "93.184.215.15"]


async def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", leading([]))
    async with way("example.org") as path:
        assert b"502 Bad Gateway" in await asked(path, get("example.org"))


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ("Content-Length: 4\r\n", "body"),
        ("Transfer-Encoding: chunked\r\n", "2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_is_passed_on_whole(fields: str, body: str) -> None:
    async with server(body=body.encode()) as heard:
        async with way(heard.place) as path:
            assert await asked(path, post(heard.place, fields, body)) == HELLO
        assert b"".join(heard.got).partition(b"\r\n\r\n")[2] == body.encode()


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ("", "GET /second HTTP/1.1\r\n\r\n"),
        ("Content-Length: 4\r\n", "bodyGET /second HTTP/1.1\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\nGET /second HTTP/1.1\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nX: y\r\n\r\nGET /second HTTP/1.1\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\r\nxxGET /second HTTP/1.1\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "GET /second HTTP/1.1\r\n\r\n"),
    ],
)
async def test_nothing_is_passed_on_after_a_request(fields: str, body: str) -> None:
    async with server(b"") as heard:
        async with way(heard.place) as path:
            await asked(path, post(heard.place, fields, body))
        assert b"second" not in b"".join(heard.got)


async def test_a_tunnel_passes_both_ways_and_ends_on_both_sides() -> None:
    async with server(b"answer") as heard:
        async with way(heard.place) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(f"CONNECT {heard.place} HTTP/1.1\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
            writer.write(b"hello\r\n\r\nmore")
            assert await reader.readexactly(6) == b"answer"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert b"".join(heard.got) == b"hello\r\n\r\nmore" and not heard.open


async def test_a_head_that_is_too_large_or_too_slow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "HEAD_SECONDS", 0.1)
    async with way("example.org") as path:
        assert b"431 Request" in await asked(path, b"GET http://example.org/ HTTP/1.1\r\nX: " + b"y" * 70_000)
        assert b"408 Request Timeout" in await asked(path, b"GET http://exam")


async def test_a_connection_on_which_nothing_comes_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "IDLE_SECONDS", 0.1)
    async with server(b"") as heard, way(heard.place) as path:
        answer = await asked(path, f"CONNECT {heard.place} HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200")


async def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MOST_AT_ONCE", 2)
    async with server(b"") as heard, way(heard.place) as path:
        tunnel = f"CONNECT {heard.place} HTTP/1.1\r\n\r\n".encode()
        held = [await asyncio.open_unix_connection(path) for _ in range(2)]
        for reader, writer in held:
            writer.write(tunnel)
            await reader.readuntil(b"\r\n\r\n")
        assert await asked(path, tunnel) == b""
        held[0][1].close()
        await asyncio.wait_for(heard.over.wait(), 10)
        for _ in range(100):
            if answer := await asked_for_start(path, tunnel):
                break
        assert answer.startswith(b"HTTP/1.1 200")
        held[1][1].close()


async def asked_for_start(path: Path, request: bytes) -> bytes:
    """The first of an answer; nothing where the connection is refused."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(100), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _open_files() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)}


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


@pytest.mark.parametrize("canceled", [False, True])
async def test_nothing_of_it_stays(canceled: bool) -> None:
    """Tunnels that stand, a head that has begun, a body that waits: all of it ends with the exec, however it ends."""
    before, tasks = _open_files(), asyncio.all_tasks()
    async with server(b"") as heard:
        ready = asyncio.Event()
        folders: list[Path] = []

        async def one_exec() -> None:
            async with way(heard.place) as path:
                folders.append(path.parent)
                for request in (
                    f"CONNECT {heard.place} HTTP/1.1\r\n\r\n",
                    post(heard.place, "Content-Length: 9\r\n", "x").decode(),
                    "GET http",
                ):
                    _, writer = await asyncio.open_unix_connection(path)
                    writer.write(request.encode())
                    writers.append(writer)
                await heard.seen.wait()
                ready.set()
                if canceled:
                    await asyncio.Event().wait()

        writers: list[asyncio.StreamWriter] = []
        running = asyncio.create_task(one_exec())
        await asyncio.wait_for(ready.wait(), 20)
        if canceled:
            running.cancel()
        await asyncio.wait({running}, timeout=20)
        assert running.done() and running.cancelled() == canceled
        assert not folders[0].exists()
        for writer in writers:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(_closed(writer))], timeout=5)
    for _ in range(200):
        if asyncio.all_tasks() == tasks and _open_files() <= before:
            break
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == tasks
    assert _open_files() <= before


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.wait_closed()
    except OSError:
        return


async def test_a_profile_without_a_list_has_no_way_out() -> None:
    async with way_out(STRICT, yes, None) as path:
        assert path is None


async def test_the_socket_is_its_users_alone() -> None:
    async with way("example.org") as path:
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert path.stat().st_uid == os.geteuid()


async def test_one_that_cannot_be_given_to_its_user_listens_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[asyncio.AbstractServer] = []
    start = asyncio.start_unix_server

    async def noted(*arguments: Any, **options: Any) -> asyncio.AbstractServer:
        servers.append(await start(*arguments, **options))
        return servers[-1]

    def refused(*arguments: Any) -> None:
        raise OSError("nobody has this number")

    monkeypatch.setattr(asyncio, "start_unix_server", noted)
    monkeypatch.setattr(proxy, "_give", refused)
    with pytest.raises(OSError, match="this number"):
        async with way("example.org"):
            pass
    assert [server.is_serving() for server in servers] == [False]
