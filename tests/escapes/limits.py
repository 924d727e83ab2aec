"""Attempts to use more than a profile gives: processes, memory, disk, time, output. Each in a workspace of its own.

Every one is bounded by itself too, so that it is harmless where nothing holds it: a bomb has so many sparks, a hog so
many bytes. They are made under confinement only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.escapes.trials import Cell, Outcome, cell

from retinue.sandbox.locks import is_free

MIB = 1024 * 1024
_PROCESSES, _SPARKS = 24, 160
_MEMORY = 64 * MIB

_BOMB = f"""
import os, time
sparks, more = os.pipe(); os.write(more, b"x" * {_SPARKS}); os.set_blocking(sparks, False)
lit, lights = os.pipe()
top = os.getpid()
until = time.monotonic() + 1.2
while time.monotonic() < until:
    try:
        os.read(sparks, 1)
    except BlockingIOError:
        time.sleep(0.05)
        continue
    try:
        if os.fork() == 0:
            os.write(lights, b"1")
    except OSError:
        time.sleep(0.01)
if os.getpid() == top:
    os.write(lights, b".")
    print(len(os.read(lit, 1000)), flush=True)
os._exit(0)
"""
_THREADS = f"""
import threading, time
made = 0
for _ in range({_SPARKS}):
    try:
        threading.Thread(target=time.sleep, args=(0.7,), daemon=True).start()
    except RuntimeError:
        break
    made += 1
print(made + 1, flush=True)
"""
_HOG = "held = bytearray(b'x') * (256 << 20); print('256 MiB held', flush=True)"
_HERD = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b"x") * (24 << 20)
        time.sleep(1.5)
        os._exit(0)
print(sum(os.wait()[1] == 0 for _ in range(8)), flush=True)
"""
_FILL = """
import os, sys, time
folder = sys.argv[1] or os.environ["TMPDIR"]
for number in range(80):
    with open(f"{folder}/fill-{number}", "wb") as file:
        file.write(b"x" * (1 << 20))
    time.sleep(float(sys.argv[2]))
print("80 MiB written", flush=True)
"""
_NAMES = """
import time
for number in range(6000):
    open(f"name-{number}", "w").close()
time.sleep(2.5)
print("6000 files made", flush=True)
"""
_LARGE = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("large", "wb") as file:
    file.write(b"x" * (4 << 20))
print("a larger file was written", flush=True)
"""
_SPARSE = """
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
os.truncate(os.open("sparse", os.O_RDWR | os.O_CREAT), 1 << 40)
print("a file of 1 TiB", flush=True)
"""
_SPIN = """
import signal, time
signal.signal(signal.SIGXCPU, lambda *_: None)
while time.process_time() < 5:
    pass
print("5 s of a processor", flush=True)
"""
_OPEN = """
import os
opened = []
try:
    while len(opened) < 3000:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
print(len(opened), flush=True)
"""
_RAISE = """
import resource
for name in ("RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_FSIZE"):
    try:
        hard = resource.getrlimit(getattr(resource, name))[1]
        resource.setrlimit(getattr(resource, name), (hard + 10, hard + 10))
        print(name, "was raised", flush=True)
    except (ValueError, OSError):
        pass
"""
_DAEMON = """
import fcntl, os, signal, sys, time
file = open("held", "w")
reads, writes = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        fcntl.lockf(file, fcntl.LOCK_EX)
        if sys.argv[1] == "stopped":
            os.write(writes, b"1")
            os.kill(os.getpid(), signal.SIGSTOP)
        os.write(writes, b"1")
        time.sleep(60)
    os._exit(0)
os.read(reads, 1)
"""
_DEAF = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(8)
print("it slept to the end", flush=True)
"""
_FLOOD = """
import os
part = b"x" * 65536
for _ in range(800):
    os.write(1, part)
"""
_CRASH = "import os; os.abort()"

Try = Callable[[Cell], Awaitable[Outcome]]


def _counted(code: str, most: int, **limits: int) -> Try:
    """What it prints is a number that is not to be above the limit."""

    async def attempt(at: Cell) -> Outcome:
        done = await at.limited(**limits).python(code, timeout=20)
        if done.stdout.strip().isdigit():
            count = int(done.stdout)
            return Outcome("stopped" if count <= most else "open", f"{count} of {most}")
        held = "memory" in done.limits and "memory" in at.held
        state = "stopped" if held else "limited" if done.limits else "open"
        return Outcome(state, f"ended: {', '.join(done.limits)} {done.stderr[-100:]}")

    return attempt


def _held(code: str, *words: str, gap: str = "", **limits: int | None) -> Try:
    """It prints when it got what it wanted. `gap` is the demand that is only looked at now and then."""

    async def attempt(at: Cell) -> Outcome:
        done = await at.limited(**limits).python(code, *words, timeout=20)
        if done.stdout:
            return Outcome("open", done.stdout.strip())
        looked_at = gap in done.limits and gap not in at.held
        return Outcome("limited" if looked_at else "stopped", ", ".join(done.limits) or done.stderr[-100:].strip())

    return attempt


async def _memory_disk(at: Cell) -> Outcome:
    """/tmp is memory in an own root, and a folder of the host without one."""
    limits: dict[str, int | None] = {"memory": _MEMORY, "disk": 16 * MIB, "file_bytes": None}
    return await _held(_FILL, "", "0.05", gap="disk", **limits)(at)


async def _shared(at: Cell) -> Outcome:
    return await _held(_FILL, "/dev/shm", "0", memory=_MEMORY)(at)


async def _timed(at: Cell) -> Outcome:
    done = await at.python(_DEAF, timeout=1)
    return Outcome("open" if done.stdout else "stopped", ", ".join(done.limits))


async def _herd(at: Cell) -> Outcome:
    """Eight times 24 MiB: two fit."""
    return await _counted(_HERD, 2, memory=_MEMORY)(at)


def _stays(how: str) -> Try:
    async def attempt(at: Cell) -> Outcome:
        async with asyncio.timeout(20):
            done = await at.python(_DAEMON, how, timeout=15)
        free = done.ok and is_free(at.workspace / "held")
        return Outcome("stopped" if free else "open", f"{done.micros // 1000} ms, {', '.join(done.limits)}")

    return attempt


async def _flood(at: Cell) -> Outcome:
    done = await at.python(_FLOOD, max_output=10_000, timeout=20)
    bounded = len(done.stdout) < 12_000 and done.stdout_bytes == 800 * 65_536
    return Outcome("stopped" if bounded else "open", f"{len(done.stdout)} of {done.stdout_bytes} bytes kept")


async def _core(at: Cell) -> Outcome:
    done = await at.python(_CRASH, timeout=20)
    left = [file.name for file in at.workspace.iterdir()]
    return Outcome("open" if left or done.ok else "stopped", " ".join(left))


ATTEMPTS: dict[str, Try] = {
    "fork without end": _counted(_BOMB, _PROCESSES, processes=_PROCESSES),
    "start threads without end": _counted(_THREADS, _PROCESSES, processes=_PROCESSES),
    "open files without end": _counted(_OPEN, 256, open_files=256),
    "take memory": _held(_HOG, gap="memory", memory=_MEMORY),
    "take memory with many processes": _herd,
    "fill the temporary folder": _memory_disk,
    "fill /dev/shm": _shared,
    "fill the workspace": _held(_FILL, ".", "0.05", gap="disk", disk=8 * MIB),
    "fill the workspace with names": _held(_NAMES, gap="disk", files=200),
    "write a large file": _held(_LARGE, file_bytes=MIB),
    "make a large sparse file": _held(_SPARSE, file_bytes=MIB),
    "use a processor for long": _held(_SPIN, cpu_seconds=1),
    "raise its own limits": _held(_RAISE, open_files=64, cpu_seconds=100, file_bytes=MIB),
    "ignore every signal": _timed,
    "leave a process in a session of its own": _stays("running"),
    "leave a stopped process": _stays("stopped"),
    "write output without end": _flood,
    "leave a core file": _core,
}
_ALONE = ("fork without end", "start threads without end")
"""An ordinary user's processes are counted together, so these are made one after the other."""


async def attempts_at_limits(name: str) -> dict[str, Outcome]:
    """All of them under a confinement, a few at a time."""
    found: dict[str, Outcome] = {}
    for alone in _ALONE:
        with cell(name) as at:
            found[alone] = await ATTEMPTS[alone](at)
    turn = asyncio.Semaphore(4)

    async def one(attempt: str) -> None:
        async with turn:
            with cell(name) as at:
                found[attempt] = await ATTEMPTS[attempt](at)

    await asyncio.gather(*(one(attempt) for attempt in ATTEMPTS if attempt not in found))
    return {attempt: found[attempt] for attempt in ATTEMPTS}
