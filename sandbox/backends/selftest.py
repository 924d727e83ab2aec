"""The self-test of a backend: what it holds here, shown by attempts to get out of it and to use more than it may.

Owns what is planted outside, the attempts' meaning and the findings. Knows no backend but through its port. It takes a
few seconds and has a bound; an attempt that was not made counts as one that worked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from retinue.runs.errors import EffectError
from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends import trial
from retinue.sandbox.backends.port import Demand, Finding, Place, Report, Surroundings
from retinue.sandbox.backends.remedies import remedy
from retinue.sandbox.locks import is_free
from retinue.sandbox.profiles import MIB, Limits, Profile
from retinue.sandbox.scratch import taken

SECONDS = 30.0
"""Bound of a whole self-test; on a quiet machine it takes about two."""

MET = Finding("enforced")

Run = Callable[[Place, Profile, Exec, Surroundings], Awaitable[ExecResult]]

_MARKER = "retinue-outside-7d1c"
_FILE_BYTES = MIB
_MEMORY = 96 * MIB
_PROCESSES = 24
_STARTS = (1.0, 4.0, 15.0)
"""Seconds after which a program is ended that would stay: it has begun by then, also on a busy machine."""

_ISOLATION: dict[Demand, tuple[str, ...]] = {
    "files": (
        "read a file outside",
        "list a folder outside",
        "write a file outside",
        "read through a link",
        "change a file's mode outside",
    ),
    "processes": (
        "read the environment of a process outside",
        "read the environment of process 1",
        "signal a process outside",
        "trace a process outside",
        "limit a process outside",
    ),
    "network": (
        "connect to the loopback of the host",
        "connect to a unix socket outside",
        "connect to an abstract socket outside",
        "send a datagram",
    ),
    "syscalls": ("unshare", "bpf", "io_uring", "userfaultfd", "perf events", "open_tree", "keyring"),
    "privileges": ("become root", "be root", "gain by setuid"),
    "file_size": ("write a large file",),
}
"""Which attempts of `trial` show what."""

_GREEDY = f"held = bytearray({2 * _MEMORY}); print('held', len(held), flush=True); import time; time.sleep(1)"
_FORKS = f"""
import os, time
for number in range({2 * _PROCESSES}):
    try:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
    except BlockingIOError:
        print("refused", flush=True)
        break
time.sleep(1)
"""
_BURNS = "while True: pass"
_STAYS = """
import fcntl, os, time
file = open("held", "w")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        fcntl.lockf(file, fcntl.LOCK_EX)
        open("started", "w").close()
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""
_FILLS = """
import time
for number in range(600):
    with open(f"part-{number}", "wb") as file:
        file.write(b"x" * 500_000)
    time.sleep(0.01)
print("all written")
"""


@dataclass(frozen=True, slots=True)
class Attempts:
    """A backend to be tried: how it runs a program, and the user to take where the host is root."""

    backend: str
    version: str
    run: Run
    uid: int | None

    async def python(self, folder: Path, code: str, limits: Limits, *words: str, seconds: float = 15.0) -> ExecResult:
        """A program in a workspace of its own below `folder`."""
        place = Place(_workspace(folder, self.uid), self.uid)
        profile = Profile(name="selftest", limits=limits)
        order = Exec(argv=("python3", "-I", "-S", "-c", code, *words), timeout=seconds)
        return await self.run(place, profile, order, Surroundings({}))


_made: dict[Hashable, Report] = {}
"""Self-tests of this process in which every attempt was stopped."""


async def try_out(attempts: Attempts, gaps: Mapping[Demand, Finding]) -> Report:
    """Make all attempts, or say what came of them before in this process. `gaps` are findings that no attempt shows;
    they count unless an attempt found worse. What an attempt missed is tried again when it is asked for again: it may
    have been for lack of time. When no sandbox can be made, or not in time, everything is absent.
    """
    backend, version = attempts.backend, attempts.version
    known = (backend, version, attempts.uid, frozenset(gaps.items()))
    if known in _made:
        return _made[known]
    with taken(how=partial(shutil.rmtree, ignore_errors=True)) as folder:
        try:
            async with asyncio.timeout(SECONDS):
                found = await _attempt_all(attempts, folder)
        except TimeoutError:
            return absent(
                backend, version, f"the self-test was not done after {SECONDS:.0f} s", "try on a quieter node"
            )
        except (EffectError, OSError) as error:
            return absent(backend, version, str(error), remedy(str(error)))
    report = Report(backend, version, {demand: _worse(found[demand], gaps.get(demand, MET)) for demand in found})
    if all(finding.assurance != "absent" for finding in found.values()):
        _made[known] = report
    return report


def absent(backend: str, version: str, why: str, remedy: str) -> Report:
    """The report of a backend that can do nothing here."""
    nothing = Finding("absent", why, remedy)
    return Report(backend, version, dict.fromkeys(get_args(Demand), nothing))


def _worse(found: Finding, gap: Finding) -> Finding:
    """What an attempt found counts when it is worse; a known gap says what mends it."""
    order = ("absent", "limited", "enforced")
    if order.index(gap.assurance) <= order.index(found.assurance):
        return gap
    return replace(found, remedy=gap.remedy or found.remedy)


async def _attempt_all(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    """Isolation first, alone: it says at once when no sandbox can be made. Then the limits side by side."""
    found = await _isolation(attempts, folder)
    limits = (
        _memory(attempts, folder),
        _process_count(attempts, folder),
        _cpu(attempts, folder),
        _time_and_cleanup(attempts, folder),
        _disk(attempts, folder),
    )
    for part in await asyncio.gather(*limits):
        found |= part
    return found


async def _isolation(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    limits = Limits(file_bytes=_FILE_BYTES)
    with _planted(folder) as outside:
        done = await attempts.python(folder / "isolation", _trial(), limits, json.dumps(outside))
    try:
        got: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[-300:]
        got = dict.fromkeys(trial.ATTEMPTS, f"not tried, the trial said: {said}")
    found: dict[Demand, Finding] = {}
    for demand, names in _ISOLATION.items():
        worked = [f"{name}: {got[name]}" for name in names if got.get(name, "not tried")]
        found[demand] = Finding("absent", "; ".join(worked), "choose another backend") if worked else MET
    found["hosts"] = found["network"]
    return found


async def _memory(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    done = await attempts.python(folder / "memory", _GREEDY, Limits(memory=_MEMORY))
    return {"memory": _shown("memory" in done.limits, f"{2 * _MEMORY // MIB} MiB were held", done)}


async def _process_count(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    done = await attempts.python(folder / "processes", _FORKS, Limits(processes=_PROCESSES))
    held = "processes" in done.limits or "refused" in done.stdout
    return {"process_count": _shown(held, f"{2 * _PROCESSES} processes were started", done)}


async def _cpu(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    done = await attempts.python(folder / "cpu", _BURNS, Limits(cpu_seconds=1))
    return {"cpu": _shown("cpu" in done.limits, "a second of it was not the end", done)}


async def _time_and_cleanup(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    for seconds in _STARTS:
        at = folder / f"cleanup-{seconds:g}"
        done = await attempts.python(at, _STAYS, Limits(), seconds=seconds)
        if began := (at / "tree" / "started").exists():
            break
    gone = began and is_free(at / "tree" / "held")
    return {
        "time": _shown("timeout" in done.limits, "it was not ended in time", done),
        "cleanup": _shown(gone, "a process in a session of its own stayed, or never began", done),
    }


async def _disk(attempts: Attempts, folder: Path) -> dict[Demand, Finding]:
    done = await attempts.python(folder / "disk", _FILLS, Limits(disk=8 * MIB))
    return {"disk": _shown("disk" in done.limits, "a workspace above its limit was not noticed", done)}


def _trial() -> str:
    return Path(trial.__file__).read_text()


def _shown(held: bool, otherwise: str, done: ExecResult) -> Finding:
    if held:
        return MET
    said = done.stderr.strip()[-200:] or f"exit code {done.exit_code}, signal {done.signal}"
    return Finding("absent", f"{otherwise} ({said})", "choose another backend")


def _workspace(folder: Path, uid: int | None) -> Path:
    tree = folder / "tree"
    tree.mkdir(parents=True)
    if uid is not None:
        os.chown(tree, uid, uid)
    tree.chmod(0o700)
    return tree


@contextlib.contextmanager
def _planted(folder: Path) -> Iterator[trial.Outside]:
    """What a sandbox must not reach: a file that everybody may read, a process, and listeners."""
    outside = folder / "outside"
    outside.mkdir()
    folder.chmod(0o755)
    secret = outside / "secret"
    secret.write_text(_MARKER)
    outside.chmod(0o777)
    victim = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"],
        env={"MARKER": _MARKER},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(_end, victim)
        loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(_listen(str(outside / "socket")))
        (outside / "socket").chmod(0o777)
        if sys.platform == "linux":
            stack.enter_context(_listen("\0" + folder.name))
        yield {
            "secret": str(secret),
            "pid": victim.pid,
            "marker": _MARKER,
            "port": loopback.getsockname()[1],
            "socket": str(outside / "socket"),
            "abstract": folder.name,
            "root": os.geteuid() == 0,
            "file_bytes": _FILE_BYTES,
        }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    return listener
