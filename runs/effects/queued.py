"""Calls in one sandbox, one after the other in the order in which they were asked for.

The turn of a call ends when its outcome is in the journal's buffer, or when it waits. Knows nothing of how it is made.
"""

from __future__ import annotations

from retinue.runs.effects import calls
from retinue.runs.effects.run import Run
from retinue.runs.effects.sandbox_facts import manifest_named, queue_of
from retinue.runs.steps import Command, Done, Wait


async def perform(run: Run, command: Command) -> Done | Wait:
    """Make a capability call, or go on with one, when it is its turn."""
    queue = queue_of(command)
    if queue is None:
        return await _perform(run, command)
    await run.boxes.enter(queue, command.key)
    ended: Done | Wait | None = None
    try:
        ended = await _perform(run, command)
    finally:
        if not isinstance(ended, Done) or "!" in command.key:
            run.boxes.leave(command.key)
    return ended


async def _perform(run: Run, command: Command) -> Done | Wait:
    name = manifest_named(run, command)
    if name is not None:
        await run.boxes.learn(name)
    return await calls.perform(run, command)
