"""The guardian: a small process beside a host that ends what the host's servers leave behind, however either died.

Owns nothing but the marks that `children` puts into the environment of every server and that all its descendants
inherit. A program of its own, run with the path of this file; it imports nothing of Retinue and knows no protocol.

    guardian.py MARK PID STARTED

Each line on its standard input is the mark of a server that has ended: whatever still carries it is killed. When the
input ends, or the process PID (created at STARTED, Unix seconds) is gone, everything with a mark below MARK is killed
and the guardian ends. At its start it does the same for hosts that died without a guardian.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

import psutil

VARIABLE = "RETINUE_CHILD"
"""Of the environment: `namespace:pid:started:number of the host/number of the server`."""

LOOK = 1.0
"""Seconds between looks at the host; also how long ended servers are gathered before one search for their rest."""

GRACE = 1.0
"""Seconds that a dead host's servers have to end on their own, since their input has ended."""

ROUNDS = 5
"""Searches until nothing is found: a process may have been between its birth and its environment."""


def main(arguments: list[str]) -> None:
    """Watch until the host is gone."""
    mark, pid, started = arguments[0], int(arguments[1]), float(arguments[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _kill_all(_of_dead_hosts(mark))
    rest = b""
    while is_alive(pid, started):
        readable, _, _ = select.select([0], [], [], LOOK)
        if not readable:
            continue
        read = os.read(0, 65536)
        if not read:
            break
        *lines, rest = (rest + read).split(b"\n")
        ended = {line.decode("ascii", "replace") for line in lines if line}
        if ended:
            _kill_all(lambda found, ended=ended: found in ended)  # type: ignore[misc]
            time.sleep(LOOK)
    if not is_alive(pid, started):
        time.sleep(GRACE)
    for _ in range(ROUNDS):
        if not _kill_all(lambda found: found.startswith(f"{mark}/")):
            break
        time.sleep(0.2)


def is_alive(pid: int, started: float) -> bool:
    """Whether the process that was created at `started` still is."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def namespace() -> str:
    """What process ids are counted in: ids of another container mean nothing here."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return "0"


def _of_dead_hosts(mark: str) -> Callable[[str], bool]:
    verdicts: dict[str, bool] = {}

    def judge(found: str) -> bool:
        host = found.partition("/")[0]
        if host not in verdicts:
            verdicts[host] = host != mark and _is_dead(host)
        return verdicts[host]

    return judge


def _is_dead(host: str) -> bool:
    try:
        where, pid, started, _ = host.split(":")
        return where == namespace() and not is_alive(int(pid), float(started))
    except ValueError:
        return False


def _kill_all(belongs: Callable[[str], bool]) -> int:
    killed = 0
    for process, mark in _marked():
        if belongs(mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed += 1
    return killed


def _marked() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(VARIABLE)
            if mark and process.pid != os.getpid():
                yield process, mark


if __name__ == "__main__":
    main(sys.argv[1:])
