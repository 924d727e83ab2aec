"""One exec while it runs: what it writes is read as it comes, its end is waited for, and it is ended when it is time.

Owns the wait for an exec. Knows neither how it was started nor a profile. The wait for the end of all that it started
has a bound too: a program never holds up the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.backends import keeper
from retinue.sandbox.backends.streams import Excerpt

END_SECONDS = 30.0
"""How long all processes of an exec may take to be gone after they were killed; a stuck kernel call takes longer."""

_STREAM_BYTES = 64 * 1024
_LEFTOVER_SECONDS = 1.0
"""How long output is read after the last process is gone: another one may hold the pipe if it was handed over."""

Output = Callable[[str, bytes], None] | None


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
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            self.stop("timeout")
            await self._after_kill()
        except asyncio.CancelledError:
            self.stop("canceled")
            await asyncio.shield(self._after_kill())
            raise
        try:
            async with asyncio.timeout(_LEFTOVER_SECONDS):
                await self._drained.wait()
        except TimeoutError:
            self.stopped = self.stopped or "output"

    async def _after_kill(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._gone.wait()
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


def no_folder(said: str) -> SandboxRefused:
    """The refusal of a working folder that is not there, or is none."""
    return SandboxRefused(
        f"the program was not started in `cwd`: {said}; name a folder of the workspace", code="sandbox_path"
    )
