"""The wire over streamable HTTP: where it listens, who may speak, and under which names it may be called.

Loopback only, unless a token is asked for. Host and Origin are looked at in any case: a page in a browser must not
reach a server of this machine by another name. Knows no message.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from retinue.runs.errors import InvalidInput

PATH = "/mcp"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FAREWELL = 5.0
_MOST_AT_ONCE = 512
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen, the token that is asked for, and further names that clients call the server by."""

    host: str
    port: int
    token: str | None = None
    names: tuple[str, ...] = ()

    @property
    def written(self) -> str:
        """The host as it stands in an address."""
        return f"[{self.host}]" if ":" in self.host else self.host


def read_place(text: str, token: str | None, names: tuple[str, ...]) -> Place:
    """HOST:PORT. InvalidInput for what is none, and for an open place without a token."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInput(
            f"--http {text!r} is no HOST:PORT: write 127.0.0.1:8931, or [::1]:8931; port 0 is a free one"
        )
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise InvalidInput(f"--token-from: the token is shorter than {_SHORTEST_TOKEN} characters: use a random one")
    if token is None and not _is_loopback(host):
        raise InvalidInput(
            f"--http {text}: other machines could reach it, and it asks for no token: listen on 127.0.0.1, or name the "
            "environment variable that holds a token with --token-from"
        )
    if not names and _is_any(host):
        raise InvalidInput(
            f"--http {text} is every address of this machine: say what clients call it with --allow-host"
        )
    return Place(host, int(port), token, names)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def make_app(server: Server[Any], place: Place) -> ASGIApp:
    """The application: no session is kept, so any replica answers any request and none is lost with a process."""
    hosts = dict.fromkeys([*(_LOOPBACK if _is_loopback(place.host) else ()), place.written, *place.names])
    security = TransportSecuritySettings(
        allowed_hosts=[said for host in hosts for said in (host, f"{host}:*")],
        allowed_origins=[said for host in hosts for said in (f"http://{host}", f"http://{host}:*", f"https://{host}")],
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH, stateless_http=True, transport_security=security, host=place.host
    )
    return app if place.token is None else _Guard(app, place.token)


class _Guard:
    """Lets through what bears the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not self._bears(scope):
            said = JSONResponse({"error": "unauthorized"}, 401, {"WWW-Authenticate": 'Bearer realm="retinue"'})
            await said(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _bears(self, scope: Scope) -> bool:
        """Whether the one Authorization header holds the token, compared in constant time."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        word, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return hmac.compare_digest(token.strip(), self._token) and word.lower() == b"bearer"


async def serve_http(server: Server[Any], place: Place, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; `ready` is told the address. InvalidInput when the place cannot be had."""
    listener = _listen(place)
    config = uvicorn.Config(
        make_app(server, place),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        limit_concurrency=_MOST_AT_ONCE,
        timeout_graceful_shutdown=1,
    )
    web = _Server(config)
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    ready(f"http://{place.written}:{listener.getsockname()[1]}{PATH}")
    try:
        await asyncio.shield(serving)
    finally:
        web.should_exit = True
        await asyncio.wait({serving}, timeout=_FAREWELL)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _listen(place: Place) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InvalidInput(
            f"--http {place.written}:{place.port} cannot be listened on: {_why(error)}; name another"
        ) from None


def _why(error: OSError) -> str:
    """What the system said, without the address that we say ourselves."""
    return (error.strerror or str(error)).partition(" (while ")[0]


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
