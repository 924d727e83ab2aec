"""Limits of an exec, with control groups and without, and how a result names the one that was hit."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from tests.unit.sandbox.backends.doors import Door

from retinue.sandbox.backends.cgroups import find
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.port import Report, demands
from retinue.sandbox.backends.watching import passes_disk, watched
from retinue.sandbox.profiles import MIB, STRICT, Limits

pytestmark = pytest.mark.promise("E4")

HOLDS = "held = bytearray({size}); print('held', flush=True); import time; time.sleep({seconds})"
SPLIT = """
import os, time
for number in range(4):
    if os.fork() == 0:
        held = bytearray({size})
        time.sleep(2)
        os._exit(0)
time.sleep(2)
print("all held")
"""
FORKS = """
import errno, os, time
count = 0
try:
    for number in range(200):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        count += 1
except OSError as error:
    print(error.errno, flush=True)
time.sleep(1)
print(count, flush=True)
"""


async def test_memory_is_held_together_for_all_processes(confined: Door) -> None:
    done = await confined.limited(memory=100 * MIB).python(SPLIT.format(size=40 * MIB), timeout=20)
    assert "memory" in done.limits


async def test_memory_is_looked_at_without_control_groups(without_groups: Door) -> None:
    done = await without_groups.limited(memory=100 * MIB).python(SPLIT.format(size=40 * MIB), timeout=20)
    assert (done.signal, done.limits, done.stdout) == (9, ("memory",), "")


async def test_memory_below_the_limit_is_nobodys_business(confined: Door, without_groups: Door) -> None:
    for door in (confined, without_groups):
        done = await door.limited(memory=150 * MIB).python(HOLDS.format(size=50 * MIB, seconds=0.3))
        assert (done.exit_code, done.stdout, done.limits) == (0, "held\n", ())


async def test_a_limit_that_was_hit_is_not_told_of_the_next_exec(confined: Door) -> None:
    small = confined.limited(memory=64 * MIB)
    assert "memory" in (await small.python(HOLDS.format(size=200 * MIB, seconds=5))).limits
    assert (await small.sh("echo fine")).limits == ()


async def test_processes_are_counted(confined: Door) -> None:
    done = await confined.limited(processes=20).python(FORKS, timeout=20)
    assert done.stdout.split()[0] == str(errno.EAGAIN)
    assert 14 <= int(done.stdout.split()[1]) <= 20
    assert done.limits == (("processes",) if "pids" in find().controls else ())


async def test_processes_are_counted_without_control_groups(without_groups: Door) -> None:
    done = await without_groups.limited(processes=20).python(FORKS, timeout=20)
    assert done.stdout.split()[0] == str(errno.EAGAIN)
    assert done.limits in ((), ("processes",))


async def test_a_file_grows_no_further_than_it_may(confined: Door) -> None:
    done = await confined.limited(file_bytes=MIB).sh("exec head -c 5000000 /dev/zero > file")
    assert (done.signal, done.limits) == (25, ("file_size",))
    assert (confined.workspace / "file").stat().st_size == MIB


async def test_processor_time_is_bounded(confined: Door) -> None:
    done = await confined.limited(cpu_seconds=1).python("while True: pass", timeout=60)
    assert (done.signal, done.limits) == (24, ("cpu",))


async def test_open_files_are_bounded(confined: Door) -> None:
    done = await confined.limited(open_files=40).python("held = [open('/dev/null') for _ in range(50)]")
    assert "Too many open files" in done.stderr


async def test_a_workspace_that_grows_too_large_ends_the_exec(confined: Door) -> None:
    fills = "i=0; while true; do head -c 3000000 /dev/zero > part-$i; i=$((i+1)); sleep 0.01; done"
    done = await confined.limited(disk=20 * MIB, file_bytes=4 * MIB).sh(fills, timeout=30)
    assert (done.signal, done.limits) == (9, ("disk",))


async def test_a_workspace_of_too_many_names_ends_the_exec(confined: Door) -> None:
    names = "import os\nfor number in range(10**6): os.mkdir(str(number))"
    done = await confined.limited(files=500).python(names, timeout=30)
    assert (done.signal, done.limits) == (9, ("disk",))


async def test_a_workspace_that_was_filled_in_a_moment_is_told_at_the_end(confined: Door) -> None:
    done = await confined.limited(disk=10 * MIB).sh("head -c 30000000 /dev/zero > file")
    assert done.limits == ("disk",)


async def test_limits_that_are_not_set_are_not_put_on(confined: Door) -> None:
    none = dict.fromkeys(["cpu_seconds", "memory", "processes", "open_files", "file_bytes", "disk", "files"])
    done = await confined.limited(**none).sh("ulimit -t; ulimit -f")
    assert (done.stdout, done.limits) == ("unlimited\nunlimited\n", ())


def test_the_size_of_a_workspace_is_that_of_the_disk_and_of_no_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "folder").mkdir(parents=True)
    outside.write_bytes(b"x" * 3 * MIB)
    (inside / "link").symlink_to(outside)
    with open(inside / "sparse", "wb") as sparse:
        sparse.truncate(100 * MIB)
    assert not passes_disk(watched(Limits(disk=MIB, files=3), frozenset(), inside))
    assert passes_disk(watched(Limits(disk=MIB, files=2), frozenset(), inside))
    (inside / "folder" / "file").write_bytes(b"x" * 2 * MIB)
    assert passes_disk(watched(Limits(disk=MIB, files=9), frozenset(), inside))
    assert not passes_disk(watched(Limits(disk=None, files=9), frozenset(), inside))


def test_what_groups_hold_is_not_looked_at(tmp_path: Path) -> None:
    over = watched(Limits(), frozenset({"memory", "pids"}), tmp_path, None)
    assert (over.memory, over.processes, over.folders) == (None, None, (tmp_path,))
    assert watched(Limits(memory=MIB * 20), frozenset({"pids"}), tmp_path).memory == MIB * 20


def test_a_report_without_a_finding_lacks_the_demand() -> None:
    assert set(Report("empty", "0").lacking(STRICT)) == set(demands(STRICT))


async def test_the_kernel_takes_a_sandbox_before_its_host(door: Door) -> None:
    assert (await door.sh("cat /proc/self/oom_score_adj || true")).stdout.strip() in ("1000", "")


async def test_two_sets_of_groups_of_a_process_are_apart() -> None:
    sets = [find(), find()]
    taken = [groups.take(Limits(memory=32 * MIB)) for groups in sets]
    if None in taken:
        pytest.skip("no control group can be made here")
    members = [member for group in taken if group is not None for member in group.members]
    assert len(set(members)) == len(members)
    for groups, group in zip(sets, taken, strict=True):
        assert group is not None
        groups.give_back(group, Limits(memory=32 * MIB))
        groups.close()
    assert _groups() == []


async def test_groups_are_used_again_and_none_is_left(runner: Runner, confined: Door) -> None:
    if not runner.held:
        pytest.skip("no control group can be made here")
    await asyncio.gather(*(confined.sh("true") for _ in range(3)))
    assert len(_groups()) > 0
    runner.close()
    assert _groups() == []


def _groups() -> list[Path]:
    pid = Path("/proc/self").resolve().name
    return [
        folder for top in ("memory", "pids", "") for folder in Path("/sys/fs/cgroup", top).glob(f"**/retinue-{pid}-*")
    ]
