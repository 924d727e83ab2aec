"""A machine on which user namespaces are closed: Landlock takes over what it can hold, the rest is refused by name."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from retinue.sandbox.backends.landlock import version

pytestmark = pytest.mark.promise("E4")

CLOSED = """
import ctypes, os, sys
ready, maps = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if ctypes.CDLL(None).unshare(0x10000000) != 0:
        os._exit(99)
    os.write(ready[1], b"x")
    os.read(maps[0], 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
os.read(ready[0], 1)
for kind in ("uid_map", "gid_map"):
    open(f"/proc/{child}/{kind}", "w").write("0 0 70000")
os.write(maps[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Runs a program as the root of a user namespace in which no further one can be made."""

CHOOSES = """
import asyncio, json
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.backends.choosing import Backends
from retinue.sandbox.profiles import SHIPPED

async def main():
    backends, told = Backends(64004), {}
    for name, profile in SHIPPED.items():
        try:
            told[name] = (await backends.choose("auto", profile))[0].name
        except SandboxRefused as refused:
            told[name] = str(refused)
    backends.close()
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a namespace other users than its own")
@pytest.mark.skipif(not version(), reason="this kernel has no Landlock")
async def test_landlock_takes_over_and_what_it_cannot_hold_is_refused() -> None:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLOSED, CHOOSES, stdout=asyncio.subprocess.PIPE, env=environment
    )
    said, _ = await asyncio.wait_for(run.communicate(), 100)
    if run.returncode == 99:
        pytest.skip("user namespaces are closed here already")
    told = json.loads(said)
    assert (told["strict"], told["unconfined"]) == ("landlock", "unconfined")
    first, bubblewrap, landlock = told["build"].splitlines()
    assert first == "profile build cannot be enforced on this node, so nothing was run."
    assert bubblewrap.startswith("bubblewrap: everything: the sandbox was not set up, the program has not run: bwrap: ")
    assert bubblewrap.endswith("remedy: open user namespaces: sysctl user.max_user_namespaces=15000")
    assert landlock.startswith("landlock: hosts: landlock has no network of its own")
