"""Attempts to get out of a sandbox, made from inside: the program of the self-test, run by a bare interpreter.

Imports the standard library only. Its one argument is JSON: what stands outside to be reached. It prints JSON: for each
attempt an empty text when it was stopped, or what it got. Whoever runs it judges.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Outside = dict[str, Any]

_PR_GET_NO_NEW_PRIVS = 39
_CLONE_NEWUSER = 0x10000000
_PTRACE_ATTACH = 16
_CALLS = {
    "x86_64": {"add_key": 248, "unshare": 272, "ptrace": 101, "perf_event_open": 298, "userfaultfd": 323, "bpf": 321},
    "aarch64": {"add_key": 217, "unshare": 97, "ptrace": 117, "perf_event_open": 241, "userfaultfd": 282, "bpf": 280},
}
_IO_URING_SETUP = 425
_OPEN_TREE = 428


def main(outside: Outside) -> dict[str, str]:
    """Every attempt by name, with what came of it."""
    return {name: _tried(attempt, outside) for name, attempt in ATTEMPTS.items()}


def _tried(attempt: Callable[[Outside], str], outside: Outside) -> str:
    try:
        return attempt(outside)
    except (OSError, ValueError, AttributeError, KeyError):  # also what this system or machine has no name for
        return ""


def _read_secret(outside: Outside) -> str:
    return Path(outside["secret"]).read_text()


def _list_outside(outside: Outside) -> str:
    return " ".join(os.listdir(Path(outside["secret"]).parent))


def _write_outside(outside: Outside) -> str:
    Path(outside["secret"]).with_name("written").write_text("from inside")
    return "a file was made outside"


def _link_out(outside: Outside) -> str:
    os.symlink(outside["secret"], "link")
    return Path("link").read_text()


def _change_mode(outside: Outside) -> str:
    os.chmod(outside["secret"], 0o666)
    return "the mode of a file outside was changed"


def _read_environment(outside: Outside) -> str:
    return _with_marker(Path(f"/proc/{outside['pid']}/environ").read_bytes(), outside)


def _first_environment(outside: Outside) -> str:
    return _with_marker(Path("/proc/1/environ").read_bytes(), outside)


def _with_marker(found: bytes, outside: Outside) -> str:
    return "an environment from outside was read" if outside["marker"].encode() in found else ""


def _signal_outside(outside: Outside) -> str:
    os.kill(outside["pid"], signal.SIGTERM)
    return "a signal was sent"


def _limit_outside(outside: Outside) -> str:
    resource.prlimit(outside["pid"], resource.RLIMIT_CORE, (0, 0))
    return "the limits of a process outside were changed"


def _connect_loopback(outside: Outside) -> str:
    with socket.create_connection(("127.0.0.1", outside["port"]), timeout=1):
        return "a listener on the loopback of the host was reached"


def _connect_socket(outside: Outside) -> str:
    return _connect_unix(outside["socket"])


def _connect_abstract(outside: Outside) -> str:
    return _connect_unix("\0" + outside["abstract"])


def _connect_unix(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as asks:
        asks.settimeout(1)
        asks.connect(address)
        return "a unix socket of the host was reached"


def _send_datagram(outside: Outside) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sends:
        sends.sendto(b"from inside", ("192.0.2.1", 9))
        return "a datagram was sent"


def _call(name: str, *words: int) -> str:
    return _call_number(_CALLS[platform.machine()][name], name, *words)


def _call_number(number: int, name: str, *words: int) -> str:
    done = ctypes.CDLL(None, use_errno=True).syscall(number, *(ctypes.c_long(word) for word in words))
    return f"{name} gave {done}" if done >= 0 else ""


def _add_key(outside: Outside) -> str:
    held = [ctypes.create_string_buffer(word) for word in (b"user", b"trial", b"secret")]
    kind, name, value = (ctypes.addressof(word) for word in held)
    return _call("add_key", kind, name, value, 6, -3)


def _io_uring(outside: Outside) -> str:
    held = ctypes.create_string_buffer(120)
    return _call_number(_IO_URING_SETUP, "io_uring_setup", 1, ctypes.addressof(held))


def _bpf(outside: Outside) -> str:
    held = ctypes.create_string_buffer(b"".join(word.to_bytes(4, sys.byteorder) for word in (2, 4, 4, 1)), 128)
    return _call("bpf", 0, ctypes.addressof(held), 128)


def _perf(outside: Outside) -> str:
    held = ctypes.create_string_buffer((1).to_bytes(4, sys.byteorder) + (128).to_bytes(4, sys.byteorder), 128)
    return _call("perf_event_open", ctypes.addressof(held), 0, -1, -1, 0)


def _open_tree(outside: Outside) -> str:
    held = ctypes.create_string_buffer(b"/")
    return _call_number(_OPEN_TREE, "open_tree", -100, ctypes.addressof(held), 0)


def _become_root(outside: Outside) -> str:
    os.setuid(0)
    return "user 0 was taken"


def _is_root(outside: Outside) -> str:
    return "it runs as the root of the host" if outside["root"] and os.geteuid() == 0 else ""


def _may_gain(outside: Outside) -> str:
    gains = ctypes.CDLL(None).prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1
    return "a setuid program would give it its owner's privileges" if gains else ""


def _write_large(outside: Outside) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("large", "wb") as file:
        file.write(b"\0" * (outside["file_bytes"] + 1))
    return "a file above the limit was written"


ATTEMPTS: dict[str, Callable[[Outside], str]] = {
    "read a file outside": _read_secret,
    "list a folder outside": _list_outside,
    "write a file outside": _write_outside,
    "read through a link": _link_out,
    "change a file's mode outside": _change_mode,
    "read the environment of a process outside": _read_environment,
    "read the environment of process 1": _first_environment,
    "signal a process outside": _signal_outside,
    "trace a process outside": lambda outside: _call("ptrace", _PTRACE_ATTACH, outside["pid"], 0, 0),
    "limit a process outside": _limit_outside,
    "connect to the loopback of the host": _connect_loopback,
    "connect to a unix socket outside": _connect_socket,
    "connect to an abstract socket outside": _connect_abstract,
    "send a datagram": _send_datagram,
    "bpf": _bpf,
    "io_uring": _io_uring,
    "userfaultfd": lambda outside: _call("userfaultfd", 1),
    "perf events": _perf,
    "open_tree": _open_tree,
    "keyring": _add_key,
    "become root": _become_root,
    "be root": _is_root,
    "gain by setuid": _may_gain,
    "write a large file": _write_large,
    "unshare": lambda outside: _call("unshare", _CLONE_NEWUSER),
}
"""By name, in order: the last one makes its process a stranger to its own files where it works."""


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
