"""Inside a sandbox: leads the programs that speak to a proxy on loopback to the proxy's socket.

A program on its own, run by the interpreter in the sandbox: it imports nothing but the standard library. It starts to
listen, leaves a process behind that passes connections on, and becomes the program that was asked for.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

PORT = 3128
ADDRESS = f"http://127.0.0.1:{PORT}"
VARIABLES = {
    name: value
    for upper, value in (("HTTP_PROXY", ADDRESS), ("HTTPS_PROXY", ADDRESS), ("ALL_PROXY", ADDRESS), ("NO_PROXY", ""))
    for name in (upper, upper.lower())
}
"""What tells programs of the proxy."""


def wrapped(argv: tuple[str, ...], proxy: str) -> tuple[str, ...]:
    """The command that runs another with a way to the proxy, whose socket is at this path inside."""
    code = Path(__file__).read_text()
    return ("python3", "-I", "-S", "-c", f"{code}\n\nmain()", str(PORT), proxy, *argv)


def main() -> None:
    """Listen, fork, become the program."""
    port, proxy, argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    listening = socket.create_server(("127.0.0.1", port), backlog=64)
    if os.fork() == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        forward(listening, proxy)
    listening.close()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def forward(listening: socket.socket, proxy: str) -> None:
    """Pass every connection on, until the sandbox ends."""
    while True:
        try:
            inner, _ = listening.accept()
        except OSError:  # the program has as many files open as it may
            time.sleep(0.05)
            continue
        try:
            outer = reach(proxy)
        except OSError:
            inner.close()
            continue
        try:
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=pump, args=pair, daemon=True).start()
        except RuntimeError:  # no more threads: the profile counts them
            end(inner, outer)


def reach(proxy: str) -> socket.socket:
    """A connection to the proxy."""
    outer = socket.socket(socket.AF_UNIX)
    try:
        outer.connect(proxy)
    except OSError:
        outer.close()
        raise
    return outer


def pump(source: socket.socket, target: socket.socket) -> None:
    """One direction of a connection; its end is passed on too, and when it breaks the other direction ends with it."""
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        end(source, target)


def end(*ends: socket.socket) -> None:
    """Wake whoever waits for one of them; it is closed when nobody holds it."""
    for one in ends:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is over already
            continue
