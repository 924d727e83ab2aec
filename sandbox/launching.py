"""Starts programs through a keeper, reads what they write and ends them: the part that all backends share.

Owns the process that forks keepers and the wait for an exec. Knows no profile: a backend says what to start and how it
is confined. A program never holds up the host: its input is a file, its output is read as it comes and kept in bounds,
and the wait for the end of all that it started has a bound too.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox import keeper
from retinue.sandbox.streams import Excerpt

END_SECONDS = 30.0
"""How long all processes of an exec may take to be gone after they were killed; a stuck kernel call takes longer."""

_READY = 3
"""How many processes are kept ready at most."""

_STREAM_BYTES = 64 * 1024
_LEFTOVER_SECONDS = 1.0
"""How long output is read after the last process is gone: another one may hold the pipe if it was handed over."""


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


class Running:
    """One exec while it runs. `pid` is the program's as the host sees it and `keeper` that of the process above it, 0
    until they are known; `stopped` is why it was ended, or nothing; `report` is what it wrote to its report, once it
    has ended, and `missing` what the system said when there is no such program.
    """

    def __init__(self, control: socket.socket, streams: dict[int, tuple[str, Excerpt]], report: int | None) -> None:
        self.pid = 0
        self.keeper = 0
        self.missing = ""
        self.stopped = ""
        self.report = b""
        self.output: Output = None
        self._report = report
        self._control = control
        self._streams = streams
        self._said = bytearray()
        self._status: int | None = None
        self._failed = ""
        self._gone = asyncio.Event()
        self._told = False
        self._drained = asyncio.Event()

    def stop(self, why: str) -> None:
        """End it and all below it; the first reason stays."""
        if not self.stopped and not self._gone.is_set():
            self.stopped = why
            self._control.shutdown(socket.SHUT_WR)

    async def wait(self, seconds: float) -> int | None:
        """Until nothing of it is left; the program's status. Ended after `seconds`, and when this is canceled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control, self._listen)
        for file in self._streams:
            loop.add_reader(file, self._read, file)
        try:
            await self._until_gone(seconds)
        finally:
            loop.remove_reader(self._control)
            self._control.close()
            for file in list(self._streams):
                self._close(file)
            self._take_report()
        if self._failed.startswith(keeper.NO_PROGRAM):
            self.missing = self._failed.removeprefix(keeper.NO_PROGRAM)
        elif self._failed.startswith(keeper.NO_FOLDER):
            raise no_folder(self._failed.removeprefix(keeper.NO_FOLDER))
        elif self._failed or not self._told:
            why = self._failed or "its keeper has ended"
            raise TransientError(f"the program was not started: {why}", code="sandbox_start")
        return self._status

    def _take_report(self) -> None:
        if self._report is not None:
            self.report = os.pread(self._report, _STREAM_BYTES, 0)
            os.close(self._report)
            self._report = None

    async def _until_gone(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            self.stop("timeout")
            await self._after_kill()
        except asyncio.CancelledError:
            self.stop("canceled")
            await asyncio.shield(self._after_kill())
            raise
        try:
            await asyncio.wait_for(self._drained.wait(), _LEFTOVER_SECONDS)
        except TimeoutError:
            self.stopped = self.stopped or "output"

    async def _after_kill(self) -> None:
        try:
            await asyncio.wait_for(self._gone.wait(), END_SECONDS)
        except TimeoutError:
            raise PermanentError(
                f"processes of an exec were killed and are there after {END_SECONDS:.0f} s still, below {self.pid}: "
                f"the kernel holds them, look at their state with ps",
                code="sandbox_stuck",
            ) from None

    def _listen(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        *lines, self._said[:] = self._said.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if not data:
            self._end()

    def _hear(self, said: dict[str, Any]) -> None:
        self.pid, self.keeper = said.get("pid", self.pid), said.get("keeper", self.keeper)
        self._status = said.get("status", self._status)
        self._failed = said.get("failed", self._failed)
        if said.get("gone"):
            self._told = True
            self._end()

    def _end(self) -> None:
        self._gone.set()
        if not self._streams:
            self._drained.set()

    def _read(self, file: int) -> None:
        try:
            data = os.read(file, _STREAM_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close(file)
            return
        name, kept = self._streams[file]
        kept.add(data)
        if self.output is not None:
            self.output(name, data)

    def _close(self, file: int) -> None:
        asyncio.get_running_loop().remove_reader(file)
        os.close(file)
        del self._streams[file]
        if not self._streams:
            self._drained.set()


Output = Callable[[str, bytes], None] | None


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
        """Have a process ready in these groups for the next start in them, if few are ready and one can be had."""
        if cgroups not in self._ready and len(self._ready) < _READY:
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
        control.settimeout(_LEFTOVER_SECONDS)
        try:
            control.shutdown(socket.SHUT_WR)
            while control.recv(4096):
                continue
        except OSError:
            return


def no_folder(said: str) -> SandboxRefused:
    """The refusal of a working folder that is not there, or is none."""
    return SandboxRefused(
        f"the program was not started in `cwd`: {said}; name a folder of the workspace", code="sandbox_path"
    )


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
