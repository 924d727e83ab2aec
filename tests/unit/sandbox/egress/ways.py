"""Servers to reach and a proxy before them, for the tests of this folder."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from retinue.sandbox.egress.proxy import way_out
from retinue.sandbox.profiles import BUILD

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n"


def yes(host: str, port: int) -> bool:
    """A gate that allows all."""
    return True


@dataclass
class Heard:
    """A server's port, and what came to it: heads, bodies as they were sent."""

    port: int = 0
    got: list[bytes] = field(default_factory=list)
    open: int = 0
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def server(answer: bytes = HELLO, folder: Path | None = None, body: bytes = b"") -> AsyncIterator[Heard]:
    """Answers a head and this `body`, then says no more; with a `folder` by TLS. Nothing to answer: it waits."""
    heard = Heard()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.open += 1
        heard.seen.set()
        try:
            heard.got.append(await reader.readuntil(b"\r\n\r\n"))
            heard.got.append(await reader.readexactly(len(body)))
            if answer:
                writer.write(answer)
                await writer.drain()
            if answer and writer.can_write_eof():
                writer.write_eof()
            elif answer:
                return
            while more := await reader.read(65_536):
                heard.got.append(more)
        except (OSError, asyncio.IncompleteReadError) as error:
            heard.got.append(str(error).encode())
        finally:
            heard.open -= 1
            heard.over.set()
            writer.close()

    context = None if folder is None else _certified(folder)
    made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    heard.port = made.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        made.close()


def _certified(folder: Path) -> ssl.SSLContext:
    """A context for 127.0.0.1; its certificate is in `certificate.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def way(*hosts: str, allow: Callable[[str, int], bool] = yes) -> AsyncIterator[Path]:
    """The socket of a proxy that lists hosts."""
    async with way_out(BUILD.model_copy(update={"hosts": hosts}), allow, None) as path:
        assert path is not None
        yield path


async def asked(path: Path, request: bytes) -> bytes:
    """What the proxy answers, to the end."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def leading(*answers: list[str]) -> Callable[..., object]:
    """A resolver that gives one list of addresses after the other, and the last one from then on."""
    left = list(answers)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = left.pop(0) if len(left) > 1 else left[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return getaddrinfo
