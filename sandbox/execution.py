"""One exec under a profile's limits: what is watched while it runs, and how its end becomes a result.

Owns the limits that hold in every backend. Knows no backend: each says only what is to be started.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends import Place, Surroundings
from retinue.sandbox.launching import Launcher, Start
from retinue.sandbox.profiles import Limits, Profile
from retinue.sandbox.streams import Kept

_FEWEST_FILES = 32
"""Open files that a helper program needs for itself."""

_ENDED = b'"exit-code"'
"""What the report of a helper has once its program has run."""

_NO_PROGRAM = "bwrap: execvp "
_SIGNALS = frozenset(map(int, signal.valid_signals()))
_BY_SIGNAL: dict[int, str] = {signal.SIGXCPU: "cpu", signal.SIGXFSZ: "file_size"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of an exec."""

    place: Place
    profile: Profile
    order: Exec
    around: Surroundings


@dataclass(frozen=True, slots=True)
class Ended:
    """How an exec ended: `status` as `wait` gives it, of the program or, when `helped`, of what it was started by."""

    status: int | None
    helped: bool
    stopped: str
    stdout: Kept
    stderr: Kept
    micros: int


async def run(launcher: Launcher, start: Start, plan: Plan) -> ExecResult:
    """Start it with the limits that each process has, watch it, and say how it ended."""
    order, limits = plan.order, plan.profile.limits
    began = time.monotonic_ns()
    streams = Kept(order.max_output), Kept(order.max_output)
    running = launcher.start(replace(start, limits=(*start.limits, *rlimits(limits))), streams)
    running.output = plan.around.output
    status = await running.wait(min(order.timeout, limits.seconds))
    ended = Ended(status, start.reports, running.stopped, *streams, micros=(time.monotonic_ns() - began) // 1000)
    if start.reports and not running.stopped and _ENDED not in running.report:
        return _not_begun(ended)
    return result(ended)


def rlimits(limits: Limits) -> Iterator[tuple[str, int]]:
    """(name, amount) of the limits that the kernel holds for each process."""
    yield "RLIMIT_CORE", 0
    if limits.cpu_seconds is not None:
        yield "RLIMIT_CPU", limits.cpu_seconds
    if limits.file_bytes is not None:
        yield "RLIMIT_FSIZE", limits.file_bytes
    if limits.open_files is not None:
        yield "RLIMIT_NOFILE", max(limits.open_files, _FEWEST_FILES)


def _not_begun(ended: Ended) -> ExecResult:
    """The helper has run no program: there is none of that name, or it could not make the sandbox."""
    said = ended.stderr.text().strip()
    if _NO_PROGRAM not in said:
        raise TransientError(f"the sandbox was not set up, the program has not run: {said}", code="sandbox_start")
    missing = said.partition(_NO_PROGRAM)[2]
    return ExecResult(exit_code=127, stderr=missing, stderr_bytes=len(missing.encode()), micros=ended.micros)


def result(ended: Ended) -> ExecResult:
    """The result of an exec; `limits` from why it was stopped and from the signal that ended it."""
    code, number = _outcome(ended)
    hit = [ended.stopped, _BY_SIGNAL.get(number or 0, "")]
    return ExecResult(
        exit_code=code,
        signal=number,
        stdout=ended.stdout.text(),
        stderr=ended.stderr.text(),
        stdout_bytes=ended.stdout.written,
        stderr_bytes=ended.stderr.written,
        limits=tuple(dict.fromkeys(name for name in hit if name)),
        micros=ended.micros,
    )


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
