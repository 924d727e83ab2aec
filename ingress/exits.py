"""What a command's exit code says, in one table.

Owns the codes and which error leads to which. Knows no command.
"""

from __future__ import annotations

from enum import IntEnum

import click

from retinue.runs.contracts import Status
from retinue.runs.errors import EffectError, InvalidInput, RetinueError, RunCanceled, RunError, StoreError
from retinue.runs.machine import IllegalTransition


class Exit(IntEnum):
    """Exit codes; docs/cli.md says the same."""

    done = 0
    failed = 1
    usage = 2
    asks = 3
    timeout = 4
    canceled = 5
    runtime = 6
    internal = 70
    interrupted = 130
    terminated = 143


MEANING: dict[Exit, str] = {
    Exit.done: "all went well",
    Exit.failed: "a run or a row failed, or a check of `doctor` did",
    Exit.usage: "the command line, the configuration, a policy or an input cannot be used; nothing was started",
    Exit.asks: "a run waits for a person: `retinue inbox`",
    Exit.timeout: "the time allowed is over; the run goes on",
    Exit.canceled: "the run was canceled",
    Exit.runtime: "the store or the runtime cannot be used: busy, full, not reachable, not running",
    Exit.internal: "a defect of Retinue; RETINUE_DEBUG=1 shows where",
    Exit.interrupted: "Ctrl-C",
    Exit.terminated: "the process was asked to end (SIGTERM)",
}

ENDED: dict[Status, Exit] = {
    Status.completed: Exit.done,
    Status.failed: Exit.failed,
    Status.canceled: Exit.canceled,
}
"""The code of a command that waited for a run."""

_BY_ERROR: tuple[tuple[type[BaseException], Exit], ...] = (
    (RunCanceled, Exit.canceled),
    (RunError, Exit.failed),
    (InvalidInput, Exit.usage),
    (IllegalTransition, Exit.usage),
    (EffectError, Exit.usage),
    (StoreError, Exit.runtime),
    (RetinueError, Exit.runtime),
    (click.ClickException, Exit.usage),
    (TimeoutError, Exit.timeout),
)


def exit_for(error: BaseException) -> Exit:
    """The code an error leads to; `internal` for one that nobody foresaw."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.internal)
