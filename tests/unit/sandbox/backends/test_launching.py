"""The processes beside the host: what they survive, and that nothing survives the host."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.unit.sandbox.backends.doors import STAYS, UID, Door

from retinue.runs.errors import TransientError
from retinue.sandbox.backends import keeper, launching
from retinue.sandbox.backends.keeper import descendants
from retinue.sandbox.backends.launching import Launcher, Start
from retinue.sandbox.backends.remedies import remedy
from retinue.sandbox.backends.streams import Excerpt
from retinue.sandbox.locks import is_free

pytestmark = pytest.mark.promise("E4")

HOST = """
import asyncio, sys
from pathlib import Path
from retinue.runs.sandboxes import Exec
from retinue.sandbox.backends.port import Place, Surroundings
from retinue.sandbox.backends.choosing import Backends
from retinue.sandbox.profiles import SHIPPED

async def main():
    backends = Backends(uid=None)
    name, profile, workspace, uid, code = sys.argv[1:]
    backend = {backend.name: backend for backend in backends.all}[name]
    place = Place(Path(workspace), int(uid) if uid else None)
    order = Exec(argv=("python3", "-I", "-S", "-c", code, "wait"), timeout=600)
    around = Surroundings({}, output=lambda stream, data: print(stream, data, flush=True))
    await backend.exec(place, SHIPPED[profile], order, around)

asyncio.run(main())
"""


async def test_a_host_that_is_killed_takes_all_of_its_programs_along(door: Door) -> None:
    words = (door.backend.name, door.profile.name, str(door.workspace), "" if UID is None else str(UID), STAYS)
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, *words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert host.stdout is not None
    assert await asyncio.wait_for(host.stdout.readline(), 30) == b"stdout b'started'\n"
    assert not is_free(door.workspace / "held")
    host.kill()
    await host.wait()
    await asyncio.to_thread(_until, lambda: is_free(door.workspace / "held"))


async def test_a_launcher_that_was_killed_is_started_again(door: Door) -> None:
    assert (await door.sh("echo one")).stdout == "one\n"
    process = _launcher()
    os.kill(process, signal.SIGKILL)
    await asyncio.to_thread(_until, lambda: _state(process) == "Z")
    assert (await door.sh("echo two")).stdout == "two\n"


async def test_a_keeper_that_was_killed_is_an_error_and_bwrap_ends_with_it(bubblewrap: Door) -> None:
    told = asyncio.Event()
    running = asyncio.create_task(bubblewrap.python(STAYS, "wait", output=lambda *_: told.set()))
    await asyncio.wait_for(told.wait(), 20)
    launcher = _launcher()
    (of_exec,) = [pid for pid in _children(launcher) if len(descendants(pid)) > 1]
    os.kill(of_exec, signal.SIGKILL)
    with pytest.raises(TransientError, match="its keeper has ended"):
        await running
    await asyncio.to_thread(_until, lambda: is_free(bubblewrap.workspace / "held"))


async def test_a_process_that_was_ready_and_is_killed_is_made_again(door: Door) -> None:
    assert (await door.sh("echo one")).stdout == "one\n"
    launcher = _launcher()
    await asyncio.to_thread(_until, lambda: len(descendants(launcher)) == 2)
    for pid in descendants(launcher):
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(_until, lambda: not descendants(launcher))
    try:
        done = await door.sh("echo two")
    except TransientError as error:  # it was given the one that is dead, before anybody had noticed
        assert error.code == "sandbox_start"
        done = await door.sh("echo two")
    assert done.stdout == "two\n"


async def test_a_long_chain_of_processes_is_ended_whole(unconfined: Door) -> None:
    chain = """
import os, sys, time
file = open("held", "w")
for generation in range(150):
    if os.fork():
        time.sleep(600)
import fcntl
fcntl.lockf(file, fcntl.LOCK_EX)
os.write(1, b"all begun")
time.sleep(600)
"""
    told = asyncio.Event()
    running = asyncio.create_task(unconfined.python(chain, timeout=100, output=lambda *_: told.set()))
    await asyncio.wait_for(told.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_free(unconfined.workspace / "held")


async def test_a_step_that_fails_before_the_program_is_told(tmp_path: Path) -> None:
    launcher = Launcher()
    try:
        for start, told in (
            (Start(("true",), cgroups=("/no/such/group",)), "No such file or directory: '/no/such/group'"),
            (Start(("true",), limits=(("RLIMIT_NOTHING", 1, 1),)), "RLIMIT_NOTHING"),
        ):
            running = launcher.start(start, (Excerpt(10), Excerpt(10)))
            with pytest.raises(TransientError, match=told):
                await running.wait(20)
    finally:
        launcher.close()


async def test_a_user_that_cannot_be_had_is_told_with_the_remedy() -> None:
    launcher = Launcher()
    try:
        running = launcher.start(Start(("true",), uid=64003 if UID is None else 2**32 - 1), (Excerpt(10), Excerpt(10)))
        with pytest.raises(TransientError, match="cannot become user") as told:
            await running.wait(20)
    finally:
        launcher.close()
    assert "`sandbox: uids:`" in remedy(str(told.value))


async def test_files_are_given_by_number_and_nothing_else_is(tmp_path: Path) -> None:
    launcher = Launcher()
    streams = Excerpt(10_000), Excerpt(10_000)
    script = (
        "import os; os.write(12, os.read(10, 9) + os.read(11, 9)); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    )
    start = Start((sys.executable, "-I", "-S", "-c", script), files=(b"one ", b"two "), reports=True)
    try:
        running = launcher.start(start, streams)
        assert await running.wait(20) == 0
    finally:
        launcher.close()
    assert running.report == b"one two "
    assert streams[0].text() == "[0, 1, 2, 3, 10, 11, 12]\n"
    assert keeper.FIRST_FILE == 10


async def test_many_starts_leave_no_open_file(door: Door) -> None:
    await asyncio.gather(*(door.sh("true") for _ in range(5)))
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(door.sh("true") for _ in range(10)))
    assert len(os.listdir("/proc/self/fd")) == before


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _launcher() -> int:
    """The one child of this process that forks keepers."""
    found = []
    for pid in _children(os.getpid()):
        try:
            found += [pid] if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
        except FileNotFoundError:
            continue
    (launcher,) = found
    return launcher


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _has_joined(group: Path) -> bool:
    return group.exists() and group.read_text() == "0"


async def test_what_was_asked_for_last_is_had_ready_whatever_was_before(tmp_path: Path) -> None:
    launcher = Launcher()
    groups = [tmp_path / f"group-{number}" for number in range(2 * launching._READY)]
    try:
        for group in groups:
            launcher.have_ready((str(group),))
            await asyncio.to_thread(_until, partial(_has_joined, group))
    finally:
        launcher.close()


async def test_what_is_made_ready_for_the_next_one_costs_nobody_a_result(
    unconfined: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unconfined.sh("true")

    def none_left(self: Launcher, cgroups: tuple[str, ...]) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Launcher, "_order", none_left)
    assert (await unconfined.sh("echo done")).stdout == "done\n"


def test_a_launcher_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "END_SECONDS", 0.2)
    launcher = Launcher()
    launcher.have_ready(())
    process = launcher._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    launcher.close()
    assert process.returncode == -signal.SIGKILL
