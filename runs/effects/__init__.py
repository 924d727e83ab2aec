"""The effects a run can have, one module a family; each is performed again from its start after any wait.

A performer is called when the function asks, when a wait is over, and after a crash: it looks at the history
to see how far it got. It ends with Done, with Wait, or with an error that becomes the outcome. Only the gate is
asked at once, without a performer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from retinue.runs.effects import adopted, children, memory, models, plain, queued, waits
from retinue.runs.effects.run import Run
from retinue.runs.journal import EffectKind
from retinue.runs.steps import Command, Done, Wait

Performer = Callable[[Run, Command], Awaitable[Done | Wait]]

PERFORMERS: dict[EffectKind, Performer] = {
    "model": models.perform,
    "call": queued.perform,
    "children": children.perform,
    "timer": waits.sleep,
    "approval": waits.ask,
    "input": waits.ask,
    "event": waits.take_event,
    "step": plain.perform,
    "adopt": adopted.perform,
    "remember": memory.perform,
    "recall": memory.perform,
    "forget": memory.perform,
}


async def perform(run: Run, command: Command) -> Done | Wait:
    """Perform an effect, or go on with it."""
    return await PERFORMERS[command.effect](run, command)
