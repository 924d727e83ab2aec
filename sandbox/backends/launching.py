"""Starts programs through a keeper: the part that all backends share.

Owns the process that forks keepers. Knows no profile: a backend says what to start and how it is confined. A program
never holds up the host: its input is a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.sandbox.backends import keeper
from retinue.sandbox.backends.running import Running
from retinue.sandbox.backends.streams import Excerpt

END_SECONDS = 30.0
"""How long the process that forks keepers may take to end."""

_READY = 3
"""How many processes are kept ready at most."""

_READY_SECONDS = 1.0
"""How long one of them may take to end."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program and what is put on between fork and exec; see `keeper`. `limits` are (RLIMIT name, soft, hard);
    `helpers` of the processes that are counted are the backend's own. `files` hold content that is given as open files,
    from number `keeper.FIRST_FILE` on, each anew for every start; after them comes an empty one that is read at the end
    when `reports`. `covers` are those of `roots.covers`. `locked` is for confinement without a helper; with one, its
    report says whether the program began.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    uid: int | None = None
    helpers: int = 0
    limits: tuple[tuple[str, int, int], ...] = ()
    cgroups: tuple[str, ...] = ()
    files: tuple[bytes, ...] = ()
    reports: bool = False
    covers: Mapping[str, str] = field(default_factory=dict)
    locked: Mapping[str, Any] | None = None
    stdin: bytes = b""


class Launcher:
    """The process that forks keepers, started when it is first needed and again when it has died. Close it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asks: socket.socket | None = None
        self._ready: dict[tuple[str, ...], socket.socket] = {}

    def start(self, start: Start, streams: tuple[Excerpt, Excerpt]) -> Running:
        """Hand a program over; it runs from here on. Wait for what is returned, or it runs for ever."""
        with ExitStack() as passed:
            contents = [_file_of(content) for content in (_request(start), start.stdin, *start.files)]
            for file in contents:
                passed.callback(os.close, file)
            reads, writes = zip(*(_pipe() for _ in streams), strict=True)
            for file in writes:
                passed.callback(os.close, file)
            report = _empty_file() if start.reports else None
            files = [contents[0], contents[1], *writes, *contents[2:], *([report] if report is not None else [])]
            try:
                control = self._hand_over(start.cgroups, files)
            except BaseException:
                for file in (*reads, *([report] if report is not None else [])):
                    os.close(file)
                raise
        named = dict(zip(reads, zip(("stdout", "stderr"), streams, strict=True), strict=True))
        return Running(control, named, report)

    def have_ready(self, cgroups: tuple[str, ...]) -> None:
        """Have a process ready in these groups for the next start in them, if one can be had; of too many the one that
        was not asked for the longest goes.
        """
        if cgroups in self._ready:
            return
        while len(self._ready) >= _READY:
            self._ready.pop(next(iter(self._ready))).close()
        with suppress(OSError):
            self._ready[cgroups] = self._order(cgroups)

    def close(self) -> None:
        """End it, and what is ready; what its keepers run goes on to its end."""
        for control in self._ready.values():
            _let_go(control)
        self._ready.clear()
        self._end()

    def _hand_over(self, cgroups: tuple[str, ...], files: list[int]) -> socket.socket:
        """To a process that is ready, else to a new one; the socket of its keeper."""
        control = self._ready.pop(cgroups, None)
        if control is None or not _waits(control):
            if control is not None:
                control.close()
            control = self._order(cgroups)
        socket.send_fds(control, [b"r"], files)
        return control

    def _order(self, cgroups: tuple[str, ...]) -> socket.socket:
        """A new keeper, with a process that joins these groups and waits."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        file = _file_of(json.dumps(cgroups).encode())
        try:
            with theirs:
                self._ask([file, theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(file)
        return ours

    def _ask(self, files: list[int]) -> None:
        asks = self._asks
        if asks is None or self._process is None or self._process.poll() is not None:
            asks = self._begin()
        try:
            socket.send_fds(asks, [b"r"], files)
        except (BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._begin(), [b"r"], files)

    def _end(self) -> None:
        if self._process is not None and self._asks is not None:
            self._asks.close()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._asks = None

    def _begin(self) -> socket.socket:
        self._end()
        self._asks, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        return self._asks


def _request(start: Start) -> bytes:
    """What a keeper's child reads, but for groups and files."""
    request = {
        "argv": start.argv,
        "environment": dict(start.environment),
        "cwd": start.cwd,
        "uid": start.uid,
        "limits": start.limits,
        "covers": dict(start.covers),
        "locked": start.locked,
    }
    return json.dumps(request).encode()


def _waits(control: socket.socket) -> bool:
    """Whether a keeper is there still and has said nothing yet."""
    try:
        control.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _let_go(control: socket.socket) -> None:
    """Let a process that is ready end, and wait for that: its groups are empty then."""
    with control:
        control.settimeout(_READY_SECONDS)
        try:
            control.shutdown(socket.SHUT_WR)
            while control.recv(4096):
                continue
        except OSError:
            return


def _pipe() -> tuple[int, int]:
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    return reads, writes


def _file_of(content: bytes) -> int:
    """An open file that holds this, at its beginning; nothing of it is on a disk where memory can hold it."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY)
    file = _empty_file()
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _empty_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("given")
    with tempfile.TemporaryFile() as made:
        return os.dup(made.fileno())
