"""What the proxy takes for a request, and what it makes of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.sandbox.egress.heads import CHUNKED, Refused, chunk_length, parse_head, passed_on, place_of, target_of

pytestmark = [pytest.mark.promise("E4")]

GET = b"GET http://example.org:8080/a?b=c HTTP/1.1\r\n"
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def test_a_request_is_passed_on_for_its_host_only() -> None:
    more = b"Host: evil\r\nproxy-authorization: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nAccept: */*\r\n\r\n"
    head = parse_head(GET + more)
    target = target_of(head)
    assert (target.host, target.port, target.path, head.length) == ("example.org", 8080, "/a?b=c", 0)
    sent = passed_on(head, target)
    assert sent == b"GET /a?b=c HTTP/1.1\r\nhost: example.org:8080\r\naccept: */*\r\nconnection: close\r\n\r\n"


@given(st.lists(st.tuples(st.sampled_from(["Host", "host ", " Host", "X", "X\n", "Host\r"]), VALUES), max_size=4))
def test_no_other_host_is_ever_passed_on(fields: list[tuple[str, str]]) -> None:
    data = GET + "".join(f"{name}:{value}\r\n" for name, value in fields).encode() + b"\r\n"
    try:
        head = parse_head(data)
    except Refused as refused:
        assert refused.status == "400 Bad Request"
        return
    sent = passed_on(head, target_of(head)).lower()
    assert sent.count(b"host:") - sent.count(b"x:host:") <= 1 + sum(b"host:" in v.lower().encode() for _, v in fields)
    assert b"\n" not in sent.replace(b"\r\n", b"") and b"\r" not in sent.replace(b"\r\n", b"")
    assert [line for line in sent.split(b"\r\n") if line.startswith(b"host")] == [b"host: example.org:8080"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        head = parse_head(data + b"\r\n\r\n")
        target_of(head)
    except Refused as refused:
        assert refused.status[:3] in ("400", "505") and str(refused)


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"Content-Length: 5\r\n", 5),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", 5),
        (b"Transfer-Encoding: Chunked\r\n", CHUNKED),
    ],
)
def test_the_end_of_a_body_is_known(fields: bytes, length: int) -> None:
    assert parse_head(GET + fields + b"\r\n").length == length


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: \r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: a\x00b\r\n",
        b"X\r\n",
        b" X: folded\r\n",
        b"\xc2\xa0: x\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(fields: bytes) -> None:
    with pytest.raises(Refused):
        parse_head(GET + fields + b"\r\n")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"GET http://example.org/ HTTP/2.0", "505"),
        (b"GET  http://example.org/ HTTP/1.1", "400"),
        (b"GET\thttp://example.org/ HTTP/1.1", "400"),
        (b"GET http://example.org/ HTTP/1.1 ", "400"),
        (b"GET http://example.org/\n HTTP/1.1", "400"),
        (b"G@T http://example.org/ HTTP/1.1", "400"),
        (b"GET / HTTP/1.1", "400"),
        (b"GET https://example.org/ HTTP/1.1", "400"),
        (b"GET http://[::1/ HTTP/1.1", "400"),
        (b"GET http://example.org:99999/ HTTP/1.1", "400"),
        (b"GET http://a@example.org/ HTTP/1.1", "400"),
        (b"\x16\x03\x01\x02\x00", "400"),
    ],
)
def test_a_first_line_that_is_none_is_refused(first: bytes, status: str) -> None:
    with pytest.raises(Refused) as refused:
        target_of(parse_head(first + b"\r\n\r\n"))
    assert refused.value.status.startswith(status)


def test_a_tunnel_needs_a_port() -> None:
    assert place_of("[::1]:443", None) == ("::1", 443)
    with pytest.raises(Refused, match="names no port"):
        place_of("example.org", None)


@pytest.mark.parametrize(("line", "length"), [(b"1f\r\n", 31), (b"0;x=y\r\n", 0)])
def test_a_chunk_says_its_length(line: bytes, length: int) -> None:
    assert chunk_length(line) == length


@pytest.mark.parametrize("line", [b"", b"\r\n", b"0x1\r\n", b"-1\r\n", b"1 \r\n", b"1\n", b"f" * 16 + b"\r\n"])
def test_one_that_does_not_is_refused(line: bytes) -> None:
    with pytest.raises(Refused):
        chunk_length(line)
