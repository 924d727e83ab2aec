"""The backend `landlock`: rules of the kernel that a process puts on itself, where user namespaces are closed.

Owns the rules. It has no own root, no own processes and no own network: a program sees the paths of the host, and the
rules let it open nothing but its workspace, its temporary folder and what its profile shows. Without a network it makes
no socket at all. What that leaves open is told by `probe`, and profiles that need it are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import roots, seccomp
from retinue.sandbox.backends.execution import Plan, Runner, variables
from retinue.sandbox.backends.keeper import LANDLOCK_CREATE_RULESET
from retinue.sandbox.backends.launching import Start
from retinue.sandbox.backends.port import Demand, Finding, Place, Report, Surroundings
from retinue.sandbox.backends.remedies import DISK_GAP, MEMORY_GAP, PROCESSES_GAP
from retinue.sandbox.backends.selftest import Attempts, absent, try_out
from retinue.sandbox.profiles import Profile

NAME = "landlock"

_READ = 1 << 0 | 1 << 2 | 1 << 3
"""EXECUTE, READ_FILE, READ_DIR."""

_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
"""EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE: all that a rule for a single file may allow."""

_NOT_GIVEN = 1 << 6 | 1 << 11 | 1 << 15
"""MAKE_CHAR, MAKE_BLOCK, IOCTL_DEV: allowed nowhere."""

_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many accesses of files each version knows; later ones as many as the newest here."""

_TCP = 0b11
_SCOPES = 0b11
"""Connections to abstract sockets and signals stay within."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SHOWN_ETC = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf")
_OTHER_BACKEND = "open user namespaces, so that bubblewrap can be used (see what it lacks)"
_OWN_USER = f"run the host as root with `sandbox: uids:`, or {_OTHER_BACKEND}"


def version() -> int:
    """Landlock's version in this kernel, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    answered: int = ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(0, answered)


@dataclass(frozen=True, slots=True)
class _Found:
    version: int
    without_sockets: str
    with_sockets: str


class Landlock:
    """The backend. One a process; it shares the runner with others. `uid` is the user that the self-test takes where
    the host is root.
    """

    name = NAME

    def __init__(self, runner: Runner, uid: int | None) -> None:
        self._runner = runner
        self._uid = uid if os.geteuid() == 0 else None
        self._found: _Found | None = None
        self._probing = asyncio.Lock()

    async def probe(self) -> Report:
        """The self-test, made once in a process; again when it could not be made."""
        async with self._probing:
            return await self._try_out()

    def inside(self, place: Place) -> str:
        """See Backend."""
        return str(place.workspace)

    async def exec(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        """Run a program to its end. SandboxRefused where there is no Landlock, for root without a user of the
        sandbox's, and for a profile that lists hosts.
        """
        if place.uid is None and os.geteuid() == 0:
            raise SandboxRefused(
                "landlock confines no root: give each sandbox a user (`sandbox: uids:`)", code="sandbox_root"
            )
        if profile.network == "listed":
            raise SandboxRefused(f"{NO_HOSTS.why}: {NO_HOSTS.remedy}", code="sandbox_hosts")
        found = await self._find()
        async with _temporary(place) as temporary:
            plan = Plan(place, profile, order, around, temporary)
            return await self._runner.run(self._start(found, plan, temporary), plan)

    def _start(self, found: _Found, plan: Plan, temporary: Path) -> Start:
        place, profile, order = plan.place, plan.profile, plan.order
        workspace = str(place.workspace)
        paths = [*roots.shown(place, profile), *(path for path in _SHOWN_ETC if os.path.exists(path))]
        rules = _rules(found.version, paths, [workspace, str(temporary)])
        networked = profile.network == "host"
        own = roots.environment(place, workspace, str(temporary), roots.interpreter())
        return Start(
            argv=order.argv,
            environment=variables(own, order, plan.around),
            cwd=roots.inner(order.cwd, workspace),
            uid=place.uid,
            covers=roots.covers([*paths, workspace, str(temporary)], place.uid),
            stdin=order.stdin.encode(),
            locked={
                "handled": _handled(found.version, networked),
                "rules": rules,
                "filter": found.with_sockets if networked else found.without_sockets,
            },
        )

    async def _find(self) -> _Found:
        if self._found is None:
            number = version()
            if not number:
                raise SandboxRefused(
                    "this system has no Landlock: take Linux from 5.13 on with `landlock` among the kernel's lsm=",
                    code="sandbox_backend",
                )
            closed = await asyncio.to_thread(seccomp.build, sockets=False, others=False)
            opened = await asyncio.to_thread(seccomp.build, sockets=True, others=False)
            self._found = _Found(number, closed.hex(), opened.hex())
        return self._found

    async def _try_out(self) -> Report:
        try:
            found = await self._find()
        except SandboxRefused as error:
            return absent(NAME, "", *str(error).split(": ", 1))
        attempts = Attempts(NAME, f"ABI {found.version}", self.exec, self._uid)
        return await try_out(attempts, _gaps(found.version, self._uid is not None, self._runner.held))


NO_HOSTS = Finding("absent", "landlock has no network of its own that a proxy could stand in", _OTHER_BACKEND)


def _gaps(number: int, own_user: bool, held: frozenset[str]) -> dict[Demand, Finding]:
    """What no attempt shows. With a user of its own a program has no rights to what the rules do not cover."""
    found: dict[Demand, Finding] = {"hosts": NO_HOSTS, "disk": DISK_GAP}
    if number < 3:
        found["files"] = Finding("absent", "files outside can be cut to nothing", "take Linux from 6.2 on")
    if not own_user:
        found["files"] = Finding("limited", "modes and times of this user's files outside can be changed", _OWN_USER)
    if number < 6 and not own_user:
        signals = Finding("limited", "this user's processes outside can be signaled", "take Linux from 6.12 on")
        found |= {"processes": signals, "cleanup": signals}
    if "memory" not in held:
        found["memory"] = MEMORY_GAP
    if "pids" not in held and not own_user:
        found["process_count"] = PROCESSES_GAP
    return found


def _handled(number: int, networked: bool) -> list[int]:
    """The masks of `struct landlock_ruleset_attr` that this version has: files, TCP, scopes."""
    newest = max(_FILE_ACCESSES)
    files = (1 << _FILE_ACCESSES[min(number, newest)]) - 1
    return [files, *([0 if networked else _TCP] if number >= 4 else []), *([_SCOPES] if number >= 6 else [])]


def _rules(number: int, reads: list[str], writes: list[str]) -> list[tuple[str, int]]:
    """(path, accesses) of what may be opened."""
    every = _handled(number, True)[0]
    rules = [(path, _READ if os.path.isdir(path) else _READ & _OF_FILES) for path in reads]
    rules += [(path, every & ~_NOT_GIVEN) for path in writes]
    devices = [path for path in _DEVICES if os.path.exists(path)]
    return [*rules, *((path, every & _OF_FILES) for path in devices)]


@contextlib.asynccontextmanager
async def _temporary(place: Place) -> AsyncIterator[Path]:
    """A folder for one exec beside its workspace, its user's own; gone after it, or with the workspace's folder."""
    made = await asyncio.to_thread(_make_temporary, place)
    try:
        yield made
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, made, True))


def _make_temporary(place: Place) -> Path:
    made = Path(tempfile.mkdtemp(prefix="tmp-", dir=place.workspace.parent))
    if place.uid is not None:
        os.chown(made, place.uid, place.uid)
    return made
