"""What happens to a runtime: each fault by its name, at the moment it is called.

A fault does its worst, tells in a few words what it did, and leaves the recovery to the runtime, which counts
from `scene.strike()`: the kill, or the end of what it bore. What a fault itself finds wrong goes to `scene.said`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tests.chaos.scene import Scene, is_gone, send, until
from tests.chaos.stores import DatabaseSeen, FileSeen, Kind
from tests.chaos.world import LEASE

Fault = Callable[[Scene], Awaitable[str]]
_DEATH = 25.0
"""Seconds within which a frozen host must be killed by the others; the writers' lock alone takes ten."""


async def kill_host(kind: str, scene: Scene) -> str:
    """SIGKILL of a RunActor or WorkerActor."""
    host = await scene.host(kind)
    scene.lost.append(host)
    scene.strike()
    await _kill(host.pid)
    return f"pid {host.pid} with {len(host.holds)} runs"


async def kill_traces(scene: Scene) -> str:
    """SIGKILL of the TraceActor."""
    pids = [process.pid for process in scene.traces()]
    scene.strike()
    for pid in pids:
        await _kill(pid)
    return f"pid {pids}"


async def kill_supervisor(scene: Scene) -> str:
    """SIGKILL of the Supervisor."""
    pid = scene.supervisor()
    if pid is None:
        return "there was none"
    scene.strike()
    await _kill(pid)
    return f"pid {pid}"


async def kill_driver(scene: Scene) -> str:
    """SIGKILL of the process that submitted the batch and waits for it."""
    scene.strike()
    pid = scene.waves.kill()
    return "there was none" if pid is None else f"pid {pid}"


async def kill_raylet(scene: Scene) -> str:
    """SIGKILL of the raylet of one of the two nodes beside the head; a new node comes in its place."""
    hosts = scene.look.hosts()
    on = [[host for host in hosts if _is_below(host.pid, raylet)] for raylet in scene.nodes.raylets()[1:]]
    index = max((0, 1), key=lambda number: (len(on[number]), scene.chance.random()))
    scene.lost += on[index]
    scene.strike()
    pid = scene.nodes.lose(index)  # not in a thread: Ray's nodes want the main one
    return f"pid {pid} with {len(on[index])} hosts"


async def kill_everything(scene: Scene) -> str:
    """SIGKILL of every process at once: Ray, all actors, the driver. Then a new Ray, `up`, `batch --resume`."""
    scene.lost += scene.look.hosts()
    scene.strike()
    scene.waves.pause()
    await asyncio.to_thread(scene.nodes.kill)
    scene.nodes.start()
    scene.waves.address = scene.nodes.address
    await scene.up()
    scene.waves.go_on(scene.nodes.address)
    return f"{len(scene.lost)} hosts with {sum(len(host.holds) for host in scene.lost)} runs"


async def freeze_host(kind: str, scene: Scene) -> str:
    """SIGSTOP for longer than a lease, then SIGCONT: the others must have killed it before they took its runs."""
    host = await scene.host(kind)
    scene.lost.append(host)
    scene.strike()
    send(host.pid, signal.SIGSTOP)
    try:
        await until(lambda: is_gone(host.pid) or not scene.look.is_known(host.number), LEASE + _DEATH)
        dead, known = is_gone(host.pid), scene.look.is_known(host.number)
    finally:
        send(host.pid, signal.SIGCONT)
    if not dead:
        what = "still has its leases" if known else "lost its leases while it lived"
        scene.said.append(f"freeze-{kind}: a host that was silent for {LEASE + _DEATH:.0f} s {what}")
    return f"pid {host.pid} with {len(host.holds)} runs, {'killed by the others' if dead else 'alive'}"


async def nap_host(kind: str, scene: Scene) -> str:
    """SIGSTOP for less than a lease: it may go on as if nothing had been."""
    host = await scene.host(kind)
    send(host.pid, signal.SIGSTOP)
    await asyncio.sleep(scene.chance.uniform(0.1, 0.5) * LEASE)
    send(host.pid, signal.SIGCONT)
    scene.strike()
    return f"pid {host.pid}"


async def freeze_keeper(which: str, scene: Scene) -> str:
    """SIGSTOP of the Supervisor or the TraceActor for two leases."""
    found = scene.supervisor() if which == "supervisor" else next((p.pid for p in scene.traces()), None)
    if found is None:
        return "there was none"
    send(found, signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE)
    send(found, signal.SIGCONT)
    scene.strike()
    return f"pid {found}"


async def full_disk(scene: Scene) -> str:
    """Nothing more fits on the data folder's disk, for less than a lease or more."""
    if scene.world.no_disk is not None:
        return f"skipped: {scene.world.no_disk}"
    ballast = scene.world.settings.data_folder / "ballast"
    assert isinstance(scene.world.store, FileSeen)
    scene.world.store.shrink()
    size, begun = await asyncio.to_thread(_fill, str(ballast)), time.monotonic()
    await asyncio.sleep(scene.chance.uniform(0.3, 1.8) * LEASE)
    ballast.unlink()
    scene.strike()
    return f"{size // 2**20} MB of ballast for {time.monotonic() - begun:.1f} s"


async def slow_disk(scene: Scene) -> str:
    """Writers that stall: bursts of SIGSTOP and SIGCONT hit one in the middle of its commits. No slow device."""
    for _ in range(40):
        for host in scene.look.hosts():
            send(host.pid, signal.SIGSTOP)
            await asyncio.sleep(0.06)
            send(host.pid, signal.SIGCONT)
            await asyncio.sleep(0.01)
    scene.strike()
    return "40 bursts for each host"


async def clock_jumps(scene: Scene) -> str:
    """A host whose wall clock jumps by up to 20 s joins, serves for a while, and leaves or is killed."""
    seed = scene.chance.randrange(2**31)
    killed = scene.chance.random() < 0.5
    process = _jumper(str(scene.world.folder), str(seed))
    await until(lambda: process.poll() is not None, 4 if killed else 30)
    scene.lost += scene.look.hosts("jumper")
    scene.strike()
    process.kill()
    _, err = await asyncio.to_thread(process.communicate)
    if process.returncode not in (0, -signal.SIGKILL):
        scene.said.append(f"clock-jumps: the host ended with {process.returncode}: {err[-1000:]}")
    return f"seed {seed}, {'killed' if process.returncode else 'stopped'}"


def _jumper(folder: str, seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.jumper", folder, seed, "6"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


async def end_sessions(scene: Scene) -> str:
    """The server ends every connection to the store, again and again: most of them in the middle of something."""
    ended = 0
    for _ in range(8):
        ended += await asyncio.to_thread(_database(scene).end_sessions)
        await asyncio.sleep(scene.chance.uniform(0.05, 0.6))
    scene.strike()
    return f"{ended} sessions in 8 bursts"


async def kill_session(scene: Scene) -> str:
    """SIGKILL of one of the server's processes: it takes all others down with it, recovers, and takes connections."""
    sessions = await asyncio.to_thread(_database(scene).sessions)
    pid = scene.chance.choice(sessions)
    scene.strike()
    await _kill(pid)
    return f"pid {pid} of {len(sessions)}"


async def restart_server(scene: Scene) -> str:
    """The server stops as by a crash and starts at once."""
    await asyncio.to_thread(_database(scene).server.restart, "immediate")
    scene.strike()
    return "as by a crash"


async def stop_server(scene: Scene) -> str:
    """The server is not there, for less than a lease or more."""
    server, seconds = _database(scene).server, scene.chance.uniform(0.3, 1.8) * LEASE
    await asyncio.to_thread(server.stop, scene.chance.choice(["fast", "immediate"]))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)
    scene.strike()
    return f"for {seconds:.1f} s"


async def freeze_server(scene: Scene) -> str:
    """The server stands still with its connections open, for less than a lease or more."""
    server, seconds = _database(scene).server, scene.chance.uniform(0.3, 1.8) * LEASE
    await asyncio.to_thread(server.pause)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(server.resume)
    scene.strike()
    return f"for {seconds:.1f} s"


def _database(scene: Scene) -> DatabaseSeen:
    assert isinstance(scene.world.store, DatabaseSeen)
    return scene.world.store


async def _kill(pid: int) -> None:
    send(pid, signal.SIGKILL)
    await until(lambda: is_gone(pid), 5)


def _fill(path: str) -> int:
    """Write until nothing more fits; how much that was."""
    written, piece = 0, 4 * 2**20
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while piece:
            try:
                written += os.write(handle, bytes(piece))
            except OSError:
                piece //= 4
    finally:
        os.close(handle)
    return written


def _is_below(pid: int, raylet: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1]) == raylet
    except OSError:
        return False


_BOTH: dict[str, Fault] = {
    "kill-run": partial(kill_host, "run"),
    "kill-worker": partial(kill_host, "worker"),
    "kill-traces": kill_traces,
    "kill-supervisor": kill_supervisor,
    "kill-driver": kill_driver,
    "kill-raylet": kill_raylet,
    "kill-everything": kill_everything,
    "freeze-run": partial(freeze_host, "run"),
    "freeze-worker": partial(freeze_host, "worker"),
    "nap-run": partial(nap_host, "run"),
    "nap-worker": partial(nap_host, "worker"),
    "freeze-supervisor": partial(freeze_keeper, "supervisor"),
    "freeze-traces": partial(freeze_keeper, "traces"),
    "slow-disk": slow_disk,
    "clock-jumps": clock_jumps,
}
_SERVERS: dict[str, Fault] = {
    "end-sessions": end_sessions,
    "kill-session": kill_session,
    "restart-server": restart_server,
    "stop-server": stop_server,
    "freeze-server": freeze_server,
}
FAULTS: dict[Kind, dict[str, Fault]] = {"sqlite": _BOTH | {"full-disk": full_disk}, "postgres": _BOTH | _SERVERS}
"""What can happen to a runtime on each kind of store."""
ALONE = frozenset({"kill-everything", "full-disk", "kill-raylet", "stop-server", "freeze-server", "restart-server"})
"""Faults that are not paired with another one."""
