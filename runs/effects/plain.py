"""Plain functions as durable steps: `ctx.step(fn)`.

The function is passed by the code that runs, not by the journal: replay needs its outcome, not the function.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from retinue.runs.contracts import NOTHING, ErrorInfo
from retinue.runs.effects import doubts, retrying
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, PermanentError, StoreUnreachable
from retinue.runs.piecewise import dump, load
from retinue.runs.steps import Command, Done, Wait, intent_of


async def perform(run: Run, command: Command) -> Done | Wait:
    """Run the function once, or again when it may be repeated and nobody knows how it ended."""
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    repeatable = bool(command.options["repeatable"])
    if command.interrupted and not repeatable:
        said = await doubts.ask(run, command, f"step {command.name} may have happened before a crash")
        if isinstance(said, Wait):
            return said
        if said.verdict == "happened":
            return Done(value=said.value, facts={"said_by": said.by})
        if said.verdict == "fail":
            return doubts.unknown(command.name, f"step {command.name} may have happened before a crash", NOTHING)
    if (command.interrupted and not repeatable) or command.key not in run.history.intents:
        intent = intent_of(command, run.services.now_ns(), {} if repeatable else {"repeatable": False})
        if repeatable:
            run.note(intent)
        else:
            await run.write(intent)
    command.interrupted = False
    try:
        return Done(value=await _run(run, command))
    except EffectError as error:
        return retrying.after(run, command, error) if repeatable else _failed(error)


def _failed(error: EffectError) -> Done:
    return Done(result="error", error=ErrorInfo(reason=error.reason, code=error.code, message=str(error)))


def _function(run: Run, command: Command) -> Callable[..., Any]:
    """The caller's function, or the host's that writes a part."""
    if not command.options.get("part"):
        function: Callable[..., Any] = command.options["function"]
        return function
    if run.services.parts is None:
        raise PermanentError(f"step {command.name}: this host writes no files of rows", code="no_parts")
    return run.services.parts.write


async def _run(run: Run, command: Command) -> object:
    function = _function(run, command)
    try:
        if inspect.iscoroutinefunction(function):
            value = await function(*command.arguments)
        else:
            value = await asyncio.to_thread(function, *command.arguments)
    except (EffectError, StoreUnreachable):
        raise
    except (Exception, SystemExit) as error:
        raise PermanentError(f"step {command.name} raised {type(error).__name__}: {error}", code="raised") from error
    try:
        return load(dump(value))
    except ValueError as error:
        raise PermanentError(f"step {command.name} returned what is not JSON: {error}", code="invalid_output") from None
