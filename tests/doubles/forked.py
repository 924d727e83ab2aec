"""The command line without its start: a process that has imported it is forked for each command.

A second of processor time is most of what a command takes, and the same each time. All else of a forked command is as
when it is typed: a process of its own, with its folder, its environment, its streams and its exit code. Tests of how
a command starts, and those that signal or kill one, start it themselves. Knows no verb.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import sys
from retinue.ingress.cli import console
from tests.doubles.forked import serve
serve(int(sys.argv[1]))
console()
"""
LOADS_RAY = {"runtime"}
"""Modules of verbs that load Ray, which starts threads: those who are forked load it themselves."""
_HEAD = 8
_PIECE = 1 << 16


class Forked:
    """Commands of one environment. Raises subprocess.TimeoutExpired for a command that does not end in time."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair()
        self._asking = threading.Lock()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(theirs.fileno())],
                cwd=ROOT,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End the server; commands that still run are not touched."""
        self._ours.close()
        self._server.wait(30)

    def run(
        self, words: Sequence[str], folder: Path, environ: Mapping[str, str], bound: float, merged: bool = False
    ) -> tuple[int, str, str]:
        """Run `retinue WORDS` in the folder to its end: its exit code (minus the signal) and both streams.

        `merged`: what goes to stderr goes to stdout too, in the order in which it was said.
        """
        answer, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        order = json.dumps({"words": list(words), "folder": str(folder), "environ": dict(environ)}).encode()
        try:
            with theirs, open(os.devnull, "rb") as nothing:
                fds = [nothing.fileno(), out[1], out[1] if merged else err[1], theirs.fileno()]
                with self._asking:
                    socket.send_fds(self._ours, [len(order).to_bytes(_HEAD, "big")], fds)
                    self._ours.sendall(order)
        finally:
            os.close(out[1])
            os.close(err[1])
        with answer, open(out[0], "rb", 0) as output, open(err[0], "rb", 0) as errors:
            pid = int.from_bytes(_exactly(answer, _HEAD), "big")
            try:
                said, complained = _read_both((output.fileno(), errors.fileno()), time.monotonic() + bound)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), bound) from None
            code = int.from_bytes(_exactly(answer, _HEAD), "big", signed=True)
        return code, said.decode(), complained.decode()


@functools.cache
def forking() -> Forked:
    """What forks the commands of this process's tests: without any setting of Retinue or Ray in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RETINUE_", "RAY_"))}
    made = Forked(kept | {"PYTHONPATH": str(ROOT / "src")})
    atexit.register(made.close)
    return made


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise EOFError("the other side is gone")
        data += piece
    return data


def _read_both(fds: tuple[int, int], until: float) -> tuple[bytes, bytes]:
    """All that comes out of both. Raises TimeoutError."""
    read: dict[int, list[bytes]] = {fd: [] for fd in fds}
    left = list(fds)
    while left:
        ready, _, _ = select.select(left, [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        for fd in ready:
            piece = os.read(fd, _PIECE)
            read[fd].append(piece)
            if not piece:
                left.remove(fd)
    return b"".join(read[fds[0]]), b"".join(read[fds[1]])


def serve(number: int) -> None:
    """In the process of the server: returns in each child that is to be a command, and exits when nobody asks any more.

    A child has arguments, folder, environment and streams of its command; a process between tells how it ended.
    """
    _load()
    orders = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        head, fds, _, _ = socket.recv_fds(orders, _HEAD, 4)
        if not head:
            sys.exit(0)
        order = json.loads(_exactly(orders, int.from_bytes(head, "big")))
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            orders.close()
            if _told(socket.socket(fileno=fds.pop())):
                return _become(order, fds)
        for fd in fds:
            os.close(fd)


def _load() -> None:
    """Import what commands import, and keep it out of the way of their garbage collection."""
    cli = importlib.import_module("retinue.ingress.cli")
    for module in {module for module, _ in cli.VERBS.values()} - LOADS_RAY:
        importlib.import_module(f"retinue.ingress.verbs.{module}")
    importlib.import_module("retinue.ingress.connecting")
    sys.path[0] = ""
    gc.collect()
    gc.freeze()


def _told(answer: socket.socket) -> bool:
    """Fork once more and tell of the child's process and end. True in that child; the process between ends here."""
    pid = os.fork()
    if pid == 0:
        answer.close()
        return True
    answer.sendall(pid.to_bytes(_HEAD, "big"))
    _, status = os.waitpid(pid, 0)
    answer.sendall(os.waitstatus_to_exitcode(status).to_bytes(_HEAD, "big", signed=True))
    os._exit(0)


def _become(order: Mapping[str, object], fds: Sequence[int]) -> None:
    """Take over what the order says."""
    for standard, fd in enumerate(fds):
        os.dup2(fd, standard)
        os.close(fd)
    os.chdir(str(order["folder"]))
    environ, words = order["environ"], order["words"]
    assert isinstance(environ, dict) and isinstance(words, list)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["retinue", *words]
