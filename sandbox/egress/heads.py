"""The head of one request, as the proxy takes it and passes it on. Pure.

Owns what is a request: only a head that every server reads alike, so that nobody behind the proxy sees another host or
a second request in it. What servers are known to read in different ways is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from retinue.sandbox.egress.hosts import plain_name, split_port

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIRST = re.compile(rf"({_TOKEN}) ([!-~]+) (HTTP/1\.[01])")
_FIELD = re.compile(rf"({_TOKEN}):([\t -~\x80-\xff]*)")
_OTHER_VERSION = re.compile(r"\S+ \S+ (HTTP/(?!1\.[01]$)\S{1,20})")
_HOP = frozenset("host proxy-connection proxy-authorization connection keep-alive te upgrade".split())
_MOST_DIGITS = 18

CHUNKED = -1
"""The length of a body that comes in chunks."""


class Refused(Exception):
    """A request that is not passed on: the status of HTTP and the reason, for the program that made it."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request up to its body; `length` is that of the body in bytes, or CHUNKED."""

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    length: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a plain request goes: host and port, and how it says so in its first line and its field Host."""

    host: str
    port: int
    path: str
    shown: str


def parse_head(data: bytes) -> Head:
    """A head that ends in an empty line. Refused for all that is not plainly one request of HTTP/1.1."""
    first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _FIRST.fullmatch(first)
    if found is None:
        if other := _OTHER_VERSION.fullmatch(first):
            raise Refused("505 HTTP Version Not Supported", f"{other[1]}: the proxy speaks HTTP/1.1")
        raise _bad("this is no request of HTTP/1.1")
    fields = tuple(_field(line) for line in lines)
    return Head(found[1], found[2], found[3], fields, _length(fields, found[3]))


def place_of(text: str, port: int | None) -> tuple[str, int]:
    """Host and port of `name:port`; without one the `port` given. Refused."""
    try:
        name, own = split_port(text)
        host, wanted = plain_name(name), own or port
    except ValueError as error:
        raise _bad(str(error)) from None
    if wanted is None:
        raise _bad(f"{text[:200]!r} names no port")
    return host, wanted


def target_of(head: Head) -> Target:
    """Where a request that is no CONNECT goes. Refused for all but http:// addresses."""
    try:
        parts = urlsplit(head.target)
    except ValueError:
        raise _bad(f"{head.target[:200]!r} is no address") from None
    if parts.scheme != "http" or not parts.netloc:
        raise _bad(f"{head.target[:200]!r} is no http:// address; https goes by CONNECT")
    host, port = place_of(parts.netloc, 80)
    return Target(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), parts.netloc)


def passed_on(head: Head, target: Target) -> bytes:
    """A request as its server gets it: for this host, of this connection only."""
    named = {word.strip().lower() for name, value in head.fields if name == "connection" for word in value.split(",")}
    kept = [f"{name}:{value}" for name, value in head.fields if name not in _HOP | named]
    first = f"{head.method} {target.path} {head.version}"
    return "\r\n".join([first, f"host: {target.shown}", *kept, "connection: close", "\r\n"]).encode("latin-1")


def chunk_length(line: bytes) -> int:
    """Bytes of the chunk that a line announces. Refused."""
    digits = line.removesuffix(b"\r\n").partition(b";")[0]
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits) or not line.endswith(b"\r\n"):
        raise _bad("the body comes in chunks, and one of them has no length")
    return int(digits, 16)


def _bad(why: str) -> Refused:
    return Refused("400 Bad Request", why)


def _field(line: str) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise _bad(f"{line[:80]!r} is no field of a head")
    return found[1].lower(), found[2]


def _length(fields: tuple[tuple[str, str], ...], version: str) -> int:
    """Two ways to say where the body ends, or two answers, are how a second request is hidden in it."""
    coded = [value.strip().lower() for name, value in fields if name == "transfer-encoding"]
    lengths = {value.strip() for name, value in fields if name == "content-length"}
    if coded and (coded != ["chunked"] or lengths or version == "HTTP/1.0"):
        raise _bad("the body is announced in more than one way: give `transfer-encoding: chunked`, or a length")
    if coded:
        return CHUNKED
    if not lengths:
        return 0
    said = lengths.pop()
    if lengths or not (said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS):
        raise _bad("the length of the body is no number, or more than one")
    return int(said)
