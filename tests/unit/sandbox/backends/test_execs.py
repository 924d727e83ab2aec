"""What an exec is in every backend: its outcome, its streams, its bounds, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from tests.unit.sandbox.backends.doors import STAYS, Door

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.backends.execution import Ended, result
from retinue.sandbox.backends.streams import Excerpt
from retinue.sandbox.locks import is_free

pytestmark = pytest.mark.promise("E4")


async def test_a_program_ends_with_its_code_and_its_streams(door: Door) -> None:
    done = await door.sh("echo out; echo err >&2; exit 3")
    assert (done.exit_code, done.signal, done.ok) == (3, None, False)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert (done.stdout_bytes, done.stderr_bytes, done.limits) == (4, 4, ())
    assert done.micros > 0


async def test_a_program_that_a_signal_ended_says_which(door: Door) -> None:
    done = await door.sh("kill -15 $$")
    assert (done.exit_code, done.signal, done.limits) == (None, 15, ())


async def test_a_program_that_is_not_there_is_an_outcome(door: Door) -> None:
    done = await door.run("no-such-program", "word")
    assert done.exit_code == 127
    assert "no-such-program" in done.stderr
    assert "No such file" in done.stderr


async def test_input_and_environment_and_folder_reach_the_program(door: Door) -> None:
    (door.workspace / "below").mkdir()
    done = await door.sh(
        'cat; echo "$PLAIN $SECRET"; basename "$PWD"',
        stdin="typed\n",
        cwd="below",
        env={"PLAIN": "one", "SECRET": "shadowed"},
        environment={"SECRET": "two"},
    )
    assert done.stdout == "typed\none two\nbelow\n"


async def test_input_of_any_size_holds_up_nobody(door: Door) -> None:
    done = await door.sh("exit 0", stdin="x" * 3_000_000)
    assert done.ok
    assert (await door.sh("wc -c", stdin="x" * 3_000_000)).stdout.strip() == "3000000"


async def test_a_folder_outside_the_workspace_is_refused(door: Door) -> None:
    for cwd in ("..", "/", "below/../.."):
        with pytest.raises(SandboxRefused, match="leads out of the workspace"):
            await door.sh("pwd", cwd=cwd)


async def test_a_folder_that_is_not_there_is_refused(door: Door) -> None:
    (door.workspace / "file").touch()
    for cwd, told in (("missing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(SandboxRefused, match=rf"not started in `cwd`: .*/{cwd}: {told}.*name a folder of the work"):
            await door.sh("pwd", cwd=cwd)


async def test_files_of_one_exec_are_there_for_the_next(door: Door) -> None:
    assert (await door.sh("echo kept > file; mkdir folder; ln -s file link")).ok
    assert (door.workspace / "file").read_text() == "kept\n"
    assert (await door.sh("cat link; ls -d folder")).stdout == "kept\nfolder\n"


async def test_output_is_kept_at_both_ends_and_counted_whole(door: Door) -> None:
    done = await door.sh("echo BEGIN; yes | head -c 5000000; echo END", max_output=1000)
    assert done.stdout.startswith("BEGIN\ny\n")
    assert done.stdout.endswith("y\nEND\n")
    assert done.stdout_bytes == 5_000_010
    assert "4999010 bytes left out" in done.stdout
    assert len(done.stdout) < 1100


async def test_output_comes_while_the_program_runs(door: Door) -> None:
    seen: list[tuple[str, bytes]] = []
    told = asyncio.Event()

    def output(stream: str, data: bytes) -> None:
        seen.append((stream, data))
        told.set()

    waits = "echo first; until [ -e go ]; do sleep 0.02; done; echo second"
    running = asyncio.create_task(door.sh(waits, output=output))
    await asyncio.wait_for(told.wait(), 20)
    assert seen == [("stdout", b"first\n")]
    (door.workspace / "go").touch()
    assert (await running).stdout == "first\nsecond\n"
    assert b"".join(data for _, data in seen) == b"first\nsecond\n"


async def test_a_program_that_takes_too_long_is_ended(door: Door) -> None:
    began = time.monotonic()
    done = await door.sh("echo begun; trap '' TERM INT HUP; sleep 600 & sleep 600", timeout=1.5)
    assert (done.exit_code, done.signal, done.limits) == (None, 9, ("timeout",))
    assert done.stdout == "begun\n"
    assert time.monotonic() - began < 60


async def test_the_profile_bounds_the_time_too(door: Door) -> None:
    assert (await door.limited(seconds=0.4).sh("sleep 600")).limits == ("timeout",)


async def test_nothing_of_an_exec_outlives_it(door: Door) -> None:
    done = await door.python(STAYS)
    assert done.ok, done.stderr
    assert done.stdout == "started"
    assert is_free(door.workspace / "held")


async def test_nothing_of_an_exec_outlives_its_time(door: Door) -> None:
    done = await door.python(STAYS, "wait", timeout=4.0)
    assert (done.stdout, done.limits) == ("started", ("timeout",))
    assert is_free(door.workspace / "held")


async def test_nothing_of_an_exec_outlives_its_cancellation(door: Door) -> None:
    told = asyncio.Event()
    running = asyncio.create_task(door.python(STAYS, "wait", output=lambda *_: told.set()))
    await asyncio.wait_for(told.wait(), 20)
    assert not is_free(door.workspace / "held")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_free(door.workspace / "held")


async def test_a_bomb_of_forks_is_ended_whole(confined: Door) -> None:
    bomb = """
import os, time
for generation in range(11):
    try:
        os.fork()
    except OSError:
        os.write(1, b"refused")
time.sleep(600)
"""
    done = await confined.limited(processes=40).python(bomb, timeout=3.0)
    assert (done.signal, done.stdout[:7]) == (9, "refused")
    assert (await confined.sh("echo fine")).stdout == "fine\n"


async def test_execs_run_side_by_side(door: Door) -> None:
    met = "touch at-$0; until [ -e at-0 ] && [ -e at-1 ] && [ -e at-2 ]; do sleep 0.02; done; echo $0"
    done = await asyncio.gather(*(door.run("sh", "-c", met, str(number)) for number in range(3)))
    assert [one.stdout for one in done] == ["0\n", "1\n", "2\n"]


async def test_variables_of_the_host_stay_outside(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_TOKEN", "not-for-programs")
    assert "not-for-programs" not in (await door.run("env")).stdout


def test_a_stream_keeps_what_fits_whole() -> None:
    kept = Excerpt(10)
    for part in (b"abc", b"", b"defg", b"hij"):
        kept.add(part)
    assert (kept.text(), kept.written) == ("abcdefghij", 10)


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_a_stream_keeps_both_ends_however_it_comes(size: int) -> None:
    whole = bytes(range(97, 123)) * 4
    kept = Excerpt(11)
    for at in range(0, len(whole), size):
        kept.add(whole[at : at + size])
    assert kept.text() == "abcdef\n[... 93 bytes left out ...]\nvwxyz"
    assert kept.written == 104


def test_what_a_program_may_have_said_is_in_no_error_of_its_helper() -> None:
    out, err = Excerpt(100), Excerpt(100)
    err.add(b"the program said: swordfish")
    killed = Ended(signal.SIGKILL, True, began=False, missing="", stopped="", stdout=out, stderr=err, micros=1)
    with pytest.raises(TransientError, match=r"signal 9.*not known") as told:
        result(killed)
    assert "swordfish" not in str(told.value)


def test_what_a_helper_says_is_told_in_bounds() -> None:
    out, err = Excerpt(100_000), Excerpt(100_000)
    err.add(b"bwrap: " + b"no " * 30_000 + b"namespaces")
    failed = Ended(1 << 8, True, began=False, missing="", stopped="", stdout=out, stderr=err, micros=1)
    with pytest.raises(TransientError, match=r"has not run: .*no namespaces$") as told:
        result(failed)
    assert len(str(told.value)) < 2_000
