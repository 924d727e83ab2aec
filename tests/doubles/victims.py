"""Processes that take or restore snapshots and are killed at it: forked from one that has imported all it needs.

`python -m tests.doubles.victims` reads orders, one JSON object a line, forks for each and answers with the process id
and whether it has begun; `Victims` is the other end of that pipe.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.doubles.sealed import FolderCiphers

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.store import Snapshots

ROOT = Path(__file__).resolve().parents[2]


class Victims:
    """Forks processes that work on snapshots, to be killed."""

    def __enter__(self) -> Victims:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.victims"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(60)
        finally:
            self._server.stdout.close()

    def run(self, order: dict[str, str], seconds: float) -> bool:
        """Carry out an order, and kill whoever does after so many seconds; False when it was done before."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        handle = os.pidfd_open(pid)
        try:
            self._server.stdin.write("go\n")
            self._server.stdin.flush()
            if select.select([handle], [], [], seconds)[0]:
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            assert select.select([handle], [], [], 30)[0], f"process {pid} outlived its kill"
        finally:
            os.close(handle)
        return True


async def carry_out(order: dict[str, str]) -> None:
    """Take snapshots of a folder until killed, changing it in between; or restore one."""
    snapshots = Snapshots(LocalObjects(Path(order["store"])), FolderCiphers(Path(order["keys"])))
    folder = Path(order["folder"])
    if order["do"] == "restore":
        await snapshots.restore(order["snapshot_id"], order["tenant"], folder)
        return
    for number in range(1_000):
        (folder / f"file-{number % 7}").write_bytes(os.urandom(3_000) * (1 + number % 4))
        (folder / "folder" / f"{number}").write_text(f"{number}\n" * 100)
        await snapshots.take(folder, order["tenant"], Rules())


def _serve() -> None:
    """One child at a time; it starts when told, so that whoever kills it has its handle."""
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        ready, start = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.read(ready, 1)
            try:
                asyncio.run(carry_out(order))
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        os.close(ready)
        print(pid, flush=True)
        sys.stdin.readline()
        with suppress(BrokenPipeError):  # it was killed before it began
            os.write(start, b"g")
        os.close(start)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve()
