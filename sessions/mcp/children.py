"""Servers that are processes of this host: started with a scrubbed environment, marked, and surely ended.

Owns a child from its start to the end of its last descendant, and the guardian that ends them all when this host
cannot. Knows bytes and signals, no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from retinue.runs.errors import PermanentError
from retinue.sessions.mcp import guardian
from retinue.sessions.mcp.pipes import Outlet, Tail

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL")
"""What a server is given of this process's environment; the rest is what its declaration names."""

CHUNK = 65536
"""Bytes of output that are read ahead."""

END_OF_INPUT, TERM, KILL = 1.5, 1.0, 1.0
"""Seconds that a server has to end after its input ended, after SIGTERM, and after SIGKILL."""


END_OF_GUARDIAN = 3.0
"""Seconds that the guardian has for its last search."""


class Guardian:
    """Makes marks for children, and has whatever carries one killed once its child has ended or this host is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._host = ""
        self._count = 0

    def mark(self) -> str:
        """A new mark for a child that is about to be started; the guardian watches from before its birth."""
        self._ensure()
        self._count += 1
        return f"{self._host}/{self._count}"

    def ended(self, mark: str) -> None:
        """The child with this mark has ended: what it left behind is killed soon."""
        pipe = self._process.stdin if self._process is not None else None
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(pipe.fileno(), f"{mark}\n".encode())

    async def close(self) -> None:
        """Have it kill what is left, and end it."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        try:
            with contextlib.suppress(OSError):
                process.stdin.close()
            await _ends_within(process, END_OF_GUARDIAN)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _ensure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        pid, started = os.getpid(), psutil.Process().create_time()
        self._host = self._host or f"{guardian.namespace()}:{pid}:{started:.2f}:{secrets.token_hex(4)}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(guardian.__file__)), self._host, str(pid), str(started)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
        os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]


class Child:
    """One server process with its pipes. `output` is what it prints, `tail` the end of what it complains of."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, watch: Guardian) -> None:
        self._process = process
        self._mark = mark
        self._guardian = watch
        self._transports: list[asyncio.BaseTransport] = []
        self.output = asyncio.StreamReader(limit=CHUNK)
        self.input = Outlet()
        self.tail = Tail()

    @property
    def pid(self) -> int:
        """Of the process that was started; its group has the same number."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process that was started has ended."""
        return self._process.poll() is not None

    async def attach(self) -> None:
        """Connect the pipes with the event loop."""
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        transport, _ = await loop.connect_write_pipe(lambda: self.input, stdin)
        self._transports.append(transport)
        for protocol, pipe in ((asyncio.StreamReaderProtocol(self.output), stdout), (self.tail, stderr)):
            reading, _ = await loop.connect_read_pipe(lambda protocol=protocol: protocol, pipe)  # type: ignore[misc]
            self._transports.append(reading)

    async def stop(self) -> None:
        """End it and its group: end of input, SIGTERM, SIGKILL. Within about four seconds, also when it is stubborn."""
        try:
            self.input.close()
            if not await _ends_within(self._process, END_OF_INPUT):
                self._signal(signal.SIGTERM)
                await _ends_within(self._process, TERM)
        finally:
            self._signal(signal.SIGKILL)
            for transport in self._transports:
                if not transport.is_closing():
                    transport.close()
            self._guardian.ended(self._mark)
        await _ends_within(self._process, KILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)


async def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, 0.005
    while process.poll() is None:
        if loop.time() >= until:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


async def start(command: Sequence[str], env: Mapping[str, str], cwd: str | None, watch: Guardian) -> Child:
    """Start a server. PermanentError (`not_made`) names the program and what the system said."""
    mark = watch.mark()
    child = Child(_launch(command, env, cwd, mark), mark, watch)
    try:
        await child.attach()
    except BaseException:
        await child.stop()
        raise
    return child


def _launch(command: Sequence[str], env: Mapping[str, str], cwd: str | None, mark: str) -> subprocess.Popen[bytes]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**inherited, **env, guardian.VARIABLE: mark},
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        where = f" in {cwd}" if cwd else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise PermanentError(
            f"{command[0]} could not be started{where}: {reason}. Correct `command` (and `cwd`).", code="not_made"
        ) from None
