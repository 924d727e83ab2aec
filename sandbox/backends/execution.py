"""One exec under a profile's limits: what is watched while it runs, and how its end becomes a result.

Owns the limits that hold in every backend. Knows no backend: each says only what is to be started.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends.cgroups import Cgroups
from retinue.sandbox.backends.launching import Launcher, Start
from retinue.sandbox.backends.port import Place, Surroundings
from retinue.sandbox.backends.running import no_folder
from retinue.sandbox.backends.streams import Excerpt
from retinue.sandbox.backends.watching import Watched, threads_of, watched, watching
from retinue.sandbox.profiles import Limits, Profile

_FEWEST_FILES = 32
"""Open files that a helper program needs for itself."""

_SAID = 1_000
"""Characters of what a helper says that are told, its last."""

_ENDED = b'"exit-code"'
"""What the report of a helper has once its program has run."""

_NO_PROGRAM = "bwrap: execvp "
_NO_FOLDER = "bwrap: Can't chdir to "
_SIGNALS = frozenset(map(int, signal.valid_signals()))
_BY_SIGNAL: dict[int, str] = {signal.SIGXCPU: "cpu", signal.SIGXFSZ: "file_size"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of an exec. `temporary` is a folder of the host that it may fill besides its workspace."""

    place: Place
    profile: Profile
    order: Exec
    around: Surroundings
    temporary: Path | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an exec ended: `status` as `wait` gives it, of the program or, when `helped`, of what it was started by.
    `began` says whether the program has run, as far as that is known, and `missing` that there is none of its name.
    """

    status: int | None
    helped: bool
    began: bool
    missing: str
    stopped: str
    stdout: Excerpt
    stderr: Excerpt
    micros: int


def variables(own: Mapping[str, str], order: Exec, around: Surroundings) -> dict[str, str]:
    """The environment of an exec: a backend's own variables, those of the order, those that come with it.
    SandboxRefused for words that no program can be given, which could be read as options of what starts it.
    """
    found = {**own, **order.env, **around.environment}
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise SandboxRefused(
                f"the variable {name!r} cannot be given to a program: a name is not empty and has no `=`, and neither "
                f"name nor value has a NUL character",
                code="sandbox_words",
            )
    if not order.argv[0:1] or not order.argv[0] or any("\0" in word for word in (*order.argv, order.cwd)):
        raise SandboxRefused(
            "a program cannot be started with these words: the first is not empty, and none, nor `cwd`, has a NUL "
            "character",
            code="sandbox_words",
        )
    return found


class Runner:
    """Runs what backends have made ready, with one launcher and one set of control groups. Close it."""

    def __init__(self, launcher: Launcher, groups: Cgroups) -> None:
        self._launcher = launcher
        self._groups = groups

    @property
    def held(self) -> frozenset[str]:
        """What control groups hold here: `memory`, `pids`."""
        return self._groups.controls

    async def run(self, start: Start, plan: Plan) -> ExecResult:
        """Start it, watch it if its profile is confined, and say how it ended."""
        if not plan.profile.confined:
            try:
                return result(await self._run(start, plan, None))
            finally:
                self._launcher.have_ready(())
        limits = _with_helpers(plan.profile.limits, start.helpers)
        group = self._groups.take(limits)
        members = group.members if group else ()
        limited = replace(start, cgroups=members, limits=(*rlimits(limits), *self._count_limit(limits, start.uid)))
        try:
            over = watched(limits, self.held, plan.place.workspace, plan.temporary)
            ended = await self._run(limited, plan, over)
            return result(ended, group.hit() if group else ())
        finally:
            if group is None or self._groups.give_back(group, limits):
                self._launcher.have_ready(members)

    def close(self) -> None:
        """End the launcher, remove the groups."""
        self._launcher.close()
        self._groups.close()

    def _count_limit(self, limits: Limits, uid: int | None) -> Iterator[tuple[str, int, int]]:
        """Where no group holds it, the kernel counts the processes of the user: the sandbox's own, or this one with
        all that he has besides.
        """
        if limits.processes is not None and "pids" not in self.held:
            count = limits.processes + (0 if uid is not None else threads_of(os.geteuid()))
            yield "RLIMIT_NPROC", count, count

    async def _run(self, start: Start, plan: Plan, over: Watched | None) -> Ended:
        order = plan.order
        began = time.monotonic_ns()
        streams = Excerpt(order.max_output), Excerpt(order.max_output)
        running = self._launcher.start(start, streams)
        running.output = plan.around.output
        async with watching(running, over):
            status = await running.wait(min(order.timeout, plan.profile.limits.seconds))
        return Ended(
            status=status,
            helped=start.reports,
            began=not start.reports or _ENDED in running.report,
            missing=running.missing,
            stopped=running.stopped,
            stdout=streams[0],
            stderr=streams[1],
            micros=(time.monotonic_ns() - began) // 1000,
        )


def _with_helpers(limits: Limits, helpers: int) -> Limits:
    if not helpers or limits.processes is None:
        return limits
    return limits.model_copy(update={"processes": limits.processes + helpers})


def rlimits(limits: Limits) -> Iterator[tuple[str, int, int]]:
    """(name, soft, hard) of the limits that the kernel holds for each process. The signal for too much processor time
    can be caught, so there is an end one second later.
    """
    yield "RLIMIT_CORE", 0, 0
    if limits.cpu_seconds is not None:
        yield "RLIMIT_CPU", limits.cpu_seconds, limits.cpu_seconds + 1
    if limits.file_bytes is not None:
        yield "RLIMIT_FSIZE", limits.file_bytes, limits.file_bytes
    if limits.open_files is not None:
        files = max(limits.open_files, _FEWEST_FILES)
        yield "RLIMIT_NOFILE", files, files


def result(ended: Ended, held: tuple[str, ...] = ()) -> ExecResult:
    """The result of an exec; `limits` from why it was stopped, from what control groups `held` and from the signal
    that ended it. TransientError when the helper could not make the sandbox.
    """
    code, number = _outcome(ended)
    hit = tuple(dict.fromkeys(name for name in (ended.stopped, *held, _BY_SIGNAL.get(number or 0)) if name))
    if missing := ended.missing or _missing(ended, hit):
        return ExecResult(exit_code=127, stderr=missing, stderr_bytes=len(missing.encode()), micros=ended.micros)
    return ExecResult(
        exit_code=code,
        signal=number,
        stdout=ended.stdout.text(),
        stderr=ended.stderr.text(),
        stdout_bytes=ended.stdout.written,
        stderr_bytes=ended.stderr.written,
        limits=hit,
        micros=ended.micros,
    )


def _missing(ended: Ended, hit: tuple[str, ...]) -> str:
    """What a helper said of a program that is not there; nothing when it has run, or was ended before."""
    if ended.began or hit:
        return ""
    if ended.status is not None and os.WIFSIGNALED(ended.status):
        number = os.WTERMSIG(ended.status)
        raise TransientError(
            f"what the sandbox was started by was ended by signal {number}: whether the program has run is not known",
            code="sandbox_start",
        )
    said = ended.stderr.text().strip()
    if _NO_FOLDER in said:
        raise no_folder(said.partition(_NO_FOLDER)[2])
    if _NO_PROGRAM not in said:
        told = said[-_SAID:]
        raise TransientError(f"the sandbox was not set up, the program has not run: {told}", code="sandbox_start")
    return said.partition(_NO_PROGRAM)[2]


def _outcome(ended: Ended) -> tuple[int | None, int | None]:
    """(exit code, signal). A helper tells of a signal as a shell does: 128 and its number."""
    status = ended.status
    if status is None:
        return None, signal.SIGKILL
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    code = os.WEXITSTATUS(status)
    if ended.helped and code - 128 in _SIGNALS:
        return None, code - 128
    return code, None
