"""Attempts on what connects processes: loopback, sockets of all kinds, queues and shared memory. See `trying`."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Outside = dict[str, Any]

_VSOCK, _ALG = 40, 38


def _loopback(outside: Outside) -> str:
    with socket.create_connection(("127.0.0.1", outside["port"]), timeout=1):
        return "it was reached"


def _loopback_six(outside: Outside) -> str:
    with socket.create_connection(("::ffff:127.0.0.1", outside["port"]), timeout=1):
        return "it was reached"


def _unix(outside: Outside) -> str:
    return _reach(outside["socket"])


def _abstract(outside: Outside) -> str:
    return _reach("\0" + outside["abstract"])


def _reach(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as asks:
        asks.settimeout(1)
        asks.connect(address)
        return "it was reached"


def _datagram(outside: Outside) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sends:
        sends.sendto(b"from inside", ("127.0.0.1", outside["datagrams"]))
    return ""


def _abroad(outside: Outside) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sends:
        sends.sendto(b"from inside", ("192.0.2.1", 9))
    return "a datagram was sent"


def _fast_open(outside: Outside) -> str:
    """Data with the first packet: a connection without the call connect."""
    with socket.socket(socket.AF_INET) as sends:
        sends.sendto(b"from inside", socket.MSG_FASTOPEN, ("127.0.0.1", outside["port"]))
        return "it was reached"


def _bind(outside: Outside) -> str:
    """A listener where programs of the host would meet it."""
    with socket.create_server(("127.0.0.1", outside["free"])):
        return f"port {outside['free']} is taken" if outside["netns"] == os.readlink("/proc/self/ns/net") else ""


def _makes(family: int, kind: int, protocol: int = 0) -> Callable[[Outside], str]:
    def attempt(outside: Outside) -> str:
        socket.socket(family, kind, protocol).close()
        return "the socket was made"

    return attempt


def _interfaces(outside: Outside) -> str:
    return " ".join(name for _, name in socket.if_nameindex() if name != "lo")


def _shared_memory(outside: Outside) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(outside["key"], 0, 0)
    libc.shmat.restype = ctypes.c_void_p
    at = libc.shmat(segment, None, 0o10000) if segment >= 0 else None
    if at is None or at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ctypes.string_at(at).decode()


def _queue(outside: Outside) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mq_open(outside["queue"].encode(), os.O_RDONLY | os.O_NONBLOCK) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "the queue was opened"


def _shm_file(outside: Outside) -> str:
    return Path(outside["shm"]).read_text()


ATTEMPTS: dict[str, Callable[[Outside], str]] = {
    "connect to the host's loopback": _loopback,
    "connect to it as an address of IPv6": _loopback_six,
    "connect by TCP fast open": _fast_open,
    "send a datagram to the host's loopback": _datagram,
    "send a datagram abroad": _abroad,
    "listen on the host's loopback": _bind,
    "connect to a unix socket": _unix,
    "connect to an abstract socket": _abstract,
    "see the host's interfaces": _interfaces,
    "make a raw socket": _makes(socket.AF_INET, socket.SOCK_RAW, 1),
    "make a packet socket": _makes(17, socket.SOCK_RAW, 0x0300),
    "make a netlink socket for filters": _makes(16, socket.SOCK_RAW, 12),
    "make a vsock": _makes(_VSOCK, socket.SOCK_STREAM),
    "make a socket for ciphers": _makes(_ALG, socket.SOCK_SEQPACKET),
    "read shared memory (System V)": _shared_memory,
    "open a message queue": _queue,
    "read shared memory (/dev/shm)": _shm_file,
}
